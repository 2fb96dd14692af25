"""A file is written under a temporary name: what a killed writer left of one goes, a living writer's is left alone."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ticketguard import staging
from ticketguard.files import SECRET, require_writable, write_whole
from ticketguard.staging import temporary_name


def test_a_secret_is_nobody_elses_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    write = os.write

    def watching(descriptor: int, content: memoryview) -> int:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", watching)
    before = os.umask(0)
    try:
        write_whole(tmp_path / "secret", b"content", mode=SECRET)
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_what_a_killed_writer_left_is_gone_after_the_next(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from ticketguard.files import write_whole; "
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL); write_whole(sys.argv[1], b'half', mode=0o600)"
    )
    target = tmp_path / ("v" * 255)
    for again in (lambda: write_whole(target, b"whole"), lambda: require_writable(target)):
        killed = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
        assert killed.returncode == -signal.SIGKILL
        (left,) = set(tmp_path.iterdir()) - {target}
        assert stat.S_IMODE(left.stat().st_mode) == 0o600
        again()
        assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"whole"


def test_what_a_living_writer_writes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, inner = os.fsync, []

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        if not inner:
            inner.append(True)
            write_whole(tmp_path / "file", b"the other's")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_whole(tmp_path / "file", b"mine, later")
    assert (tmp_path / "file").read_bytes() == b"mine, later"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_name_that_somebody_took_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    temporary_name(tmp_path / "file").symlink_to(victim)
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert victim.read_bytes() == b"untouched"


def test_what_was_never_a_writers_file_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        assert not staging.forget_dead_writer(tmp_path / name)
    (tmp_path / "theirs").write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not staging.forget_dead_writer(tmp_path / "theirs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe", "theirs"]
    assert staging.forget_dead_writer(tmp_path / "theirs")
    assert staging.forget_dead_writer(tmp_path / "theirs")  # its name is free
    assert not (tmp_path / "theirs").exists()


def test_a_writers_file_that_cannot_be_opened_is_gone_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, whole = temporary_name(tmp_path / "file"), os.open
    left.write_bytes(b"unreadable")

    def refuse(path: Path, flags: int, *rest: int, **named: int) -> int:
        if path == left and not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    assert not staging.forget_dead_writer(left)
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert left.read_bytes() == b"unreadable"


def test_a_file_that_was_taken_for_a_dead_writers_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []

    def late(descriptor: int) -> bool:
        if not taken:  # another writer was faster, between the file's creation and its lock
            taken.append(True)
            staging.temporary_name(tmp_path / "a").unlink()
        return True

    monkeypatch.setattr(staging, "lock", late)
    temporary, descriptor = staging.open_temporary(tmp_path / "a", 0o600)
    assert staging.is_there(temporary, descriptor)
    os.close(descriptor)


def test_a_name_that_a_living_writer_took_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tmp_path / "name"
    name.write_bytes(b"a dead writer's")

    def taken(descriptor: int) -> bool:
        name.unlink()
        name.write_bytes(b"a living writer's")
        return True

    monkeypatch.setattr(staging, "lock", taken)
    staging.forget_dead_writer(name)
    assert name.read_bytes() == b"a living writer's"
