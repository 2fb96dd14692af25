from __future__ import annotations

import json
from pathlib import Path

import click.testing
import pytest

from ticketguard.cli import main
from ticketguard.credentials.credential import load_credential
from ticketguard.credentials.keys import Owner, load_public_key

from .conftest import PASSPHRASE, Files, Run, validate


def test_keygen_writes_a_pair_that_opens_with_the_passphrase(run: Run, tmp_path: Path) -> None:
    result = run("keygen", "--name", "Ada", "--out", tmp_path / "owner.key", "--json")
    document = json.loads(result.stdout)
    validate(document, "keygen")
    owner = Owner.load(tmp_path / "owner.key", PASSPHRASE)
    assert owner.name == "Ada"
    assert load_public_key(tmp_path / "owner.key.pub").hex() == document["public_key_hex"] == owner.public_key.hex()
    assert document["encrypted"] is True
    assert (tmp_path / "owner.key").stat().st_mode & 0o777 == 0o600


def test_keygen_says_what_it_wrote(run: Run, tmp_path: Path) -> None:
    result = run("keygen", "--name", "Ada", "--out", tmp_path / "owner.key", "--no-passphrase")
    assert f"public key      {tmp_path / 'owner.key.pub'}" in result.stdout
    assert Owner.load(tmp_path / "owner.key").name == "Ada"


def test_a_vault_key_opens_what_is_sealed_to_it(run: Run, files: Files, tmp_path: Path) -> None:
    key = tmp_path / "vault.key"
    document = json.loads(run("keygen", "--vault-key", "--out", key, "--json").stdout)
    validate(document, "keygen")
    credential = load_credential(files.claim, files.vault, PASSPHRASE)
    claim, vault = tmp_path / "claim.json", tmp_path / "vault.age"
    credential.save(claim, vault, Owner.load(files.key, PASSPHRASE), recipient=document["recipient"])
    run("verify", files.marked, "--claim", claim, "--vault", vault, "--vault-key", key)
    assert json.loads(run("inspect", vault, "--vault-key", key, "--json").stdout)["kind"] == "vault"
    assert run("verify", files.marked, "--claim", claim, "--vault", vault, code=3).stdout == ""


def test_a_key_is_for_an_owner_or_for_vaults(run: Run, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "key")
    assert "Missing option '--name'" in run("keygen", *out, code=2).stderr
    assert "has no owner's name" in run("keygen", "--vault-key", "--name", "Ada", *out, code=2).stderr
    assert not (tmp_path / "key").exists()


def test_keygen_never_replaces_a_key(run: Run, tmp_path: Path) -> None:
    run("keygen", "--name", "Ada", "--out", tmp_path / "owner.key")
    before = (tmp_path / "owner.key").read_bytes()
    result = run("keygen", "--name", "Ada", "--out", tmp_path / "owner.key", code=2)
    assert "owner.key': exists already" in result.stderr
    (tmp_path / "owner.key").rename(tmp_path / "moved.key")
    result = run("keygen", "--name", "Ada", "--out", tmp_path / "owner.key", code=2)
    assert "owner.key.pub': exists already" in result.stderr
    assert not (tmp_path / "owner.key").exists()
    assert (tmp_path / "moved.key").read_bytes() == before


def test_keygen_never_replaces_a_vault_key(run: Run, tmp_path: Path) -> None:
    run("keygen", "--vault-key", "--out", tmp_path / "vault.key")
    before = (tmp_path / "vault.key").read_bytes()
    result = run("keygen", "--vault-key", "--out", tmp_path / "vault.key", code=2)
    assert "vault.key': exists already" in result.stderr
    assert (tmp_path / "vault.key").read_bytes() == before


def test_no_passphrase_is_asked_for_a_key_that_is_not_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKETGUARD_PASSPHRASE")
    (tmp_path / "owner.key").touch()
    assert "exists already" in run("keygen", "--name", "Ada", "--out", tmp_path / "owner.key", code=2).stderr


@pytest.mark.parametrize("content", [b"first line\r\nsecond line\n", b"\xef\xbb\xbffirst line\r\n"])
def test_a_passphrase_file_gives_its_first_line(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    run("keygen", "--name", "Ada", "--out", tmp_path / "owner.key", "--passphrase-file", tmp_path / "secret")
    assert Owner.load(tmp_path / "owner.key", "first line").name == "Ada"


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", 2, "is empty: choose one"),
        (b"\xff\xfe", 2, "is not text: expected a passphrase"),
        (None, 3, "cannot be read"),
    ],
)
def test_a_bad_passphrase_file_is_told(
    run: Run, tmp_path: Path, content: bytes | None, code: int, message: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    arguments = ("--out", tmp_path / "owner.key", "--passphrase-file", tmp_path / "secret")
    assert message in run("keygen", "--name", "Ada", *arguments, code=code).stderr
    assert not (tmp_path / "owner.key").exists()


def test_without_a_terminal_a_missing_passphrase_is_wrong_usage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKETGUARD_PASSPHRASE")
    result = run("keygen", "--name", "Ada", "--out", tmp_path / "owner.key", code=2)
    assert "give --passphrase-file or set TICKETGUARD_PASSPHRASE" in result.stderr


def test_at_a_terminal_a_new_passphrase_is_asked_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKETGUARD_PASSPHRASE")
    runner = click.testing.CliRunner()
    with runner.isolation(input="typed\ntyped\n"):
        import sys

        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        with pytest.raises(SystemExit) as ended:
            main(["keygen", "--name", "Ada", "--out", str(tmp_path / "owner.key")])
    assert ended.value.code == 0
    assert Owner.load(tmp_path / "owner.key", "typed").name == "Ada"


def test_a_recipient_that_locks_nothing_is_refused_before_training(run: Run, files: Files, tmp_path: Path) -> None:
    recipient = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z"
    outputs = [f"--{name}={tmp_path / name}" for name in ("out", "claim", "vault")]
    result = run("embed", files.unmarked, "--owner", files.key, "--vault-recipient", recipient, *outputs, code=2)
    assert "is a point of small order: anybody could open what is sealed to it" in result.stderr
    assert not list(tmp_path.iterdir())
