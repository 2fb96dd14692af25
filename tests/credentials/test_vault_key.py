from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ticketguard.credentials.credential import Credential
from ticketguard.credentials.vault import open_vault, seal_vault
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.errors import ConfigurationError, CredentialError, FileError


def test_a_vault_sealed_to_a_key_opens_with_it(credential: Credential) -> None:
    key = VaultKey.generate()
    sealed = seal_vault(credential.vault, recipient=key.recipient)
    assert open_vault(sealed, vault_key=key) == credential.vault


def test_another_key_is_refused(credential: Credential) -> None:
    sealed = seal_vault(credential.vault, recipient=VaultKey.generate().recipient)
    with pytest.raises(CredentialError, match="does not open 'my.vault': use the key it was sealed to"):
        open_vault(sealed, vault_key=VaultKey.generate(), name="my.vault")


def test_a_passphrase_does_not_open_a_vault_sealed_to_a_key(credential: Credential) -> None:
    sealed = seal_vault(credential.vault, recipient=VaultKey.generate().recipient)
    with pytest.raises(CredentialError, match="is sealed to a vault key, not with a passphrase"):
        open_vault(sealed, passphrase="words")


def test_a_damaged_vault_is_told_apart_from_a_wrong_key(credential: Credential) -> None:
    key = VaultKey.generate()
    sealed = seal_vault(credential.vault, recipient=key.recipient)
    with pytest.raises(FileError, match="damaged or cut short"):
        open_vault(sealed[:-1], vault_key=key)


def test_key_and_passphrase_exclude_each_other(credential: Credential) -> None:
    with pytest.raises(ConfigurationError, match="give exactly one of them"):
        seal_vault(credential.vault, passphrase="words", recipient=VaultKey.generate().recipient)
    with pytest.raises(ConfigurationError, match="give exactly one of them"):
        open_vault(b"")
    with pytest.raises(ConfigurationError, match="is not a vault key's public half"):
        seal_vault(credential.vault, recipient="age1nonsense")


def test_a_key_file_survives_and_is_private(tmp_path: Path) -> None:
    key = VaultKey.generate()
    key.save(tmp_path / "vault.key")
    assert VaultKey.load(tmp_path / "vault.key").recipient == key.recipient
    assert repr(key) == "VaultKey()"
    assert stat.S_IMODE((tmp_path / "vault.key").stat().st_mode) == 0o600
    with pytest.raises(FileError, match="exists already"):
        key.save(tmp_path / "vault.key")


@pytest.mark.parametrize(
    "touch", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n") + b"\r\n "]
)
def test_a_key_file_that_an_editor_touched_is_read(tmp_path: Path, touch: Callable[[bytes], bytes]) -> None:
    key, path = VaultKey.generate(), tmp_path / "vault.key"
    key.save(path)
    path.write_bytes(touch(path.read_bytes()))
    assert VaultKey.load(path).recipient == key.recipient


# Points of small order on Curve25519 (RFC 7748; cr.yp.to/ecdh.html#validate), as recipients.
@pytest.mark.parametrize(
    "recipient",
    [
        "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z",
        "age1qyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqj7vrya",
        "age1ur4h5lpmgxu2u9jku0a0r87ydtdqnr0tnsetrlvxvgz3vh6fhqqqzyt4v9",
        "age1t7wft09r2zxzfvwsk92eeql0tvzyghxytqwgapkcyf8dm5ylz9ts6wm9s8",
        "age1anlllllllllllllllllllllllllllllllllllllllllllllllals4n2t7m",
        "age1ahlllllllllllllllllllllllllllllllllllllllllllllllalsn46ayy",
        "age1amlllllllllllllllllllllllllllllllllllllllllllllllalselrwrv",
        "age1ahlllllllllllllllllllllllllllllllllllllllllllllllllsh3g6la",
    ],
)
def test_a_recipient_that_locks_nothing_is_refused(credential: Credential, recipient: str) -> None:
    with pytest.raises(ConfigurationError, match="is a point of small order: anybody could open what is sealed to it"):
        seal_vault(credential.vault, recipient=recipient)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"# only a comment\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vault.key").write_bytes(content)
    with pytest.raises(FileError, match="does not hold an age identity"):
        VaultKey.load(tmp_path / "vault.key")
