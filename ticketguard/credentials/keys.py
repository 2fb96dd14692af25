"""Owner keys: an Ed25519 pair in PEM files that OpenSSL reads too."""

from __future__ import annotations

import dataclasses
import os
import reprlib
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ticketguard.credentials.canonical import BYTE_ORDER_MARK
from ticketguard.credentials.edwards import check_public_key
from ticketguard.credentials.key_cost import check_key_cost
from ticketguard.errors import ConfigurationError, CredentialError, WrongPassphraseError
from ticketguard.files import SECRET, Output, read_whole, write_together

PUBLIC_KEY_BYTES = 32
KEY_FILE_LIMIT_BYTES = 64 * 1024
MAX_NAME_CHARACTERS = 200
# RFC 7468 §5.2 allows explanatory text before the PEM block; readers of PEM skip it.
NAME_HEADER = "Ticketguard-Owner: "
ENCRYPTED_LABEL = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


def is_owner_name(name: str) -> bool:
    """Say whether *name* can be printed on one line: 1 to 200 printable characters, no space at either end."""
    return 1 <= len(name) <= MAX_NAME_CHARACTERS and name.isprintable() and name == name.strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    """Who claims tickets, and the key that signs for them.

    Attributes:
        name: How claims name the owner; it proves nothing, the key does.
        private_key: The Ed25519 private key (RFC 8032).

    Raises:
        ConfigurationError: The name is empty, too long, or not printable on one line.
    """

    name: str
    private_key: Ed25519PrivateKey = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if not is_owner_name(self.name):
            raise ConfigurationError(
                f"owner name is {reprlib.repr(self.name)}, "
                f"expected 1 to {MAX_NAME_CHARACTERS} printable characters on one line"
            )

    @classmethod
    def generate(cls, name: str) -> Owner:
        """Make a fresh key pair from the operating system's randomness.

        Raises:
            ConfigurationError: The name cannot be used.
        """
        return cls(name=name, private_key=Ed25519PrivateKey.generate())

    @property
    def public_key(self) -> bytes:
        """The raw Ed25519 public key, 32 bytes."""
        return self.private_key.public_key().public_bytes_raw()

    def save(self, path: str | os.PathLike[str], passphrase: str | None, *, replace: bool = False) -> None:
        """Write the private key to *path* (PKCS #8 PEM, mode 0600) and the public key beside it, with `.pub` added.

        Args:
            path: A file that does not exist yet: a key that is lost cannot be replaced.
            passphrase: Encrypts the private key; None leaves it readable to anyone who reads the file.
            replace: Replace the files all the same: for keys that are not worth keeping.

        Raises:
            ConfigurationError: The passphrase is empty.
            FileError: One of the files exists already or cannot be written.
        """
        public_path = f"{os.fspath(path)}.pub"
        private = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(passphrase))
        public = self.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        header = f"{NAME_HEADER}{self.name}\n".encode()
        write_together(
            [
                Output(path=Path(path), content=header + private, mode=SECRET, replace=replace),
                Output(path=Path(public_path), content=header + public, replace=replace),
            ]
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: str | None = None) -> Owner:
        """Read a private key; a passphrase that is not needed is ignored.

        Raises:
            FileError: The file cannot be read.
            CredentialError: It does not hold an Ed25519 private key with an owner's name, needs a passphrase, or would
            take hours to open.
            WrongPassphraseError: The passphrase does not open it.
        """
        content = _read_pem(path)
        encrypted = ENCRYPTED_LABEL in content
        if encrypted and passphrase is None:
            raise CredentialError(f"'{path}' is encrypted: give its passphrase")
        secret = encode_passphrase(passphrase) if encrypted and passphrase is not None else None
        try:
            check_key_cost(content)
        except ValueError as error:
            raise CredentialError(f"'{path}' {error}: use the key as it was written") from error
        try:
            key = load_pem_private_key(content, secret)
        except UnsupportedAlgorithm as error:
            raise CredentialError(f"'{path}' holds a key of another kind, expected an Ed25519 private key") from error
        except (ValueError, TypeError, InternalError) as error:
            if encrypted:
                raise WrongPassphraseError(path=path) from error
            raise CredentialError(
                f"'{path}' does not hold a private key in PEM: expected a file written by 'ticketguard keygen'"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise CredentialError(f"'{path}' holds a {type(key).__name__}, expected an Ed25519 private key")
        return cls(name=_read_name(content, path), private_key=key)


def load_public_key(path: str | os.PathLike[str]) -> bytes:
    """Read a public key in PEM and return its raw 32 bytes.

    Raises:
        FileError: The file cannot be read.
        CredentialError: It does not hold an Ed25519 public key, or holds one that nobody can own.
    """
    content = _read_pem(path)
    try:
        key = load_pem_public_key(content)
    except UnsupportedAlgorithm as error:
        raise CredentialError(f"'{path}' holds a key of another kind, expected an Ed25519 public key") from error
    except (ValueError, InternalError) as error:
        raise CredentialError(
            f"'{path}' does not hold a public key in PEM: expected the .pub file written by 'ticketguard keygen'"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise CredentialError(f"'{path}' holds a {type(key).__name__}, expected an Ed25519 public key")
    raw = key.public_bytes_raw()
    try:
        check_public_key(raw)
    except ValueError as error:
        raise CredentialError(f"'{path}' {error}: ask the owner for the key they sign with") from error
    return raw


def encode_passphrase(passphrase: str) -> bytes:
    """Return a passphrase's bytes.

    Raises:
        ConfigurationError: It holds halves of characters, as an environment variable that is not UTF-8 does.
    """
    try:
        return passphrase.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError("the passphrase is not text in UTF-8: give it in a file, as UTF-8") from error


def _read_pem(path: str | os.PathLike[str]) -> bytes:
    # Editors put a byte order mark in front; PEM itself takes either line ending, and text around the key.
    return read_whole(path, limit_bytes=KEY_FILE_LIMIT_BYTES).removeprefix(BYTE_ORDER_MARK)


def _encryption(passphrase: str | None) -> KeySerializationEncryption:
    if passphrase is None:
        return NoEncryption()
    if not passphrase:
        raise ConfigurationError("the passphrase is empty: choose one, or ask for a key without a passphrase")
    return BestAvailableEncryption(encode_passphrase(passphrase))


def _read_name(content: bytes, path: object) -> str:
    first_line = content.split(b"\n", 1)[0].decode("utf-8", errors="replace").rstrip("\r")
    name = first_line.removeprefix(NAME_HEADER)
    if name == first_line or not is_owner_name(name):
        raise CredentialError(f"'{path}' does not name its owner: put '{NAME_HEADER}NAME' before its first line")
    return name
