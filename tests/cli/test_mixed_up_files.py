"""Files of ours that are given in each other's place are named for what they are, before a passphrase is asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import ticketguard as tg

from .conftest import PASSPHRASE, Files, Run

Give = Callable[[Path, Path, int], str]


@pytest.fixture(params=["verify", "inspect"])
def give(request: pytest.FixtureRequest, run: Run, files: Files, tmp_path: Path) -> Give:
    """Give a command two files as claim and vault, and return what it says."""
    picture = ("--picture", tmp_path / "mask.png") if request.param == "inspect" else ()

    def call(claim: Path, vault: Path, code: int) -> str:
        found = run(request.param, files.marked, *picture, "--claim", claim, "--vault", vault, code=code)
        return found.stderr

    return call


@pytest.fixture
def without_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKETGUARD_PASSPHRASE")


@pytest.mark.usefixtures("without_passphrase")
def test_claim_and_vault_that_are_swapped_are_named(give: Give, files: Files) -> None:
    said = give(files.vault, files.claim, 2)
    assert f"'{files.vault}' is a vault, '{files.claim}' is a claim: swap --claim and --vault" in said


@pytest.mark.usefixtures("without_passphrase")
@pytest.mark.parametrize(
    ("wrong", "called"),
    [
        ("unmarked", "a ticket"),
        ("key", "a private key"),
        ("public", "a public key"),
        ("vault_key", "a vault key"),
        ("folder", "a folder"),
    ],
)
@pytest.mark.parametrize("wanted", ["claim", "vault"])
def test_another_file_in_the_place_of_one_is_named(
    give: Give, files: Files, tmp_path: Path, wrong: str, called: str, wanted: str
) -> None:
    tg.VaultKey.generate().save(tmp_path / "vault.key")
    path = {
        "unmarked": files.unmarked,
        "key": files.key,
        "public": Path(f"{files.key}.pub"),
        "vault_key": tmp_path / "vault.key",
        "folder": tmp_path,
    }[wrong]
    said = give(path, files.vault, 2) if wanted == "claim" else give(files.claim, path, 2)
    assert f"'{path}' is {called}, expected a {wanted}: give what 'ticketguard embed' wrote as --{wanted}" in said


@pytest.mark.usefixtures("without_passphrase")
def test_one_file_given_twice_is_named_where_it_is_wrong(give: Give, files: Files) -> None:
    assert f"'{files.vault}' is a vault, expected a claim" in give(files.vault, files.vault, 2)
    assert f"'{files.claim}' is a claim, expected a vault" in give(files.claim, files.claim, 2)


def test_what_is_nothing_of_ours_is_told_when_it_is_read(give: Give, files: Files, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise")
    assert "is not JSON" in give(tmp_path / "noise", files.vault, 3)
    assert "is not an age file" in give(files.claim, tmp_path / "noise", 3)
    assert "cannot be read (No such file or directory)" in give(tmp_path / "nothing", files.vault, 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_claim_from_a_pipe_is_read_once(run: Run, files: Files, tmp_path: Path) -> None:
    pipe = tmp_path / "claim"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(files.claim.read_bytes()), daemon=True)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that the writer does not wait
    try:
        writer.start()
        writer.join()
        run("verify", files.marked, "--claim", pipe, "--vault", files.vault)
    finally:
        os.close(reader)


def test_the_library_names_a_vault_that_is_given_as_a_claim(files: Files) -> None:
    with pytest.raises(tg.TicketguardError, match="is a vault, expected a claim: give the claim first, then the vault"):
        tg.load_credential(files.vault, files.claim, PASSPHRASE)


@pytest.mark.parametrize(
    ("command", "read"),
    [
        *(("embed", name) for name in ("FILE", "--owner", "--passphrase-file", "--data", "--test-data")),
        *(("find", name) for name in ("--owner", "--passphrase-file", "--data", "--test-data")),
        *(("find", name) for name in ("--pretrained", "--rewind", "--method-option")),
        *(("inspect", name) for name in ("FILE", "--claim", "--vault", "--vault-key", "--passphrase-file")),
        ("check-ticket", "FILE"),
    ],
)
def test_what_a_command_reads_is_never_what_it_replaces(run: Run, tmp_path: Path, command: str, read: str) -> None:
    kept, other = tmp_path / "kept.png", tmp_path / "other"
    kept.write_bytes(b"cannot be had again")
    file = kept if read == "FILE" else other
    credentials = ("--claim", tmp_path / "claim.json", "--vault", tmp_path / "vault.age")
    line = {
        "embed": ("embed", file, "--owner", other, "--out", kept, *credentials),
        "find": ("find", "--model", "mlp", "--data", "digits", "--owner", other, "--out", kept, *credentials),
        "inspect": ("inspect", file, "--picture", kept, *credentials),
        "check-ticket": ("check-ticket", file, "--out", kept),
    }[command]
    value = f"ticket={kept}" if read == "--method-option" else kept
    given = () if read == "FILE" else (read, value)
    said = run(*line, *given, "--force", code=2).stderr
    assert f"'{kept}' is an input of this command and will not be replaced" in said
    assert kept.read_bytes() == b"cannot be had again"
