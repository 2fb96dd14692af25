from __future__ import annotations

import io
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ticketguard.checkpoints import Checkpoint, zip_archive
from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.checkpoints.zip_archive import MAX_ENTRIES, locate_entries, read_directory
from ticketguard.errors import FileError

END = b"PK\x05\x06"
LINE = b"PK\x01\x02"


def saved(value: float = 1.0, **more: object) -> bytes:
    """A checkpoint as Python's zipfile writes it: no descriptors, no padding, one end record."""
    buffer, stored = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.full((2, 3), value), **more}, buffer)
    with zipfile.ZipFile(buffer) as written, zipfile.ZipFile(stored, "w") as archive:
        for entry in written.infolist():
            archive.writestr(entry.filename, written.read(entry))
    return stored.getvalue()


def parts(content: bytes) -> tuple[bytes, bytes, bytes]:
    """Entries, directory, end record."""
    size, start = struct.unpack_from("<2I", content, len(content) - 10)
    return content[:start], content[start : start + size], content[start + size :]


def end_record(end: bytes, *, size: int, start: int) -> bytes:
    return end[:12] + struct.pack("<2I", size, start) + end[20:]


def moved(directory: bytes, distance: int) -> bytes:
    """Move what a directory's lines point to."""
    content, position = bytearray(directory), 0
    while position < len(content):
        (at,) = struct.unpack_from("<I", content, position + 42)
        struct.pack_into("<I", content, position + 42, at + distance)
        position += 46 + sum(struct.unpack_from("<3H", content, position + 28))
    return bytes(content)


def with_two_directories(for_torch: bytes, for_zipfile: bytes) -> bytes:
    """torch reads the first archive, where the end record points; zipfile the second, before the end record."""
    entries, directory, end = parts(for_torch)
    other_entries, other_directory, _ = parts(for_zipfile)
    record = end_record(end, size=len(directory), start=len(entries))
    # zipfile takes what precedes the place it calculates for something prepended, and adds its length to every offset.
    return entries + directory + other_entries + moved(other_directory, len(entries) - len(other_entries)) + record


def test_two_directories_that_torch_and_zipfile_read_differently_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.pt"
    path.write_bytes(with_two_directories(saved(1.0), saved(2.0)))
    storages = {1.0: torch.load(path, weights_only=True)["w"][0, 0].item()}
    with zipfile.ZipFile(path) as archive:
        storages[2.0] = np.frombuffer(archive.read("archive/data/0"), np.float32)[0]
    assert storages == {1.0: 1.0, 2.0: 2.0}  # so the two readers do differ
    with pytest.raises(FileError, match="its directory does not end at the end record"):
        Checkpoint(path)


class TouchesAFile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return shutil.copyfile, (__file__, str(self.witness))


def test_code_behind_a_second_directory_is_not_run(tmp_path: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "two.pt"
    path.write_bytes(with_two_directories(saved(1.0, x=TouchesAFile(witness)), saved(2.0)))
    # A library that widens torch's list for its own files widens it for every file.
    with torch.serialization.safe_globals([shutil.copyfile]):
        with pytest.raises(FileError, match="its directory does not end at the end record"):
            Checkpoint(path)
        assert not witness.exists()
        torch.load(path, weights_only=True)
        assert witness.exists()  # so the file would have run its code


def swap(old: bytes, new: bytes, count: int = -1) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, count)

    return change


