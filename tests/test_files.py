from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from ticketguard.errors import FileError
from ticketguard.files import (
    SECRET,
    Output,
    read_whole,
    reading,
    require_room,
    require_writable,
    write_together,
    write_whole,
)  # fmt: skip


def test_what_is_written_is_read_back_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "secret"
    write_whole(path, b"content", mode=0o600)
    assert read_whole(path, limit_bytes=7) == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def interrupted(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="cannot be written .No space left on device.: free some space"):
        write_whole(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="choose a folder you can write to"):
        write_whole(tmp_path / "file" / "inside", b"")


def test_reading_is_limited_even_where_a_size_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(FileError, match="has more than 10 bytes"):
        read_whole(tmp_path / "large", limit_bytes=10)
    with pytest.raises(FileError, match="has more than 10 bytes"):
        read_whole("/dev/zero", limit_bytes=10)
    with pytest.raises(FileError, match="cannot be read"):
        read_whole(tmp_path / "missing", limit_bytes=10)


def test_of_a_device_only_what_is_small_is_read() -> None:
    with pytest.raises(FileError, match=r"'/dev/zero': cannot be read \(a device, expected a file\)"):
        read_whole("/dev/zero", limit_bytes=2**21)
    assert read_whole("/dev/null", limit_bytes=2**12) == b""


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**12)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=f"has more than {2**28} bytes"):
            read_whole(tmp_path / "sparse", limit_bytes=2**28)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_memory_is_taken_for_what_is_there_and_not_for_the_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"content")
    tracemalloc.start()
    try:
        assert read_whole(tmp_path / "small", limit_bytes=4 * 1024**3) == b"content"
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_pipe_is_read_to_its_end_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="is a pipe that nothing writes to: start its writer first"):
        read_whole(tmp_path / "pipe", limit_bytes=10)
    reader, writer = os.pipe()
    content = bytes(range(256)) * 9000
    thread = threading.Thread(target=lambda: (os.write(writer, content), os.close(writer)))
    thread.start()
    assert read_whole(f"/dev/fd/{reader}", limit_bytes=len(content)) == content
    thread.join()
    os.close(reader)


def test_a_folder_or_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "folder"), (tmp_path / "pipe", "device or pipe")):
        for check in (require_writable, lambda path: write_whole(path, b"")):
            with pytest.raises(FileError, match=f"is a {kind}, expected a file to write: choose another name"):
                check(path)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_whether_a_file_could_be_written_is_told_beforehand(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "folder" / "file")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(FileError, match="cannot be written"):
        require_writable(tmp_path / "file" / "below")


def test_the_umask_decides_who_reads_public_files_and_nobody_reads_secrets(tmp_path: Path) -> None:
    for mask, public in ((0o022, 0o644), (0o077, 0o600), (0o000, 0o666), (0o027, 0o640)):
        before = os.umask(mask)
        try:
            write_whole(tmp_path / "public", b"")
            write_whole(tmp_path / "secret", b"", mode=SECRET)
        finally:
            os.umask(before)
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("public", "secret")]
        assert modes == [public, 0o600]


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target, soft, hard = tmp_path / "target", tmp_path / "soft", tmp_path / "hard"
    target.write_bytes(b"untouched")
    soft.symlink_to(target)
    hard.hardlink_to(target)
    for link in (soft, hard):
        write_whole(link, b"new")
        assert not link.is_symlink()
        assert link.read_bytes() == b"new"
    assert target.read_bytes() == b"untouched"


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_files_that_belong_together_are_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The second file's write fails: of the first nothing is seen, and an older pair stays."""
    old, new = tmp_path / "old", tmp_path / "new"
    for name in ("vault", "claim"):
        write_whole(old / name, b"older")
    calls = []
    original = getattr(os, failing)

    def full(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments)

    monkeypatch.setattr(os, failing, full)
    for folder in (old, new):
        folder.mkdir(exist_ok=True)
        calls.clear()
        with pytest.raises(FileError, match="No space left on device"):
            write_together([Output(path=folder / name, content=b"newer") for name in ("vault", "claim")])
    if failing != "replace":  # after a rename there is no way back
        assert {path.read_bytes() for path in old.iterdir()} == {b"older"}
    assert list(new.iterdir()) == []
    assert sorted(path.name for path in old.iterdir()) == ["claim", "vault"]


