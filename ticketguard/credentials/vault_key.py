"""A vault key: an age X25519 identity, for vaults that machines open. `age -d -i KEY` opens them too."""

from __future__ import annotations

import dataclasses
import os
import reprlib
from pathlib import Path

import pyrage
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ticketguard.credentials.keys import KEY_FILE_LIMIT_BYTES
from ticketguard.errors import ConfigurationError, FileError
from ticketguard.files import SECRET, Output, read_whole, write_together

BECH32_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32_CHECKSUM = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaultKey:
    """The private half of a key that vaults are sealed to.

    Attributes:
        identity: The age identity.
    """

    identity: pyrage.x25519.Identity = dataclasses.field(repr=False)

    @classmethod
    def generate(cls) -> VaultKey:
        """Return a new key."""
        return cls(identity=pyrage.x25519.Identity.generate())

    @property
    def recipient(self) -> str:
        """The public half, ``age1…``: what vaults are sealed to."""
        return str(self.identity.to_public())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key in age-keygen's format, readable only by its owner; an existing file is left alone.

        Raises:
            FileError: There is such a file, or it cannot be written.
        """
        content = f"# public key: {self.recipient}\n{self.identity}\n".encode()
        write_together([Output(path=Path(path), content=content, mode=SECRET, replace=False)])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VaultKey:
        """Read a key that `save` or age-keygen wrote.

        Raises:
            FileError: The file cannot be read or does not hold such a key.
        """
        content = read_whole(path, limit_bytes=KEY_FILE_LIMIT_BYTES)
        try:
            lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
            (text,) = (line for line in lines if line and not line.startswith("#"))
            return cls(identity=pyrage.x25519.Identity.from_str(text))
        except (ValueError, pyrage.IdentityError) as error:
            raise FileError(
                path=path,
                reason="does not hold an age identity (AGE-SECRET-KEY-1...)",
                hint="'ticketguard keygen --vault-key' makes one",
            ) from error


def parse_recipient(text: str) -> pyrage.x25519.Recipient:
    """Read the public half of a vault key.

    Raises:
        ConfigurationError: It is malformed, or a point of small order, which would lock nothing.
    """
    try:
        recipient: pyrage.x25519.Recipient = pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise ConfigurationError(f"{reprlib.repr(text)} is not a vault key's public half, expected age1...") from error
    try:
        # RFC 7748 §6.1: a shared secret of zeros is what a point of small order gives, whatever the other half is.
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(_raw(recipient)))
    except ValueError as error:
        raise ConfigurationError(
            f"the vault key's public half '{text}' is a point of small order: anybody could open what is sealed to it; "
            "make one with 'ticketguard keygen --vault-key'"
        ) from error
    return recipient


def _raw(recipient: pyrage.x25519.Recipient) -> bytes:
    # Bech32 (BIP 173): "age1", 52 characters of 5 bits with 4 bits of padding at the end, 6 characters of checksum.
    number = 0
    for character in str(recipient)[len("age1") : -BECH32_CHECKSUM]:
        number = number << 5 | BECH32_ALPHABET.index(character)
    return (number >> 4).to_bytes(32, "big")
