"""What of an image file a decoder needs: its pixels' own data, without text, profiles, thumbnails and private tags.

Decoders read such notes whole, unpack them, follow what they point to and fail on damage in them, each release within
bounds of its own. One note is read here, because it says how the image is to be seen: the orientation (Exif 2.32, tag
0x0112).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

from ticketguard.data.pnm import binary_pnm

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# libwebp holds two frames in four channels and planes of its own, Pillow copies what it gets.
_WEBP_BYTES = 12
# Pillow takes run lengths apart in Python, half a microsecond a pixel.
_RUN_LENGTH_LIMIT = 2**20
_PNG_START = b"\x89PNG\r\n\x1a\n"
# JFIF and Adobe's marker, which says how colours are coded; other application segments and comments are notes.
_JPEG_NOTES = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
_JPEG_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_JPEG_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_ORIENTATION = 0x0112
_TILE_PIXELS = 4096 * 4096
_MAX_STRIPS = 2**16
# TIFF 6.0, section 2: bytes of each type; 16 to 18 are BigTIFF's.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _TILE_WIDTH, _TILE_HEIGHT, _TILES = (
    256, 257, 258, 259, 262, 273, 322, 323, 324,
)  # fmt: skip
# With these: fill order, samples, rows, byte counts, planes, predictor, colour map, extra samples, sample format,
# JPEG tables, and how luminance and colour are coded.
_TIFF_PIXEL_TAGS = frozenset(
    (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _TILE_WIDTH, _TILE_HEIGHT, _TILES,
     266, 277, 278, 279, 284, 317, 320, 325, 338, 339, 347, 529, 530, 531, 532)
)  # fmt: skip
# None, CCITT's three, LZW, JPEG, deflate (two numbers), PackBits.
_TIFF_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BareImage:
    """An image file that holds pixels alone.

    Attributes:
        format: Pillow's name of its format, found by its first bytes.
        content: The file.
        orientation: Where its first pixel belongs, 1 to 8 as Exif counts; 1 is the top left.
        scans: Times that a decoder walks over all pixels.
        sample_bits: Bits of one sample where they may be more than 8.
        decoder_bytes: Bytes a pixel that a decoder takes beside the image it returns.
    """

    format: str
    content: bytes
    orientation: int = 1
    scans: int = 1
    sample_bits: int = 16
    decoder_bytes: int = 0


def bare_image(content: bytes) -> BareImage:
    """Find out an image's format and drop what is not needed to decode it.

    Raises:
        ValueError: It has none of the known formats, or its structure is damaged.
    """
    if content.startswith(_PNG_START):
        return _bare_png(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _bare_jpeg(content)
    if content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _bare_tiff(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        orientation = _webp_orientation(content)
        return BareImage(format="WEBP", content=content, orientation=orientation, decoder_bytes=_WEBP_BYTES)
    if content.startswith((b"GIF87a", b"GIF89a")):
        return BareImage(format="GIF", content=content, decoder_bytes=1)
    if content.startswith(b"BM"):
        return _bare_bmp(content)
    if content[:1] == b"P" and content[1:2] in b"123456" and content[2:3].isspace():
        return BareImage(format="PPM", content=binary_pnm(content))
    raise ValueError(f"expected one of {', '.join(FORMATS)}")


def _bare_png(content: bytes) -> BareImage:
    """Keep the critical chunks, whose names start with a capital (PNG, third edition, section 5)."""
    view = memoryview(content)
    kept, at, orientation = [view[:8]], 8, 1
    while at + 8 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 12 + size
        if kind[:1].isupper():
            kept.append(view[at:end])
        elif kind == b"eXIf":
            orientation = _exif_orientation(content[at + 8 : end - 4])
        at = end
    return BareImage(format="PNG", content=b"".join(kept), orientation=orientation)


def _bare_jpeg(content: bytes) -> BareImage:
    """Keep every segment but notes, up to the first scan and from there on everything (ITU-T T.81, annex B)."""
    view = memoryview(content)
    kept, at, orientation, channels = [view[:2]], 2, 0, 4
    while (at := content.find(b"\xff", at)) >= 0 and at + 4 <= len(content):
        marker = content[at + 1]
        if marker in (0x00, 0xFF) or marker in _JPEG_STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (0xD9, 0xDA):
            kept.append(view[at:])
            break
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in _JPEG_FRAMES and at + 9 < len(content):
            channels = min(content[at + 9], 4)
        if marker not in _JPEG_NOTES:
            kept.append(view[at:end])
        elif marker == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0" and not orientation:
            orientation = _exif_orientation(content[at + 10 : end])
        at = max(end, at + 2)
    bare = b"".join(kept)
    scans = bare.count(b"\xff\xda")
    # A progressive image's coefficients, two bytes each, are held until the last scan.
    held = 2 * channels if scans > 1 else 0
    return BareImage(format="JPEG", content=bare, orientation=orientation or 1, scans=scans, decoder_bytes=held)


def _bare_bmp(content: bytes) -> BareImage:
    # The header of version 3 and later gives width and height, and how pixels are packed: 1 and 2 are run lengths.
    packed = len(content) >= 34 and content[14] >= 40 and content[30] in (1, 2)
    if packed:
        width, height = struct.unpack_from("<ii", content, 18)
        if max(len(content), abs(width * height)) > _RUN_LENGTH_LIMIT:
            raise ValueError(
                f"is a run-length BMP of {width}x{height} pixels in {len(content)} bytes, "
                f"expected at most {_RUN_LENGTH_LIMIT}"
            )
    return BareImage(format="BMP", content=content, decoder_bytes=4 if packed else 0)


def _webp_orientation(content: bytes) -> int:
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] == b"EXIF":
            return _exif_orientation(content[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    return 1


def _exif_orientation(block: bytes) -> int:
    """Return the orientation that an Exif block gives, 1 where it gives none or is damaged, as viewers do."""
    try:
        _, _, entries = _directory(block)
        return next((_orientation(entry.integers()) for entry in entries if entry.tag == _ORIENTATION), 1)
    except (ValueError, struct.error):
        return 1


def _orientation(values: tuple[int, ...]) -> int:
    return values[0] if values and 1 <= values[0] <= 8 else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
    """One entry of a TIFF directory.

    Attributes:
        tag: What it says.
        kind: The values' type.
        count: How many there are.
        raw: The entry's own bytes.
        value: The values' bytes.
        order: Byte order, as struct writes it.
    """

    tag: int
    kind: int
    count: int
    raw: bytes
    value: memoryview
    order: str

    def integers(self) -> tuple[int, ...]:
        """Return the values; none where they are not unsigned integers."""
        letter = _INTEGERS.get(self.kind)
        return () if letter is None else struct.unpack(f"{self.order}{self.count}{letter}", self.value)


def _directory(content: bytes) -> tuple[str, bool, Iterator[_Entry]]:
    """Return byte order, whether it is a BigTIFF, and the first directory's entries.

    Raises:
        ValueError: It has no such directory, or an entry points out of the file.
        struct.error: It is cut short.
    """
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        raise ValueError("no TIFF header")
    big = struct.unpack(f"{order}H", content[2:4])[0] == 43
    (start,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", content, 8 if big else 4)
    return order, big, _entries(content, order, big, start)


def _entries(content: bytes, order: str, big: bool, start: int) -> Iterator[_Entry]:
    if start >= len(content):
        raise ValueError("its directory lies outside the file")
    counts, entry = (f"{order}Q", f"{order}HHQQ") if big else (f"{order}H", f"{order}HHII")
    (number,) = struct.unpack_from(counts, content, start)
    entry_bytes, inline_bytes = struct.calcsize(entry), 8 if big else 4
    at = start + struct.calcsize(counts)
    if number > (len(content) - at) // entry_bytes:
        raise ValueError("its directory is longer than the file")
    view = memoryview(content)
    for place in range(at, at + number * entry_bytes, entry_bytes):
        tag, kind, count, offset = struct.unpack_from(entry, content, place)
        size = _TYPE_BYTES.get(kind, 1) * count
        if size <= inline_bytes:
            offset = place + entry_bytes - inline_bytes
        value = view[offset : offset + size]
        if len(value) == size:
            yield _Entry(
                tag=tag, kind=kind, count=count, raw=content[place : place + entry_bytes], value=value, order=order
            )
        elif tag in _TIFF_PIXEL_TAGS:
            raise ValueError(f"its tag {tag} points out of the file")


def _bare_tiff(content: bytes) -> BareImage:
    """Write a directory of one image and the tags that its pixels need behind the file, and point to it (TIFF 6.0)."""
    try:
        order, big, entries = _directory(content)
        kept: dict[int, _Entry] = {}
        orientation = 1
        for entry in entries:
            if entry.tag in _TIFF_PIXEL_TAGS:
                kept.setdefault(entry.tag, entry)
            elif entry.tag == _ORIENTATION:
                orientation = _orientation(entry.integers())
    except struct.error as error:
        raise ValueError("its directory is cut short") from error
    bits = _check_tiff(kept, len(content))
    at = len(content) + len(content) % 2
    rows = b"".join(kept[tag].raw for tag in sorted(kept))
    count, ends = struct.pack(f"{order}Q" if big else f"{order}H", len(kept)), bytes(8 if big else 4)
    start = struct.pack(f"{order}Q", at) if big else struct.pack(f"{order}I", at)
    head = content[: 8 if big else 4] + start
    whole = b"".join((head, memoryview(content)[len(head) :], bytes(len(content) % 2), count, rows, ends))
    return BareImage(format="TIFF", content=whole, orientation=orientation, sample_bits=bits, decoder_bytes=2)


def _check_tiff(tags: dict[int, _Entry], size: int) -> int:
    """Check what a directory asks a decoder for, and return the bits of its samples."""
    numbers = {tag: entry.integers() for tag, entry in tags.items() if entry.count == 1}
    (compression,) = numbers.get(_COMPRESSION, ()) or (1,)
    if compression not in _TIFF_COMPRESSIONS:
        raise ValueError(f"is a TIFF of compression {compression}, expected none, CCITT, LZW, JPEG, deflate, PackBits")
    if sum(len(entry.value) for entry in tags.values()) > size:
        raise ValueError("its tags overlap")
    if any(tags[tag].count > _MAX_STRIPS for tag in (_STRIPS, _TILES) if tag in tags):
        raise ValueError(f"is in more than {_MAX_STRIPS} parts")
    width, height = (next(iter(numbers.get(tag, ())), 1) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if width * height > _TILE_PIXELS:
        raise ValueError(f"has tiles of {width}x{height}")
    bits = tags[_BITS].integers() if _BITS in tags else ()
    depth = max(bits, default=1)
    if depth > 8 and numbers.get(_PHOTOMETRIC) == (0,):
        raise ValueError(f"is a TIFF of {depth} bits whose 0 is white, expected 0 to be black")
    return depth
