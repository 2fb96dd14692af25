"""What opening an encrypted key file would cost, read from the file before anything is derived from a passphrase.

PKCS #8 (RFC 5958) lets a file choose the rounds of PBKDF2 and the memory of scrypt (RFC 8018 appendix A.2, RFC 7914
§7): a few bytes could keep a machine busy for hours.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

# Two seconds of PBKDF2. 'ticketguard keygen' and OpenSSL write 2048, the careful a million.
MAX_ROUNDS = 2_000_000
# N times r times p: 256 MiB.
MAX_SCRYPT_COST = 2**21
SCRYPT_OBJECT = bytes.fromhex("06092b06010401da47040b")
BLOCK_PATTERN = re.compile(
    rb"-----BEGIN ENCRYPTED PRIVATE KEY-----([A-Za-z0-9+/=\s]*)-----END ENCRYPTED PRIVATE KEY-----"
)
INTEGER, CONSTRUCTED, LONG_FORM = 0x02, 0x20, 0x80
MAX_DEPTH = 8


def check_key_cost(content: bytes) -> None:
    """Refuse encrypted keys in PEM that ask for more work than any honest one.

    Raises:
        ValueError: One does, or is malformed; the message continues from the file's name.
    """
    for block in BLOCK_PATTERN.finditer(content):
        der = base64.b64decode(b"".join(block[1].split()))
        cost, is_scrypt = 1, SCRYPT_OBJECT in der
        for number in _integers(der, depth=0):
            cost = cost * number if is_scrypt else max(cost, number)
        if cost > (limit := MAX_SCRYPT_COST if is_scrypt else MAX_ROUNDS):
            raise ValueError(f"takes {cost} units of work to open, expected at most {limit}")


def _integers(der: bytes, *, depth: int) -> Iterator[int]:
    """Walk DER (X.690 §8.1) and give its small integers; octet strings are not searched."""
    position = 0
    while position < len(der):
        tag, length = der[position], der[position + 1] if position + 1 < len(der) else 0
        position += 2
        if length & LONG_FORM:
            size = length & ~LONG_FORM
            length = int.from_bytes(der[position : position + size], "big")
            position += size
        body = der[position : position + length]
        if len(body) != length or depth > MAX_DEPTH:
            raise ValueError("is not an encrypted key in DER")
        if tag == INTEGER:
            yield abs(int.from_bytes(body[:16], "big"))
        elif tag & CONSTRUCTED:
            yield from _integers(body, depth=depth + 1)
        position += length
