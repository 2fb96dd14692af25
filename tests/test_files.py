from __future__ import annotations

import os
import stat
import threading
import tracemalloc
from pathlib import Path

import pytest

from ticketguard.errors import FileError
from ticketguard.files import read_whole, require_writable, write_whole


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
    with pytest.raises(FileError, match="is a pipe that nobody writes to: start its writer first"):
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
