"""Files of a tar archive, one after the other, read through once and never unpacked to disk.

The layout is that of POSIX.1-2017 (pax, "ustar Interchange Format") with GNU tar's long names. Python's ``tarfile`` is
not used: it reads extended headers whole, whatever size they declare, and an archive of a few kilobytes can declare
gigabytes. Here nothing is held but one file that was asked for, and what an archive unpacks to is bounded.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ticketguard.data.dataset import no_data
from ticketguard.files import open_finite

# Names, and what archivers write beside them (times, access lists); real ones take a few hundred bytes.
EXTENDED_HEADER_LIMIT_BYTES = 2**20
# The longest path an operating system opens.
NAME_LIMIT_BYTES = 4096
# Compressed images hardly shrink, uncompressed ones to a twentieth; what grows by more than this is not a data set.
UNPACKED_FREE_BYTES = 256 * 2**20
UNPACKED_RATIO = 100
# Headers, and records of extended ones: each takes time to read, and next to nothing in a compressed archive. An image
# has a dozen of them at most, and some hundred bytes that do not shrink.
FREE_ENTRIES = 100_000
ENTRY_BYTES = 16
# ``xz -9`` needs 65 MiB to unpack.
LZMA_MEMORY_BYTES = 100 * 2**20
_BLOCK = 512
_PIECE_BYTES = 2**16
_REGULAR, _LONG_NAME, _GNU_SPARSE = (b"0", b"\0", b"7"), b"L", b"S"
_EXTENDED = (_LONG_NAME, b"x", b"X")
# A global header and a long link: they stand between a file and what an extended header says of it.
_ABOUT_OTHERS = (b"g", b"K")
# Links, devices, folders and pipes have no content of their own, whatever size they declare.
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")
_ASCII = bytes(range(128))
_SPARSE = "holds a sparse file, expected plain ones"
_PACK_AGAIN = "pack it again with plain tar"
_UNPACK = "unpack it by hand if you trust it, and give the folder"


def archive_files(path: Path, wanted: Callable[[str], bool], *, limit_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the regular files that are *wanted*; links and special files are skipped.

    Args:
        path: A tar archive, plain or compressed by gzip, bzip2 or xz.
        wanted: Says by its name whether a file is to be read.
        limit_bytes: Size that no wanted file may exceed.

    Raises:
        FileError: It is not a whole tar archive, unpacks to far more than it holds, has far more files than its size
            has room for, or a wanted file is too large.
    """
    try:
        with open(path, "rb", opener=open_finite) as file:
            stream = _Stream(path, file)
            yield from _files(stream, path, wanted, limit_bytes)
            # A compressed file's checksum comes last.
            stream.drain()
    except (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError) as error:
        raise no_data(
            path, f"is neither a folder nor a whole tar archive ({error})", "give a folder or tar of class folders"
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Extended:
    """What extended headers say of the next member: its name and size; None for what its own header says."""

    name: str | None = None
    size: int | None = None


def _files(stream: _Stream, path: Path, wanted: Callable[[str], bool], limit_bytes: int) -> Iterator[tuple[str, bytes]]:
    said = _Extended()
    while (member := _read_header(stream)) is not None:
        if member.kind in _EXTENDED:
            said = _read_extended(stream, member, said, path)
            continue
        if member.kind == _GNU_SPARSE:
            raise no_data(path, _SPARSE, _PACK_AGAIN)
        name = member.name if said.name is None else said.name
        size = member.size if said.size is None else said.size
        if len(name) > NAME_LIMIT_BYTES:
            raise no_data(path, f"holds a name of {len(name)} characters", f"expected at most {NAME_LIMIT_BYTES}")
        if member.kind in _REGULAR and wanted(name):
            check_size(f"{path}/{name}", size, limit_bytes)
            yield name, stream.read_padded(size)
        else:
            stream.skip_padded(0 if member.kind in _WITHOUT_CONTENT else size)
        if member.kind not in _ABOUT_OTHERS:
            said = _Extended()


def _read_extended(stream: _Stream, member: _Member, said: _Extended, path: Path) -> _Extended:
    if member.size > EXTENDED_HEADER_LIMIT_BYTES:
        raise no_data(
            path,
            f"has an extended header of {member.size} bytes, expected at most {EXTENDED_HEADER_LIMIT_BYTES}",
            _PACK_AGAIN,
        )
    content = stream.read_padded(member.size)
    if member.kind == _LONG_NAME:
        return dataclasses.replace(said, name=_text(content))
    for key, value in _pax_records(content):
        stream.count_entry()
        if key.startswith(b"GNU.sparse."):
            raise no_data(path, _SPARSE, _PACK_AGAIN)
        if key == b"path":
            said = dataclasses.replace(said, name=_text(value))
        elif key == b"size":
            said = dataclasses.replace(said, size=_decimal(value))
    return said


def check_size(name: object, size: int, limit_bytes: int) -> None:
    """Refuse a file that is too large to be one image.

    Raises:
        FileError: It is.
    """
    if size > limit_bytes:
        raise no_data(name, f"has {size} bytes, expected at most {limit_bytes}", "shrink it or leave it out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Member:
    """One header block: the kind of what follows it, its name, and its size in bytes."""

    kind: bytes
    name: str
    size: int


def _read_header(stream: _Stream) -> _Member | None:
    """Read one header block; None for the block of zeros that ends an archive.

    Raises:
        ValueError: It is not one.
        EOFError: The archive ends without its end mark, so it was cut short.
    """
    block = stream.read(_BLOCK)
    if not any(block):
        return None
    stream.count_entry()
    # The sum counts its own field as blanks; old archivers took bytes as signed.
    around, stated = block[:148] + b" " * 8 + block[156:], _number(block[148:156])
    if stated not in (found := sum(around), found - 256 * len(around.translate(None, _ASCII))):
        raise ValueError(f"no header at byte {stream.position - _BLOCK}")
    name, kind = _text(block[:100]), block[156:157]
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    if kind in _REGULAR and name.endswith("/"):  # how archives before ustar wrote a folder
        kind = b"5"
    return _Member(kind=kind, name=name, size=_number(block[124:136]))


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's binary numbers; a second leading bit is a minus sign
        value = int.from_bytes(field[1:], "big") | (field[0] & 0x7F) << 8 * (len(field) - 1)
        if field[0] & 0x40:
            raise ValueError("a header holds a negative number")
        return value
    text = field.split(b"\0", 1)[0].strip()
    if text and not text.isdigit():
        raise ValueError("a header does not hold an octal number")
    return int(text or b"0", 8)


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise ValueError("an extended header does not hold a size")
    return int(value)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of an extended header: "length key=value" with a line feed, length counting all of it."""
    at = 0
    while at < len(content) and content[at] != 0:
        blank = content.find(b" ", at, at + 20)
        end = at + _decimal(content[at:blank]) if blank > at else at
        key, equals, value = content[blank + 1 : end].partition(b"=")
        # Without a length, or one that reaches beyond its own blank, a record would be read for ever.
        if not at < blank < end <= len(content) or not equals or not value.endswith(b"\n"):
            raise ValueError("an extended header is damaged")
        yield key, value[:-1]
        at = end


class _Stream:
    """What an archive unpacks to, from start to end; it ends in an error where it grows out of proportion."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._packed = _Counted(file)
        self._unpacked = _unpack(io.BufferedReader(self._packed))
        self.position = 0
        self._entries = 0

    def read(self, size: int) -> bytes:
        """Return exactly *size* bytes.

        Raises:
            EOFError: There are fewer.
        """
        pieces = []
        while size:
            piece = self._unpacked.read(min(size, _PIECE_BYTES))
            if not piece:
                raise EOFError(f"ends after {self.position} bytes")
            pieces.append(piece)
            size -= len(piece)
            self._advance(len(piece))
        return b"".join(pieces)

    def read_padded(self, size: int) -> bytes:
        """Return *size* bytes and pass over what fills their last block."""
        content = self.read(size)
        self.read(-size % _BLOCK)
        return content

    def skip_padded(self, size: int) -> None:
        """Pass over *size* bytes and what fills their last block."""
        left = size + -size % _BLOCK
        while left:
            left -= len(self.read(min(left, _PIECE_BYTES)))

    def drain(self) -> None:
        """Pass over everything that is left."""
        while piece := self._unpacked.read(_PIECE_BYTES):
            self._advance(len(piece))

    def count_entry(self) -> None:
        """Count one header, or one record of an extended header.

        Raises:
            FileError: There are far more of them than what was read has images.
        """
        self._entries += 1
        if self._entries > FREE_ENTRIES + self._packed.count // ENTRY_BYTES:
            raise no_data(self._path, f"has {self._entries} headers and more in {self._packed.count} bytes", _UNPACK)

    def _advance(self, count: int) -> None:
        self.position += count
        if self.position > UNPACKED_FREE_BYTES + UNPACKED_RATIO * self._packed.count:
            raise no_data(
                self._path,
                f"unpacks to {self.position} bytes and more from {self._packed.count}",
                _UNPACK,
            )


class _Counted(io.RawIOBase):
    """A file that counts what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        self.count += len(content)
        return len(content)


def _unpack(packed: io.BufferedReader) -> gzip.GzipFile | bz2.BZ2File | io.BufferedReader | _Xz:
    start = packed.peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=packed)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(packed)
    if start.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return _Xz(packed)
    if start.startswith(b"PK"):
        raise ValueError("a zip archive, which must be unpacked first")
    return packed


class _Xz:
    """An xz or lzma file whose memory is bounded, which ``lzma.LZMAFile`` cannot do; streams may follow each other."""

    def __init__(self, packed: io.BufferedReader) -> None:
        self._packed = packed
        self._decoder = lzma.LZMADecompressor(memlimit=LZMA_MEMORY_BYTES)

    def read(self, size: int) -> bytes:
        """Return up to *size* bytes, none at the end."""
        while True:
            piece = b""
            if self._decoder.eof:
                piece = self._decoder.unused_data.lstrip(b"\0")
                while not piece:
                    if not (padding := self._packed.read(_PIECE_BYTES)):
                        return b""
                    piece = padding.lstrip(b"\0")
                self._decoder = lzma.LZMADecompressor(memlimit=LZMA_MEMORY_BYTES)
            elif self._decoder.needs_input and not (piece := self._packed.read(_PIECE_BYTES)):
                raise EOFError("the compressed file ends early")
            if content := self._decoder.decompress(piece, size):
                return content
