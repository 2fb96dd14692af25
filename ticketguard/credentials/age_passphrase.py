"""age files under a passphrase (age-encryption.org/v1, the scrypt recipient), sealed with a single fixed work factor.

The age library that seals to vault keys chooses the work factor by a stopwatch and refuses one that its stopwatch
finds too slow, so that a busy machine could neither seal safely nor open what a quiet one had sealed. Here nothing
is timed (``docs/decisions/0057-one-work-factor.md``). Section names are those of github.com/C2SP/C2SP, ``age.md``.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ticketguard.credentials.streams import Joined, Readable
from ticketguard.errors import FileError, WrongPassphraseError

# scrypt takes 2^(10 + work factor) bytes: 256 MiB, and about a second of one core.
WORK_FACTOR = 18
# 2 GiB. Files from the time when a stopwatch chose have 16 to 20, from the fastest machines 21.
MAX_WORK_FACTOR = 21
MAGIC = b"age-encryption.org/v1\n"
CHUNK_BYTES = 64 * 1024
TAG_BYTES = NONCE_BYTES = FILE_KEY_BYTES = SALT_BYTES = 16
SCRYPT_LABEL = b"age-encryption.org/v1/scrypt"
# "An scrypt stanza, if present, MUST be the only stanza in the header": with one stanza, this is the whole grammar.
HEADER_PATTERN = re.compile(
    rb"age-encryption\.org/v1\n"
    rb"-> scrypt ([A-Za-z0-9+/]{22}) ([1-9][0-9]{0,18})\n"
    rb"([A-Za-z0-9+/]{43})\n"
    rb"--- ([A-Za-z0-9+/]{43})\n"
)
# What that pattern can match at most.
HEADER_LIMIT_BYTES = 256
DAMAGED = "it is damaged or cut short; use another copy"


def is_sealed_by_passphrase(content: bytes) -> bool:
    """Say whether an age file's first stanza is of the scrypt kind."""
    return content.startswith(MAGIC + b"-> scrypt ")


def seal(plaintext: Readable, passphrase: bytes, *, work_factor: int = WORK_FACTOR) -> bytes:
    """Encrypt *plaintext* under a passphrase; ``age -d`` opens the result.

    Args:
        plaintext: What is sealed is read from it, to its end.
        passphrase: What will open it.
        work_factor: Logarithm to base two of scrypt's N; anything less than the default is for tests.
    """
    file_key, salt, nonce = os.urandom(FILE_KEY_BYTES), os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    wrapped = ChaCha20Poly1305(_wrap_key(passphrase, salt, work_factor)).encrypt(bytes(12), file_key, None)
    header = b"%b-> scrypt %b %d\n%b\n---" % (MAGIC, _encode(salt), work_factor, _encode(wrapped))
    sealed = io.BytesIO()
    sealed.write(b"%b %b\n%b" % (header, _encode(_header_mac(file_key, header).finalize()), nonce))
    cipher = ChaCha20Poly1305(_derive(file_key, salt=nonce, info=b"payload"))
    # "The final chunk MUST NOT be empty unless the whole payload is empty."
    for number, (chunk, last) in enumerate(_chunks(plaintext, CHUNK_BYTES)):
        sealed.write(cipher.encrypt(_chunk_nonce(number, last=last), chunk, None))
    return sealed.getvalue()


def unseal(content: Readable, passphrase: bytes, write: Callable[[bytes], object], *, name: object) -> None:
    """Decrypt an age file under a passphrase. Whether it succeeds does not depend on how long it takes.

    Args:
        content: The file's bytes are read from it, to their end.
        passphrase: What it was sealed with.
        write: Called with the plaintext, a piece at a time. Each piece is as it was sealed; that it is all there is
            known when this returns.
        name: What error messages call it, such as its path.

    Raises:
        WrongPassphraseError: The passphrase does not open it. Damage to the bytes that wrap the file's key looks the
            same.
        FileError: Its work factor is above the limit or needs more memory than there is, or it is damaged.
    """
    start = content.read(HEADER_LIMIT_BYTES)
    found = HEADER_PATTERN.match(start)
    if found is None:
        raise FileError(path=name, reason="has a damaged header", hint="use the vault as it was written")
    work_factor = int(found[2])
    if work_factor > MAX_WORK_FACTOR:
        raise FileError(
            path=name,
            reason=f"has scrypt work factor {work_factor}, expected at most {MAX_WORK_FACTOR}",
            hint="opening it would exhaust memory; use the vault as it was written",
        )
    try:
        salt, wrapped, mac = (_decode(found[group]) for group in (1, 3, 4))
    except ValueError as error:
        raise FileError(path=name, reason="has a damaged header", hint="use the vault as it was written") from error
    try:
        wrap_key = _wrap_key(passphrase, salt, work_factor)
    except MemoryError as error:
        raise FileError(
            path=name,
            reason=f"takes {2 ** (work_factor - 10)} MiB of memory to open, more than there is",
            hint="the file is not at fault; close other programs, or open it on a larger machine",
        ) from error
    try:
        file_key = ChaCha20Poly1305(wrap_key).decrypt(bytes(12), wrapped, None)
    except InvalidTag as error:
        raise WrongPassphraseError(path=name) from error
    try:
        _header_mac(file_key, start[: found.start(4) - 1]).verify(mac)
        _open_payload(Joined(start[found.end() :], content), file_key, write)
    except InvalidSignature as error:
        raise FileError(path=name, reason="cannot be decrypted (its header was changed)", hint=DAMAGED) from error
    except InvalidTag as error:
        raise FileError(path=name, reason="cannot be decrypted (its content was changed)", hint=DAMAGED) from error


def _open_payload(payload: Readable, file_key: bytes, write: Callable[[bytes], object]) -> None:
    cipher = ChaCha20Poly1305(_derive(file_key, salt=payload.read(NONCE_BYTES), info=b"payload"))
    for number, (chunk, last) in enumerate(_chunks(payload, CHUNK_BYTES + TAG_BYTES)):
        if number and len(chunk) <= TAG_BYTES:
            raise InvalidTag  # an empty final chunk after others, or less than a tag
        write(cipher.decrypt(_chunk_nonce(number, last=last), chunk, None))


def _chunks(stream: Readable, size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield chunks of *size* and whether each is the last, which may be shorter; of an empty stream one empty chunk."""
    chunk = stream.read(size)
    while following := stream.read(size):
        yield chunk, False
        chunk = following
    yield chunk, True


def _chunk_nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _wrap_key(passphrase: bytes, salt: bytes, work_factor: int) -> bytes:
    return Scrypt(salt=SCRYPT_LABEL + salt, length=32, n=1 << work_factor, r=8, p=1).derive(passphrase)


def _header_mac(file_key: bytes, header: bytes) -> HMAC:
    mac = HMAC(_derive(file_key, salt=b"", info=b"header"), SHA256())
    mac.update(header)
    return mac


def _derive(file_key: bytes, *, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(file_key)


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    """Undo `_encode` of what the header's grammar lets pass, and refuse every other spelling of the same bytes."""
    data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    if _encode(data) != text:
        raise ValueError("is not canonical base64")
    return data
