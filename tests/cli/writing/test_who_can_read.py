"""Who can read what commands write, and links and folders of somebody else in their way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from ticketguard.cli import runs
from ticketguard.cli.marking import secrecy_note
from ticketguard.ticket import Ticket
from ticketguard.training import loop

from .conftest import FIND, Story, modes, umask


def test_what_an_interrupted_run_keeps_is_for_its_owner_alone(
    run: Run, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, taken = loop._Run._take_step, iter(range(3))

    def interrupted(self: object) -> object:
        if next(taken, None) is None:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(loop._Run, "_take_step", interrupted)
    with umask(0):
        run(*story.embed, code=3)
    assert modes(story.out) == {story.folder.name: 0o700}
    kept = modes(story.folder)
    assert "embed.secret" in kept
    assert set(kept.values()) == {0o600}


@pytest.mark.parametrize("command", ["embed", "find_marked"])
@pytest.mark.parametrize(("mask", "public"), [(0o077, 0o600), (0o002, 0o664)])
def test_outputs_follow_the_umask_and_secrets_do_not(
    run: Run, story: Story, mask: int, public: int, command: str
) -> None:
    with umask(mask):
        run(*getattr(story, command))
    expected = {"marked.safetensors": public, "claim.json": public, "vault.age": 0o600}
    assert modes(story.out) == expected


def test_the_unmarked_ticket_is_as_secret_as_the_vault_and_embed_says_so(run: Run, story: Story) -> None:
    with umask(0):
        run(*FIND, "--out", story.out / "found.safetensors")
    assert modes(story.out) == {"found.safetensors": 0o600}
    said = run(*story.embed).stderr
    assert f"keep '{story.base / 'ticket.safetensors'}' as secret as the vault, or delete it" in said


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, True), (0o604, True)])
def test_an_unmarked_ticket_that_others_can_read_is_told(tmp_path: Path, mode: int, told: bool) -> None:
    ticket = tmp_path / "ticket.safetensors"
    ticket.touch()
    ticket.chmod(mode)
    assert ("other users of this machine can read it now" in secrecy_note(ticket)) == told


def test_who_can_read_what(run: Run, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    delete = runs.delete

    def watching(folder: Path) -> None:
        seen.update({"": stat.S_IMODE(folder.stat().st_mode), **modes(folder)})
        delete(folder)

    monkeypatch.setattr(runs, "delete", watching)
    (story.base / "ticket.safetensors").chmod(0o644)
    with umask(0):
        embedded = run(*story.embed)
        run(*FIND, "--out", story.out / "found.safetensors")
        run("import", story.base / "ticket.safetensors", "--out", story.out / "imported.safetensors")
    note = f"keep '{story.base / 'ticket.safetensors'}' as secret as the vault, or delete it: anyone with the unmarked"
    assert note in embedded.stderr
    assert "other users of this machine can read it now" in embedded.stderr
    assert modes(story.out) == {
        "marked.safetensors": 0o666, "claim.json": 0o666, "vault.age": 0o600,
        "found.safetensors": 0o600, "imported.safetensors": 0o600,
    }  # fmt: skip
    assert seen.pop("") == 0o700
    assert set(seen.values()) == {0o600}
    with umask(0o077):
        run(*story.embed, "--force")
    assert set(modes(story.out).values()) == {0o600}


def test_a_folder_that_somebody_else_made_for_the_run_is_not_used(
    run: Run, story: Story, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for target in (elsewhere, elsewhere / "nowhere"):
        story.folder.symlink_to(target)
        assert "is not a folder of yours" in run(*story.embed, code=2).stderr
        assert not list(elsewhere.iterdir())
        story.folder.unlink()
    story.folder.mkdir(mode=0o777)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert "is not a folder of yours" in run(*story.embed, code=2).stderr
    (story.folder / "embed.secret").write_bytes(bytes(31))
    run(*story.embed, "--resume", code=3)
    assert modes(story.out) == {story.folder.name: 0o700}


def test_an_older_releases_folder_is_closed_to_others(run: Run, story: Story) -> None:
    story.folder.mkdir(mode=0o755)
    (story.folder / "embed.secret").write_bytes(bytes(31))
    failed = run(*story.embed, "--resume", code=3)
    assert "has 31 bytes, expected 32" in failed.stderr
    assert modes(story.out) == {story.folder.name: 0o700}


@pytest.mark.parametrize("where", ["nowhere", "target"])
def test_a_link_is_not_replaced_unless_told_to(run: Run, story: Story, where: str) -> None:
    link, target = story.paths[2], story.out / "target"
    target.write_text("untouched")
    link.symlink_to(story.out / where)
    assert "vault.age' exists: choose another name" in run(*story.embed, code=2).stderr
    assert link.is_symlink()
    run(*story.embed, "--force")
    assert not link.is_symlink()
    assert target.read_text() == "untouched"


def test_what_is_exported_from_an_unmarked_ticket_comes_with_a_warning(run: Run, story: Story) -> None:
    run(*story.embed)
    out = ("--out", story.out / "plain.safetensors", "--force")
    assert "is not marked: anyone who has" in run("export", story.base / "ticket.safetensors", *out).stderr
    assert run("export", story.paths[0], *out).stderr == ""
    assert Ticket.load(story.paths[0]).rewind_weights is None
