from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import sys
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from images import png, write_folder, write_tar

from ticketguard.data import archives, load_data
from ticketguard.data.archives import archive_files
from ticketguard.errors import FileError

FILES = {f"{kind}/{number}.png": png(value + number) for kind, value in (("cat", 1), ("dog", 9)) for number in range(3)}


def header(name: str, size: int | bytes, kind: bytes = b"0", magic: bytes = b"ustar\x0000", **fields: bytes) -> bytes:
    """Write one header block; *fields* put bytes at a place, as in ``at_482=b"\\1"``."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[156:157] = kind
    block[257 : 257 + len(magic)] = magic
    for place, content in fields.items():
        at = int(place.removeprefix("at_"))
        block[at : at + len(content)] = content
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * 32)
    return bytes(block)


def member(name: str, content: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


END = bytes(1024)
TAIL = b"".join(member(name, content) for name, content in FILES.items()) + END


def names(path: Path) -> list[str]:
    return [name for name, _ in archive_files(path, lambda name: name.endswith(".png"), limit_bytes=10**6)]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_every_layout_and_compression_is_read(tmp_path: Path, layout: int, pack: Callable[[bytes], bytes]) -> None:
    long = f"{'d' * 90}/{'e' * 60}.png" if layout == tarfile.USTAR_FORMAT else f"{'d' * 200}/{'é' * 100}.png"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=layout) as archive:
        for name in ("a/1.png", long, "a/2.txt", "b/3.png"):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = 700, 1.5  # type: ignore[assignment]
            entry.pax_headers = {"comment": "x" * 2000}
            archive.addfile(entry, io.BytesIO(name[:1].encode() * 700))
    path = write(tmp_path / "x.tar", pack(stream.getvalue()))
    found = dict(archive_files(path, lambda name: name.endswith(".png"), limit_bytes=700))
    assert found == {"a/1.png": b"a" * 700, long: b"d" * 700, "b/3.png": b"b" * 700}


def test_compressed_streams_may_follow_each_other(tmp_path: Path) -> None:
    halves = TAIL[:1000], TAIL[1000:]
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        padding = bytes(8) if pack is lzma.compress else b""
        assert names(write(tmp_path / "x", pack(halves[0]) + padding + pack(halves[1]) + padding)) == list(FILES)


def test_global_headers_and_long_links_are_passed_over(tmp_path: Path) -> None:
    record = b"26 path=cat/long-name.png\n"
    between = member("x", record, b"x") + member("g", b"19 comment=whatever\n", b"g") + member("k", b"far", b"K")
    link = header("cat/link.png", 99, b"2", at_157=b"/etc/passwd")
    path = write(tmp_path / "x.tar", link + between + member("cat/n", b"pixels") + TAIL)
    assert names(path) == ["cat/long-name.png", *FILES]


@pytest.mark.parametrize("kind", [b"x", b"X", b"L"])
def test_an_extended_header_of_gigabytes_is_refused_before_it_is_unpacked(tmp_path: Path, kind: bytes) -> None:
    """The header alone says 6 GB; a few megabytes follow, which would all be held."""
    bomb = header("././@PaxHeader", 6 * 10**9, kind) + bytes(8 * 2**20)
    path = write(tmp_path / "x.tar.gz", gzip.compress(bomb, 9))
    tracemalloc.start()
    with pytest.raises(FileError, match=r"x\.tar\.gz': has an extended header of 6000000000 bytes, expected at most"):
        load_data(str(path), options={})
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


@pytest.mark.parametrize(
    "start", [*(header("notes", 6 * 10**9, kind) for kind in (b"g", b"K", b"0", b"V")), END], ids=[*"gK0V", "end"]
)
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_unpacks_out_of_proportion_is_refused(
    tmp_path: Path, start: bytes, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "UNPACKED_FREE_BYTES", 2**20)
    monkeypatch.setattr(archives, "UNPACKED_RATIO", 10)
    path = write(tmp_path / "x.tar", pack(start + bytes(2**22)))
    with pytest.raises(FileError, match=r"unpacks to \d+ bytes and more from \d+: unpack it by hand if you trust it"):
        names(path)


@pytest.mark.parametrize(
    "ten",
    [
        header("notes/x.txt", 0) * 10,
        header("notes/", 0, b"5") * 10,
        member("g", b"19 comment=whatever\n", b"g") * 10,
        member("x", b"4 =\n" * 9, b"x"),
        member("x", b"9 path=a\n" * 4, b"x") * 2,
    ],
)
def test_more_headers_than_an_archive_of_images_has_are_refused(
    tmp_path: Path, ten: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_ENTRIES", 10)
    monkeypatch.setattr(archives, "ENTRY_BYTES", 2**20)
    assert names(write(tmp_path / "x.tar.gz", gzip.compress(ten + END))) == []
    with pytest.raises(FileError, match=r"x\.tar\.gz': has 11 headers and more in \d+ bytes: unpack it by hand"):
        names(write(tmp_path / "x.tar.gz", gzip.compress(ten + header("x", 0) + END)))


def test_headers_that_are_not_compressed_are_never_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_ENTRIES", 0)
    monkeypatch.setattr(archives, "ENTRY_BYTES", 512)
    assert names(write(tmp_path / "x.tar", header("notes/x.txt", 0) * 1000 + TAIL)) == list(FILES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("cat/0.png", b"\xff" * 12) + TAIL, "a header holds a negative number"),
        (header("cat/0.png", b"-0000000001\0") + TAIL, "a header does not hold an octal number"),
        (header("cat/0.png", b"00000000009\0") + TAIL, "invalid literal"),
        (header("cat/0.png", b"\x80" + b"\1" * 11) + TAIL, r"has \d+ bytes, expected at most 1000000"),
        (header("notes", b"\x80" + b"\1" * 11) + TAIL, r"ends after \d+ bytes"),
        (b"x" * 512 + TAIL, "a header does not hold an octal number"),
        (TAIL.replace(b"cat/1", b"cat/7"), r"no header at byte \d+"),
        (TAIL[:-1024], r"ends after \d+ bytes"),
        (member("x", b"9999 path=a\n", b"x") + TAIL, "an extended header is damaged"),
        (member("x", b"0 path=a\n", b"x") + TAIL, "an extended header is damaged"),
        (member("x", b"-9 path=a\n", b"x") + TAIL, "an extended header does not hold a size"),
        (member("x", b"12 size=-99\n", b"x") + TAIL, "an extended header does not hold a size"),
        (member("x", b"7 path\n", b"x") + TAIL, "an extended header is damaged"),
        # A second record without a blank: no length says where it ends.
        (member("x", b"9 path=a\n" + b"x" * 40, b"x") + TAIL, "an extended header is damaged"),
        (member("x", b"22 GNU.sparse.major=1\n", b"x") + TAIL, "holds a sparse file, expected plain ones"),
        (header("cat/0.png", 512, b"S", at_482=b"\1") + b"\1" * 2048, "holds a sparse file, expected plain ones"),
        (member("L", b"cat/" + b"n" * 5000 + b".png", b"L") + TAIL, "holds a name of 5008 characters"),
        (member("L", b"n" * 4097, b"L") + TAIL, "holds a name of 4097 characters"),
        (b"PK\3\4" + bytes(600), "a zip archive, which must be unpacked first"),
        (gzip.compress(gzip.compress(TAIL)), "ends after|no header at byte 0"),
        (gzip.compress(TAIL)[:-6] + bytes(6), "CRC check failed"),
        (bz2.compress(TAIL)[:-9], "ended before|ends after"),
        (lzma.compress(TAIL)[:-9], "ends early|ends after"),
        (gzip.compress(TAIL) + b"garbage", "Not a gzipped file"),
    ],
)
def test_a_damaged_archive_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(FileError, match=message):
        names(write(tmp_path / "x.tar", content))


def test_an_xz_file_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(TAIL, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**16}]))
    # The block header's dictionary size, and its checksum, are forged: a true encoder would take gigabytes itself.
    at = packed.index(b"\x21\x01", 12)
    packed[at + 2] = 40
    size = (packed[12] + 1) * 4
    packed[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(packed[12 : 12 + size - 4]))
    with pytest.raises(FileError, match="Memory usage limit"):
        names(write(tmp_path / "x.tar.xz", bytes(packed)))


def test_an_archive_inside_an_archive_is_no_image(tmp_path: Path) -> None:
    inner = write_tar(tmp_path / "inner.tar", FILES).read_bytes()
    assert names(write_tar(tmp_path / "x.tar", {"cat/inner.tar": inner, "cat/0.png": png(1)})) == ["cat/0.png"]


def test_an_archive_that_never_ends_or_never_starts_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "zero.tar").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.tar")
    for name, reason in (("zero.tar", "a device, expected a file"), ("pipe.tar", "ends after 0 bytes")):
        with pytest.raises(FileError, match=f"{name}': is neither a folder nor a whole tar archive .*{reason}"):
            load_data(str(tmp_path / name), options={})


def test_pipes_devices_and_loops_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", FILES)
    os.mkfifo(folder / "cat" / "pipe.png")
    (folder / "cat" / "zero.png").symlink_to("/dev/zero")
    (folder / "cat" / "loop.png").symlink_to("loop.png")
    (folder / "cat" / "gone.png").symlink_to("nowhere")
    (folder / "cat" / "again").symlink_to(folder)
    (folder / "cat" / "folder.png").mkdir()
    (folder / "cat" / "link.png").symlink_to(folder / "dog" / "0.png")
    data = load_data(str(folder), options={})
    assert len(data.train_labels) + len(data.test_labels) == len(FILES) + 1


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel states a size of zero for this file, and makes it up while it is read.
    folder = write_folder(tmp_path / "pets", FILES)
    (folder / "cat" / "grows.png").symlink_to("/proc/self/maps")
    monkeypatch.setattr(sys.modules["ticketguard.data.image_folder"], "IMAGE_LIMIT_BYTES", 1000)
    with pytest.raises(FileError, match=r"grows\.png': has more than 1000 bytes"):
        load_data(str(folder), options={})


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for the superuser")
def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", FILES)
    (folder / "cat").chmod(0)
    with pytest.raises(FileError, match="cat': cannot be read"):
        load_data(str(folder), options={})


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, whole = write_folder(tmp_path / "pets", FILES), os.open

    def refuse(path: object, *rest: int, **named: int) -> int:
        if str(path).endswith("dog/1.png"):
            raise PermissionError(13, "Permission denied")
        return whole(path, *rest, **named)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileError, match=r"dog/1\.png': cannot be read \(Permission denied\): check its"):
        load_data(str(folder), options={})