def patched(magic: bytes, offset: int, form: str, value: int | bytes) -> Callable[[bytes], bytes]:
    """Change one number in the first header of a kind."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        struct.pack_into(form, changed, content.index(magic) + offset, value)
        return bytes(changed)

    return change


def both(offset: int, value: int) -> Callable[[bytes], bytes]:
    """Change a number of two bytes in the first header and in its line of the directory."""

    def change(content: bytes) -> bytes:
        return patched(LINE, offset + 2, "<H", value)(patched(b"PK\x03\x04", offset, "<H", value)(content))

    return change


def inserted(where: bytes, what: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        entries, directory, end = parts(content)
        if where == b"":
            return what + content
        if where == LINE:  # between the last entry and the directory
            return entries + what + directory + end_record(end, size=len(directory), start=len(entries) + len(what))
        if where == END:  # behind the directory
            return entries + directory + what + end
        return entries + directory + end[:-2] + struct.pack("<H", len(what)) + what

    return change


def overlapping(content: bytes) -> bytes:
    """The second line of the directory points to the first entry."""
    entries, directory, end = parts(content)
    second = directory.index(LINE, 4)
    return entries + directory[: second + 42] + struct.pack("<I", 0) + directory[second + 46 :] + end


def junk_in_directory(content: bytes) -> bytes:
    """Four bytes more in the directory than its lines have."""
    entries, directory, end = parts(content)
    return entries + directory + b"junk" + end_record(end, size=len(directory) + 4, start=len(entries))


def long_end(
    *, magic: bytes = b"PK\x06\x06", length: int = 44, disks: tuple[int, int] = (0, 0), start: int = 0, **locator: int
) -> Callable[[bytes], bytes]:
    """Put a longer end record before the end record, with what must not be in it."""

    def change(content: bytes) -> bytes:
        entries, directory, end = parts(content)
        count = struct.unpack_from("<H", end, 10)[0]
        numbers = (*disks, count, count, len(directory), len(entries) + start)
        long = struct.pack("<4sQ2H2I4Q", magic, length, 45, 45, *numbers)
        at = len(entries) + len(directory) + locator.get("at", 0)
        place = struct.pack("<4sIQI", b"PK\x06\x07", locator.get("disk", 0), at, locator.get("of", 1))
        return entries + directory + long + place + end

    return change


def test_a_longer_end_record_that_says_the_same_is_read(tmp_path: Path) -> None:
    (tmp_path / "s.pt").write_bytes(long_end()(saved()))
    np.testing.assert_array_equal(Checkpoint(tmp_path / "s.pt").read("w"), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (inserted(b"comment", b"x" * 30), "does not end with its end record"),
        (inserted(b"comment", END + bytes(18)), "its directory does not end at the end record"),
        (inserted(END, b"x"), "does not end at the end record"),
        (inserted(LINE, b"gap"), "its entries end at byte"),
        (lambda content: content + b"x", "does not end with its end record"),
        (lambda content: content[:-1], "does not end with its end record"),
        (lambda content: content[:20], "it is too short"),
        (overlapping, "starts at byte 0, expected"),
        (junk_in_directory, "its directory does not end at the end record"),
        (long_end(start=1), "two end records differ"),
        (long_end(magic=b"PK\x06\x05"), "two end records differ"),
        (long_end(length=45), "two end records differ"),
        (long_end(disks=(1, 0)), "two end records differ"),
        (long_end(disks=(0, 1)), "two end records differ"),
        (long_end(at=-1), "two end records do not follow each other"),
        (long_end(disk=1), "two end records do not follow each other"),
        (long_end(of=2), "two end records do not follow each other"),
        (patched(b"PK\x03\x04", 30, "<B", ord("b")), "header of entry 'archive/data.pkl' differs from the directory"),
        (patched(b"PK\x03\x04", 18, "<I", 1), "differs from the directory"),
        (patched(b"PK\x03\x04", 22, "<I", 0xFFFFFFFF), "cannot be read"),
        (patched(b"PK\x03\x04", 14, "<I", 1), "differs from the directory"),
        (patched(b"PK\x03\x04", 14, "12s", bytes(12)), "differs from the directory"),
        (patched(b"PK\x03\x04", 8, "<H", 8), "differs from the directory"),
        (patched(b"PK\x03\x04", 6, "<H", 8), "differs from the directory"),
        (patched(b"PK\x03\x04", 28, "<H", 1), "starts at byte"),
        (patched(LINE, 42, "<I", 2**31), "expected 0"),
        (patched(LINE, 42, "<I", 0xFFFFFFFF), "line 1 of its directory cannot be read"),
        (patched(LINE, 20, "<I", 2**31), "compressed, encrypted or written in an unusual way"),
        (patched(LINE, 24, "<I", 1), "compressed, encrypted or written in an unusual way"),
        (patched(LINE, 28, "<H", 0xFFFF), "line 1 of its directory cannot be read"),
        (patched(LINE, 34, "<H", 1), "line 1 of its directory cannot be read"),
        (patched(LINE, 46, "<B", 0xFF), "line 1 of its directory cannot be read"),
        (swap(b"archive/version", b"archive/ver\0ion"), "of its directory cannot be read"),
        (both(6, 1), "compressed, encrypted"),
        (both(6, 1 << 13), "compressed, encrypted"),
        (both(8, 8), "has compressed entries"),
        (swap(b"archive/version", b"Archive/version"), "do not lie in one folder"),
        (patched(LINE, 0, "<B", ord("p")), "line 1 of its directory cannot be read"),
        (patched(END, 0, "<B", ord("p")), "does not end with its end record"),
        (patched(END, 4, "<H", 1), "does not end with its end record"),
        (patched(END, 6, "<H", 1), "does not end with its end record"),
        (patched(END, 20, "<H", 1), "does not end with its end record"),
        (patched(END, 8, "<H", 1), "does not end at the end record"),
        (patched(END, 10, "<H", 1), "does not end at the end record"),
        (patched(END, 12, "<I", 2**31), "does not end at the end record"),
        (patched(END, 16, "<I", 0), "does not end at the end record"),
    ],
)
def test_archives_that_can_be_read_two_ways_are_refused(
    change: Callable[[bytes], bytes], reason: str, tmp_path: Path
) -> None:
    content = change(saved())
    (tmp_path / "s.pt").write_bytes(content)
    assert content != saved()
    with pytest.raises(FileError, match=reason):
        Checkpoint(tmp_path / "s.pt")


@pytest.mark.parametrize("twin", ["archive/data/0", "archive/DATA/0"])
def test_a_name_given_twice_is_refused(twin: str, tmp_path: Path) -> None:
    (tmp_path / "s.pt").write_bytes(saved())
    with zipfile.ZipFile(tmp_path / "s.pt", "a") as archive:
        entry = zipfile.ZipInfo("archive/twin/0")
        archive.writestr(entry, bytes(24))
        entry.filename = twin  # the directory is written when the archive is closed
    with pytest.raises(FileError, match="a name occurs twice in its directory"):
        Checkpoint(tmp_path / "s.pt")


def test_a_prepended_archive_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "s.pt").write_bytes(b"#!/bin/sh\n" + saved())
    with pytest.raises(FileError, match="is neither a safetensors nor a torch file"):
        Checkpoint(tmp_path / "s.pt")
    (tmp_path / "s.pt").write_bytes(saved(1.0) + saved(2.0))  # zipfile reads the second of them
    with pytest.raises(FileError, match="its directory does not end at the end record"):
        Checkpoint(tmp_path / "s.pt")


def test_descriptors_behind_entries_must_agree(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 3)}, tmp_path / "s.pt")  # torch writes them, with a magic number
    content = (tmp_path / "s.pt").read_bytes()
    for changed in (
        patched(b"PK\x07\x08", 8, "<I", 1)(content),
        patched(b"PK\x07\x08", 4, "<I", 1)(content),
        patched(b"PK\x07\x08", 0, "<I", 1)(content),
    ):
        (tmp_path / "s.pt").write_bytes(changed)
        with pytest.raises(FileError, match="the lengths behind entry 'archive/data.pkl' differ|'s/data.pkl' differ"):
            Checkpoint(tmp_path / "s.pt")


def test_a_nested_archive_stays_closed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "outer.pt", "w") as archive:
        archive.writestr("archive/inner.pt", saved())
    with pytest.raises(FileError, match="is a zip file with 0 entries 'data.pkl', expected one"):
        Checkpoint(tmp_path / "outer.pt")


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *arguments: object) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def streamed(*, long: bool, extra: bytes = b"", comment: bytes = b"") -> bytes:
    stream = Unseekable()
    with zipfile.ZipFile(io.BytesIO(saved())) as honest, zipfile.ZipFile(stream, "w") as archive:
        for old in honest.infolist():
            entry = zipfile.ZipInfo(old.filename)
            entry.extra, entry.comment = extra, comment
            with archive.open(entry, "w", force_zip64=long) as target:
                target.write(honest.read(old))
    return stream.getvalue()


OTHER_EXTRA = struct.pack("<2H5s", 0x4246, 5, b"other")


@pytest.mark.parametrize("comment", [b"", b"said of an entry"])
@pytest.mark.parametrize("extra", [b"", OTHER_EXTRA])
@pytest.mark.parametrize("long", [False, True])
def test_what_zipfile_writes_is_read_streams_and_long_numbers_too(
    long: bool, extra: bytes, comment: bytes, tmp_path: Path
) -> None:
    (tmp_path / "s.pt").write_bytes(streamed(long=long, extra=extra, comment=comment))
    np.testing.assert_array_equal(Checkpoint(tmp_path / "s.pt").read("w"), np.ones((2, 3)))


def test_long_numbers_beyond_their_field_are_not_read(tmp_path: Path) -> None:
    long, short = struct.pack("<2H", 1, 16), struct.pack("<2H", 1, 8)
    (tmp_path / "s.pt").write_bytes(swap(long, short, 1)(streamed(long=True)))
    with pytest.raises(FileError, match="the header of entry 'archive/data.pkl' cannot be read"):
        Checkpoint(tmp_path / "s.pt")


def test_offsets_beyond_4_gb_are_read(tmp_path: Path) -> None:
    with torch.serialization.skip_data():  # leaves holes in the file, which take no room on the disk
        torch.save({"a": torch.empty(2**30 + 7, 1), "b": torch.empty(3, 4)}, tmp_path / "s.pt")
    if (tmp_path / "s.pt").stat().st_blocks > 2**20:
        pytest.skip("this file system stores holes")
    suspect = Checkpoint(tmp_path / "s.pt")
    assert suspect.shape("a") == (2**30 + 7, 1)
    np.testing.assert_array_equal(suspect.read("b"), np.zeros((3, 4)))


def test_a_directory_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for index in range(3):
            archive.writestr(f"archive/{index}", b"")
    file = SteadyFile(tmp_path / "s.zip")
    directory = read_directory(file)
    assert list(locate_entries(file, directory).values()) == [39, 78, 117]
    entries, lines, end = parts((tmp_path / "s.zip").read_bytes())
    count = MAX_ENTRIES + 1
    long = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(lines), len(entries))
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(entries) + len(lines), 1)
    many = end[:8] + b"\xff\xff\xff\xff" + end[12:]
    (tmp_path / "s.zip").write_bytes(entries + lines + long + locator + many)
    with pytest.raises(FileError, match=f"its directory has {count} entries"):
        Checkpoint(tmp_path / "s.zip")


def test_a_directory_is_read_up_to_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.pt").write_bytes(saved())
    _, directory, _ = parts(saved())
    for limit, size in (("MAX_ENTRIES", directory.count(LINE)), ("MAX_DIRECTORY_BYTES", len(directory))):
        monkeypatch.setattr(zip_archive, limit, size)
        Checkpoint(tmp_path / "s.pt")
        monkeypatch.setattr(zip_archive, limit, size - 1)
        with pytest.raises(FileError, match="its directory has"):
            Checkpoint(tmp_path / "s.pt")
        monkeypatch.undo()


def test_an_entry_that_is_called_compressed_is_not_located(tmp_path: Path) -> None:
    (tmp_path / "s.zip").write_bytes(both(8, 12)(saved()))
    file = SteadyFile(tmp_path / "s.zip")
    with pytest.raises(FileError, match="'archive/data.pkl' is compressed, encrypted or written in an unusual way"):
        locate_entries(file, read_directory(file))
