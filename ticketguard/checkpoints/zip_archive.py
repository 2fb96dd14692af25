"""Where the entries of an uncompressed zip archive lie, read so strictly that no two readers can differ.

A zip archive can be read from its end (the directory) or from its start (a header before each entry), and readers
disagree wherever the two do. Accepted is what torch.save and Python's zipfile write: entries without gaps from byte
zero to the directory, which ends at the end record, which ends the file; each header says what the directory says.
PKWARE, .ZIP File Format Specification (APPNOTE.TXT) 6.3.10, section 4.3.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.errors import FileError

ZIP_MAGIC = b"PK\x03\x04"
# A directory line takes about 70 bytes; torch writes an entry for each storage.
MAX_ENTRIES = 2**16
MAX_DIRECTORY_BYTES = 16 * 2**20

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_DIRECTORY_LINE = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_MANY16, _MANY32 = 0xFFFF, 0xFFFFFFFF
_HAS_DESCRIPTOR = 1 << 3
_NAME_IS_UTF8 = 1 << 11
_STORED = 0
_ZIP64_EXTRA = 1
# torch.save pads headers so that the bytes of storages start at multiples of 64.
_USUAL_EXTRA_BYTES = 128
_LONGEST_DESCRIPTOR = 24


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ZipEntry:
    """One line of an archive's directory.

    Attributes:
        name: The entry's name.
        flags: General-purpose flags.
        method: Compression method; 0 = stored.
        checksum: CRC-32 of its bytes; torch.save writes 0 when told not to compute it.
        stored_size: Bytes in the archive.
        size: Bytes when unpacked.
        header_offset: Where its own header starts in the file.
    """

    name: str
    flags: int
    method: int
    checksum: int
    stored_size: int
    size: int
    header_offset: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ZipDirectory:
    """An archive's directory, not yet compared with the entries' own headers.

    Attributes:
        entries: Its lines, in the order of the headers in the file.
        start: Where the directory starts in the file, which is where the last entry must end.
    """

    entries: tuple[ZipEntry, ...]
    start: int


def read_directory(file: SteadyFile) -> ZipDirectory:
    """Read an archive's directory.

    Raises:
        FileError: The archive does not end with its directory and one end record, or a line cannot be read.
    """
    count, start, stop = _directory_range(file)
    if count > MAX_ENTRIES or stop - start > MAX_DIRECTORY_BYTES:
        raise damaged(file, f"its directory has {count} entries in {stop - start} bytes")
    content = file.read(start, stop - start)
    entries: list[ZipEntry] = []
    position = 0
    try:
        for _ in range(count):
            entry, position = _directory_line(content, position)
            entries.append(entry)
    except (struct.error, ValueError) as error:
        raise damaged(file, f"line {len(entries) + 1} of its directory cannot be read") from error
    if position != len(content):
        raise damaged(file, "its directory does not end at the end record")
    # Readers that ignore case would take one for the other.
    if len({entry.name.lower() for entry in entries}) != count:
        raise damaged(file, "a name occurs twice in its directory")
    return ZipDirectory(entries=tuple(sorted(entries, key=lambda entry: entry.header_offset)), start=start)


def locate_entries(file: SteadyFile, directory: ZipDirectory) -> dict[str, int]:
    """Compare every entry's own header with the directory, and return where in the file its bytes start, by name.

    Raises:
        FileError: An entry is compressed or encrypted, a header differs from the directory, or entries overlap or
            leave gaps.
    """
    starts: dict[str, int] = {}
    position = 0
    for entry in directory.entries:
        if (
            entry.method != _STORED
            or entry.stored_size != entry.size
            or entry.flags & ~(_HAS_DESCRIPTOR | _NAME_IS_UTF8)
        ):
            raise damaged(file, f"entry {entry.name[:80]!r} is compressed, encrypted or written in an unusual way")
        if entry.header_offset != position:
            raise damaged(file, f"entry {entry.name[:80]!r} starts at byte {entry.header_offset}, expected {position}")
        start = position + _header_length(file, entry)
        starts[entry.name] = start
        position = start + entry.size
        if entry.flags & _HAS_DESCRIPTOR:
            position += _descriptor_length(file, entry, position)
    if position != directory.start:
        raise damaged(file, f"its entries end at byte {position}, its directory starts at {directory.start}")
    return starts


def _directory_range(file: SteadyFile) -> tuple[int, int, int]:
    """Return the number of entries, and where the directory starts and stops, from the end record or records."""
    end_at = file.size - _END.size
    try:
        magic, *disks, count, size, start, comment = _END.unpack(file.read(max(0, end_at), _END.size))
    except struct.error as error:
        raise damaged(file, "it is too short") from error
    if magic != b"PK\x05\x06" or comment or disks[:2] != [0, 0]:
        raise damaged(file, "it does not end with its end record")
    stop = end_at
    locator = file.read(max(0, end_at - _LOCATOR64.size), _LOCATOR64.size)
    if locator.startswith(b"PK\x06\x07"):
        stop = end_at - _LOCATOR64.size - _END64.size
        _, disk, record_at, all_disks = _LOCATOR64.unpack(locator)
        if (disk, record_at, all_disks) != (0, stop, 1):
            raise damaged(file, "its two end records do not follow each other")
        magic, length, _, _, disk, first_disk, *counts, size64, start64 = _END64.unpack(file.read(stop, _END64.size))
        small = (
            (disks[2], counts[0], _MANY16),
            (count, counts[1], _MANY16),
            (size, size64, _MANY32),
            (start, start64, _MANY32),
        )
        # The shorter record either repeats the longer one or says that the number does not fit.
        if (magic, length, disk, first_disk) != (b"PK\x06\x06", _END64.size - 12, 0, 0) or any(
            said not in {meant, many} for said, meant, many in small
        ):
            raise damaged(file, "its two end records differ")
        disks[2], count, size, start = *counts, size64, start64
    if disks[2] != count or start + size != stop:
        raise damaged(file, "its directory does not end at the end record")
    return count, start, stop


def _directory_line(content: bytes, position: int) -> tuple[ZipEntry, int]:
    fields = _DIRECTORY_LINE.unpack_from(content, position)
    magic, _, _, flags, method, _, _, checksum, stored, size, name_length, extra_length, comment, disk, _, _, at = (
        fields
    )
    name_at = position + _DIRECTORY_LINE.size
    extra_at = name_at + name_length
    following = extra_at + extra_length + comment
    # A name ends at a zero byte for readers written in C, and not for others.
    if magic != b"PK\x01\x02" or disk or following > len(content) or b"\0" in content[name_at:extra_at]:
        raise ValueError("a line of the directory is malformed")
    long_numbers = _zip64_numbers(content[extra_at : extra_at + extra_length])
    # Numbers that do not fit stand in the extra field, in this order, and only those.
    size, stored, at = (next(long_numbers) if number == _MANY32 else number for number in (size, stored, at))
    entry = ZipEntry(
        name=content[name_at:extra_at].decode("utf-8"),
        flags=flags,
        method=method,
        checksum=checksum,
        stored_size=stored,
        size=size,
        header_offset=at,
    )
    return entry, following


def _zip64_numbers(extra: bytes) -> Iterator[int]:
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == _ZIP64_EXTRA:
            for (number,) in struct.iter_unpack("<Q", extra[position + 4 : position + 4 + length // 8 * 8]):
                yield number
            break
        position += 4 + length
    raise ValueError("a long number is missing")


def _header_length(file: SteadyFile, entry: ZipEntry) -> int:
    """Return the length of an entry's own header after comparing it with the directory's line."""
    name = entry.name.encode()
    header = file.read(entry.header_offset, _LOCAL.size + len(name) + _USUAL_EXTRA_BYTES)
    try:
        magic, _, flags, method, _, _, checksum, stored, size, name_length, extra_length = _LOCAL.unpack_from(header)
        if _MANY32 in (stored, size):
            extra_at = _LOCAL.size + name_length
            numbers = _zip64_numbers(header[extra_at : extra_at + extra_length])
            size, stored = next(numbers), next(numbers)
    except (struct.error, ValueError) as error:
        raise damaged(file, f"the header of entry {entry.name[:80]!r} cannot be read") from error
    meant = [(entry.checksum, entry.stored_size, entry.size)]
    if entry.flags & _HAS_DESCRIPTOR:
        meant.append((0, 0, 0))  # The numbers follow the entry's bytes.
    if (
        (magic, flags, method) != (ZIP_MAGIC, entry.flags, entry.method)
        or header[_LOCAL.size : _LOCAL.size + name_length] != name
        or (checksum, stored, size) not in meant
    ):
        raise damaged(file, f"the header of entry {entry.name[:80]!r} differs from the directory")
    length: int = _LOCAL.size + name_length + extra_length
    return length


def _descriptor_length(file: SteadyFile, entry: ZipEntry, position: int) -> int:
    """Return the length of the numbers that follow an entry's bytes, after comparing them with the directory."""
    content = file.read(position, _LONGEST_DESCRIPTOR + 2)
    for magic in (b"PK\x07\x08", b""):
        for form in ("<I2I", "<I2Q"):
            try:
                expected = magic + struct.pack(form, entry.checksum, entry.stored_size, entry.size)
            except struct.error:
                continue
            # What follows is the next header or the directory, so a longer form is not taken for a shorter one.
            if content.startswith(expected + b"PK"):
                return len(expected)
    raise damaged(file, f"the lengths behind entry {entry.name[:80]!r} differ from the directory")


def damaged(file: SteadyFile, reason: str) -> FileError:
    """Return the error for a file that torch.save cannot have written so."""
    return FileError(
        path=file.path,
        reason=f"is not a whole torch checkpoint ({reason})",
        hint="fetch it again, or save the state dict as safetensors",
    )
