"""A vault key: an age X25519 identity, for vaults that machines open. `age -d -i KEY` opens them too."""

from __future__ import annotations

import dataclasses
import os

import pyrage

from ticketguard.credentials.keys import KEY_FILE_LIMIT_BYTES, refuse_existing
from ticketguard.errors import ConfigurationError, FileError
from ticketguard.files import read_whole, write_whole


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
        """Write the key in the form of age-keygen, readable by its owner only; an existing file is left alone.

        Raises:
            FileError: There is such a file, or it cannot be written.
        """
        refuse_existing(path)
        write_whole(path, f"# public key: {self.recipient}\n{self.identity}\n".encode(), mode=0o600)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VaultKey:
        """Read a key that `save` or age-keygen wrote.

        Raises:
            FileError: The file cannot be read or holds no such key.
        """
        content = read_whole(path, limit_bytes=KEY_FILE_LIMIT_BYTES)
        try:
            lines = [line.strip() for line in content.decode().splitlines()]
            (text,) = (line for line in lines if line and not line.startswith("#"))
            return cls(identity=pyrage.x25519.Identity.from_str(text))
        except (ValueError, pyrage.IdentityError) as error:
            raise FileError(
                path=path,
                reason="holds no age identity (AGE-SECRET-KEY-1...)",
                hint="'ticketguard keygen --vault-key' makes one",
            ) from error


def parse_recipient(text: str) -> pyrage.x25519.Recipient:
    """Read the public half of a vault key.

    Raises:
        ConfigurationError: It is malformed.
    """
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise ConfigurationError(f"'{text}' is no vault key's public half, expected age1...") from error
