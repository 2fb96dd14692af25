"""Full disks, kills and two runs at once: no secret, training or file of anybody's is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.shared.faults import Counter, FullDisk, watched
from tests.cli.conftest import Run
from ticketguard import work_folder
from ticketguard.cli import main, runs
from ticketguard.credentials.credential import load_credential
from ticketguard.training import loop

from .conftest import FIND, Story, modes


def test_a_disk_that_is_full_at_any_write_costs_nothing(run: Run, story: Story) -> None:
    """Each write of embed fails in turn, and those after it; then there is room again."""
    counter = FullDisk()
    with watched(counter):
        run(*story.embed)
    writes, untouched, older = counter.count, 0, [path.read_bytes() for path in story.paths]
    for at in range(1, writes, 5):
        with watched(FullDisk(at)):
            failed = run(*story.embed, "--force", code=3)
        assert "No space left on device" in failed.stderr
        # Until all of the new files are on disk the older ones stay; then they go in this order.
        replaced = [path.read_bytes() != before for path, before in zip(story.paths, older, strict=True)]
        marked, claim, vault = replaced
        assert (vault, claim, marked) in [(False,) * 3, (True, False, False), (True, True, False), (True,) * 3]
        untouched += not any(replaced)
        kept = story.folder / "embed.secret"
        secret = kept.read_bytes() if kept.exists() else None
        run(*story.embed, "--force", *(["--resume"] if secret else []))
        assert secret in (None, story.secret())
        assert sorted(modes(story.out)) == sorted(path.name for path in story.paths)
        older = [path.read_bytes() for path in story.paths]
    assert writes > 20
    assert untouched >= 4


class Ending(BaseException):
    """Nothing that a process does after its end reaches the disk."""


class End(Counter):
    """From a moment on, no call changes what is on disk: all that is seen of a kill, in this process."""

    def __call__(self, name: str, done: bool) -> None:
        super().__call__(name, done)
        if 0 <= self.at < self.count:
            raise Ending


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the steps of all trainings."""
    taken: list[int] = []
    step = loop._Run._take_step
    monkeypatch.setattr(loop._Run, "_take_step", lambda self: (taken.append(1), step(self)))
    return taken


@pytest.mark.parametrize("command", ["embed", "find_marked"])
def test_a_full_disk_at_the_last_writes_costs_neither_training_nor_secret(
    run: Run, story: Story, steps: list[int], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    secrets: list[bytes] = []
    made = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: (secrets.append(made(size)), secrets[-1])[1])
    line: list[str] = getattr(story, command)
    counter = FullDisk()
    with watched(counter):
        run(*line)
    for back in range(1, 4):
        for path in story.paths:
            path.unlink()
        secrets.clear()
        with watched(FullDisk(counter.count - back)):
            run(*line, code=3)
        drawn, trained = list(secrets), len(steps)
        run(*line, "--resume", "--force")
        assert len(steps) == trained
        assert story.secret() in drawn


@pytest.mark.parametrize("command", ["embed", "find_marked"])
def test_a_run_that_is_killed_while_it_ends_goes_on_and_leaves_its_outputs_alone(
    run: Run, story: Story, steps: list[int], command: str
) -> None:
    """After a file got its name, and after each removal but the last, which leaves an empty folder."""
    line: list[str] = getattr(story, command)
    counter = End()
    with watched(counter):
        run(*line)
    moments = [at for at, name in enumerate(counter.names) if name in ("after unlink", "after link", "after replace")]
    for at in moments[-7:-1]:
        for path in story.paths:
            path.unlink()
        with watched(End(at)), contextlib.suppress(Ending, SystemExit):
            main(line, standalone_mode=False)
        trained = len(steps)
        run(*line, "--resume", "--force")
        assert len(steps) == trained
        assert all(path.exists() for path in story.paths)
        assert not list(story.out.glob("*-run"))