def test_what_must_not_be_replaced_is_not_even_if_it_appears_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(path=tmp_path / "key", content=b"new", replace=False)
    link = os.link

    def late(*arguments: Path) -> None:
        output.path.write_bytes(b"somebody's")
        link(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", late)
        with pytest.raises(FileError, match="'.*key': exists already: choose another name"):
            write_together([output])
    with pytest.raises(FileError, match="exists already"):
        write_together([output])
    assert output.path.read_bytes() == b"somebody's"
    assert list(tmp_path.iterdir()) == [output.path]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_without_hard_links_too_what_must_not_be_replaced_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    first, second = (Output(path=tmp_path / name, content=b"new", replace=False) for name in ("first", "second"))

    def no_links(*_: Path) -> None:
        second.path.write_bytes(b"somebody's")
        raise OSError(code, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    write_together([first])
    assert first.path.read_bytes() == b"new"
    second.path.unlink()
    with pytest.raises(FileError, match="'.*second': exists already"):
        write_together([second])
    assert second.path.read_bytes() == b"somebody's"


def test_a_failing_disk_is_not_taken_for_one_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", failing)
    with pytest.raises(FileError, match=r"cannot be written \(Input/output error\)"):
        write_together([Output(path=tmp_path / "key", content=b"new", replace=False)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    write_whole(tmp_path / "new" / "file", b"content")
    with pytest.raises(FileError, match="exists already"):
        write_together([Output(path=tmp_path / "new" / "file", content=b"", replace=False)])
    require_room({tmp_path / "file": 1000})
    with pytest.raises(FileError, match="a device, expected a file"):
        read_whole("/dev/zero", limit_bytes=2**21)
    assert count() == before


def test_a_file_larger_than_memory_is_an_error() -> None:
    with pytest.raises(FileError, match="'x': is larger than the available memory"), reading("x"):
        raise MemoryError


def test_names_are_on_disk_when_a_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync

    def watching(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watching)
    write_whole(tmp_path / "new" / "file", b"content")
    folders = (tmp_path, tmp_path / "new" / "file", tmp_path / "new")
    assert synced == [path.stat().st_ino for path in folders]


def test_too_little_room_is_told_before_the_work_starts(tmp_path: Path) -> None:
    require_room({tmp_path / "one": 1000, tmp_path / "two": 1000})
    with pytest.raises(FileError, match=r"No space left on device.*free some space .\d+ bytes are needed"):
        require_room({tmp_path / "one": 2**43})
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_file_sizes_is_told_before_the_work_starts(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from ticketguard.files import require_room; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); require_room({Path(sys.argv[1]): 900}); "
        "require_room({Path(sys.argv[1]): 2000})"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "x")], capture_output=True, text=True)
    assert "cannot be written (File too large): raise the limit on a file's size (ulimit -f) above 2000" in done.stderr


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    for check in (require_writable, lambda path: write_whole(path, b"")):
        with pytest.raises(FileError, match="File name too long.: choose a shorter name"):
            check(tmp_path / ("n" * 256))


def test_a_link_to_nowhere_is_replaced_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    write_whole(tmp_path / "link", b"new")
    assert not (tmp_path / "link").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_file_in_the_way_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").write_bytes(b"old")
    written: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda descriptor, content: written.append(bytes(content)) or len(content))
    with pytest.raises(FileError, match="exists already"):
        write_together([Output(path=tmp_path / name, content=b"new", replace=False) for name in "ab"])
    assert written == []


def test_only_its_owner_replaces_a_file_in_a_folder_that_many_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    owner = target.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    write_whole(target, b"not shared")
    tmp_path.chmod(0o1777)
    with pytest.raises(FileError, match="belongs to somebody else"):
        write_whole(target, b"shared")
    assert target.read_bytes() == b"not shared"
    for user in (owner, 0):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        write_whole(target, b"his own")
