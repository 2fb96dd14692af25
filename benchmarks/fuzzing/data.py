"""Data sets that somebody else put together: images, archives of them, idx files."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.fuzzing.target import Scratch, Target
from ticketguard.data.archives import archive_files
from ticketguard.data.image_file import decode_image
from ticketguard.data.image_folder import IMAGE_LIMIT_BYTES
from ticketguard.data.named import _read_idx

# What is written here may be refused there: formats that users' folders hold, and some that only a stranger brings.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "DDS", "EPS", "SPIDER", "ICO", "JPEG2000")


def targets(scratch: Scratch) -> tuple[Target, ...]:
    """Return the targets that read data."""
    images = sample_images()
    tar = class_folders(images["PNG"])
    idx = struct.pack(">HBBIII", 0, 8, 3, 2, 5, 6) + bytes(60)

    def decode(content: bytes) -> object:
        return decode_image(content, name="fuzzed", size=8)

    return (
        Target(name="image", seeds=tuple(images.values()), read=decode, repair=with_png_checksums),
        Target(name="tar", seeds=(tar,), read=scratch.reader("data.tar", read_files), repair=with_tar_checksums),
        _packed(scratch, "tar.gz", tar, lambda content: gzip.compress(content, 1, mtime=0)),
        _packed(scratch, "tar.xz", tar, lambda content: lzma.compress(content, preset=0)),
        Target(
            name="idx",
            seeds=(idx,),
            read=scratch.reader(
                "images-idx3-ubyte", lambda path: _read_idx(path.parent, path.name.partition("-ubyte")[0])
            ),
        ),
        Target(
            name="idx, gzip",
            seeds=(gzip.compress(idx),),
            read=scratch.reader(
                "packed-idx3-ubyte.gz", lambda path: _read_idx(path.parent, path.name.partition("-ubyte")[0])
            ),
        ),
    )


def _packed(scratch: Scratch, name: str, tar: bytes, pack: Callable[[bytes], bytes]) -> Target:
    """Return a target of compressed archives: damaged as they are, and damaged inside."""
    return Target(
        name=name,
        seeds=(pack(tar), tar),
        read=scratch.reader(f"data.{name}", read_files),
        repair=lambda content: pack(with_tar_checksums(content)),
    )


def read_files(path: Path) -> object:
    """Read every file of an archive; what is done with images is another parser's."""
    return sum(len(content) for _, content in archive_files(path, lambda name: True, limit_bytes=IMAGE_LIMIT_BYTES))


def sample_images() -> dict[str, bytes]:
    """Return one small image in every format that the installed library writes."""
    rng = np.random.default_rng(2)
    colour = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 2**16, (5, 6), dtype=np.uint16))
    palette = colour.quantize(7)
    found: dict[str, bytes] = {}
    for name, image in (
        *((name, colour.convert("F") if name == "SPIDER" else colour) for name in FORMATS),
        ("PNG, 16 bits", deep),
        ("PNG, palette", palette),
        ("TIFF, 16 bits", deep),
    ):
        content = io.BytesIO()
        try:
            image.save(content, name.partition(",")[0])
        except (KeyError, OSError):  # this build of the library does not write the format
            continue
        found[name] = content.getvalue()
    return found


def class_folders(image: bytes) -> bytes:
    """Return a tar of two classes with two images each, and with extended headers."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("cat/1.png", "cat/2.png", "dog/1.png", f"dog/{'2' * 120}.png"):
            member = tarfile.TarInfo(name)
            member.size = len(image)
            member.pax_headers = {"comment": "x" * 50}
            archive.addfile(member, io.BytesIO(image))
    return content.getvalue()


def with_png_checksums(content: bytes) -> bytes:
    """Put right the checksum of every chunk of a PNG; other files stay as they are."""
    if content[1:4] != b"PNG":
        return content
    fixed, place = content[:8], 8
    while place + 8 <= len(content):
        length = struct.unpack(">I", content[place : place + 4])[0]
        body = content[place + 4 : place + 8 + length]
        fixed += content[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return fixed


def with_tar_checksums(content: bytes) -> bytes:
    """Put right the checksum of every block that has one."""
    fixed = bytearray(content)
    for place in range(0, len(fixed) - 511, 512):
        if fixed[place + 257 : place + 262] == b"ustar":
            fixed[place + 148 : place + 156] = b" " * 8
            fixed[place + 148 : place + 156] = b"%06o\0 " % sum(fixed[place : place + 512])
    return bytes(fixed)