@pytest.mark.parametrize("arguments", [("--name", "Ada", "--no-passphrase"), ("--vault-key",)])
def test_what_a_killed_process_left_half_written_is_gone_after_the_next(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """It is killed, truly, when its first file is to get its name."""
    program = (
        "import os, sys; os.link = os.replace = os.rename = lambda *_, **__: os.kill(os.getpid(), 9); "
        "from ticketguard.cli import main; main(sys.argv[1:])"
    )
    command = ["keygen", *arguments, "--out", str(tmp_path / "key")]
    assert subprocess.run([sys.executable, "-c", program, *command], check=False).returncode == -9
    assert len(modes(tmp_path)) >= 1
    run(*command)
    assert set(modes(tmp_path)) <= {"key", "key.pub"}


def test_a_training_is_not_taken_again_after_a_full_disk(
    run: Run, story: Story, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        failed = run(*story.embed, code=3)
    assert "nothing is lost: continue with --resume" in failed.stderr
    assert modes(story.out) == {"marked.safetensors.embed-run": 0o700}
    secret, created = (story.folder / name for name in ("embed.secret", "embed.created"))
    kept, moment = secret.read_bytes(), created.read_text()
    trained = len(steps)
    run(*story.embed, "--resume", "--force")
    assert len(steps) == trained
    assert story.secret() == kept
    claimed = load_credential(story.paths[1], story.paths[2], vault_key=story.key).claim.created
    assert claimed.removesuffix("Z") == moment[:19]


def test_a_run_that_is_killed_at_its_very_end_has_ended(
    run: Run, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "delete", killed)
        first = run(*story.embed, "--json", code=3)
    written = [path.read_bytes() for path in story.paths]
    (story.folder / "embed.secret").unlink()  # as if the deletion had begun
    second = run(*story.embed, "--json", "--resume")
    assert json.loads(second.stdout) == json.loads(first.stdout)
    assert [path.read_bytes() for path in story.paths] == written
    assert not story.folder.exists()


def test_outputs_that_a_run_did_not_write_are_not_its_own(run: Run, story: Story) -> None:
    """They appear while it is interrupted: --resume alone does not replace them."""
    story.folder.mkdir()
    (story.folder / "embed.secret").write_bytes(bytes(range(32)))
    story.paths[1].write_text("somebody's")
    assert "claim.json' exists: choose another name" in run(*story.embed, "--resume", code=2).stderr
    assert story.paths[1].read_text() == "somebody's"
    run(*story.embed, "--resume", "--force")
    assert story.secret() == bytes(range(32))


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_run_that_is_killed_after_it_has_emptied_its_folder_has_finished(
    run: Run, story: Story, steps: list[int], force: tuple[str, ...]
) -> None:
    run(*story.embed)
    story.folder.mkdir()
    written, trained = [path.read_bytes() for path in story.paths], len(steps)
    said = run(*story.embed, "--resume", *force, code=2).stderr
    assert f"'{story.folder}' is empty: the run has finished and wrote '{story.paths[0]}', " in said
    assert [path.read_bytes() for path in story.paths] == written
    story.paths[1].unlink()
    assert "is empty: there is no run to resume" in run(*story.embed, "--resume", *force, code=2).stderr
    story.folder.rmdir()
    assert "does not exist: there is no run to resume" in run(*story.embed, "--resume", *force, code=2).stderr
    assert len(steps) == trained


def test_what_is_written_meanwhile_by_another_is_not_replaced(
    run: Run, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = runs.Run.finish

    def late(self: runs.Run, *arguments: object, **named: object) -> object:
        story.paths[1].write_text("another run's")
        return finish(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "finish", late)
        failed = run(*story.embed, code=2)
    assert "claim.json': exists already" in failed.stderr
    assert "nothing is lost: continue with --resume" in failed.stderr
    assert story.paths[1].read_text() == "another run's"
    assert not story.paths[2].exists()
    secret = (story.folder / "embed.secret").read_bytes()
    story.paths[1].unlink()
    run(*story.embed, "--resume")
    assert story.secret() == secret


def test_a_run_started_anew_leaves_nothing_that_a_resumed_one_would_stumble_over(
    run: Run, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "finish", interrupted)
        run(*story.embed, code=3)
    old = (story.folder / "embed.secret").read_bytes()
    assert "continue with --resume, or start again with --force" in run(*story.embed, code=2).stderr
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_take_step", interrupted)
        run(*story.embed, "--force", code=3)
    new = (story.folder / "embed.secret").read_bytes()
    assert new != old
    run(*story.embed, "--resume")
    assert story.secret() == new


def test_two_runs_do_not_share_a_folder(run: Run, story: Story) -> None:
    with work_folder.hold(story.folder):
        (story.folder / "embed.secret").write_bytes(bytes(32))
        for more in (["--force"], ["--resume"], ["--resume", "--force"]):
            assert "another run is using" in run(*story.embed, *more, code=2).stderr
        assert (story.folder / "embed.secret").read_bytes() == bytes(32)
    run(*story.embed, "--resume")
    assert story.secret() == bytes(32)


def test_a_wrong_option_leaves_no_run_to_resume(run: Run, story: Story) -> None:
    out = story.out / "found.safetensors"
    wrong = run("find", "--model", "mlp", "--data", "digits", "--out", out, code=2)
    assert "needs a density" in wrong.stderr
    assert list(story.out.iterdir()) == []
    run(*FIND, "--out", out)


def test_a_folder_with_nothing_but_a_lock_holds_no_run(run: Run, story: Story) -> None:
    story.folder.mkdir()
    (story.folder / "run.lock").touch()
    run(*story.embed)


def test_a_run_that_was_killed_before_it_kept_anything_is_resumed(run: Run, story: Story) -> None:
    run(*story.embed)
    story.folder.mkdir()
    (story.folder / "run.lock").touch()
    run(*story.embed, "--force", "--resume")
    assert not story.folder.exists()


def test_names_as_long_as_the_system_allows_can_be_written(run: Run, story: Story) -> None:
    story.paths = [story.out / (letter * 255) for letter in "mcv"]
    run(*story.embed)
    assert sorted(modes(story.out)) == ["c" * 255, "m" * 255, "v" * 255]


def test_a_file_that_cannot_grow_is_refused_before_training(story: Story) -> None:
    """A real limit, in a process of its own: the ticket is larger than what one file may have."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); import ticketguard.__main__"
    )
    command = [sys.executable, "-c", program, *story.embed]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 3, refused.stderr
    assert "(File too large): raise the limit on a file's size (ulimit -f) above" in refused.stderr
    assert "training" not in refused.stderr
    assert list(story.out.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--name", "Ada", "--no-passphrase"), ("--vault-key",)])
def test_a_key_is_whole_or_not_there(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    counter = FullDisk()
    keygen: Callable[..., object] = lambda name, code=0: run("keygen", *arguments, "--out", tmp_path / name, code=code)  # noqa: E731
    with watched(counter):
        keygen("whole")
    files = len(list(tmp_path.iterdir()))
    for at in range(counter.count):
        with watched(FullDisk(at)):
            keygen(f"key-{at}", code=3)
        assert len(list(tmp_path.iterdir())) == files
    keygen(f"key-{at}")
    assert len(list(tmp_path.iterdir())) == 2 * files
