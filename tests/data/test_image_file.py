from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import png, write_tar
from PIL import Image, ImageOps

from ticketguard.data import load_data
from ticketguard.data.dataset import resized
from ticketguard.data.image_container import bare_image
from ticketguard.data.image_file import decode_image
from ticketguard.errors import FileError

GENERATOR = np.random.default_rng(0)
COLOUR = Image.fromarray(GENERATOR.integers(0, 256, (9, 13, 3), dtype=np.uint8))
WIDE = Image.fromarray(GENERATOR.integers(0, 2**16, (9, 13), dtype=np.uint16))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(content: bytes, size: int = 0) -> Any:
    return decode_image(content, name="x.png", size=size)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def test_an_image_that_is_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    path = write_tar(tmp_path / "pets.tar", {"cat/0.png": postscript, "dog/0.png": png(1)})
    with pytest.raises(FileError, match=r"cat/0\.png': is not a readable image \(expected one of BMP, GIF, JPEG"):
        load_data(str(path), options={})
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["AVIF", "DDS", "ICNS", "JPEG2000", "PCX", "SGI", "TGA"])
def test_other_formats_are_refused_under_any_name(kind: str) -> None:
    with pytest.raises(FileError, match=r"is not a readable image \(expected one of BMP, GIF"):
        decoded(encoded(COLOUR.resize((16, 16)), kind))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_known_formats_are_read_as_pillow_reads_them(kind: str, mode: str) -> None:
    content = encoded(COLOUR.convert("RGB" if kind in ("JPEG", "PPM", "WEBP") and mode == "P" else mode), kind)
    image = Image.open(io.BytesIO(content))
    expected = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    assert np.array_equal(decoded(content).transpose(1, 2, 0).squeeze(), expected)


MODES = ("RGBA", "LA", "P", "RGB", "CMYK", "YCbCr", "1")
TIFFS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"big_tiff": True}, MODES),
    ({"strip_size": 64}, MODES),
    ({"compression": "tiff_lzw", "tiffinfo": {317: 2}}, MODES[3:6]),
    *(({"compression": packing}, MODES) for packing in ("tiff_adobe_deflate", "tiff_deflate", "packbits")),
    ({"compression": "jpeg"}, MODES[3:6]),
    *(({"compression": packing}, ("1",)) for packing in ("group3", "group4", "tiff_ccitt")),
]


@pytest.mark.parametrize(("options", "mode"), [(options, mode) for options, modes in TIFFS for mode in modes])
def test_every_kind_of_tiff_is_read_as_pillow_reads_it(options: dict[str, Any], mode: str) -> None:
    content = encoded(COLOUR.convert(mode), "TIFF", **options)
    image = Image.open(io.BytesIO(content))
    expected = np.asarray(image.convert("L" if image.mode in ("1", "LA") else "RGB"))
    assert np.array_equal(decoded(content).transpose(1, 2, 0).squeeze(), expected)


def test_transparency_is_dropped_and_grey_stays_grey() -> None:
    clear = COLOUR.convert("RGBA")
    clear.putalpha(7)
    assert np.array_equal(decoded(encoded(clear, "PNG")), np.asarray(COLOUR).transpose(2, 0, 1))
    assert np.array_equal(
        decoded(encoded(COLOUR.convert("L").convert("LA"), "PNG"))[0], np.asarray(COLOUR.convert("L"))
    )
    palette = COLOUR.convert("P")
    assert np.array_equal(
        decoded(encoded(palette, "PNG", transparency=0)), np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    )


def test_the_first_of_several_frames_is_taken() -> None:
    second = COLOUR.rotate(180)
    for kind in ("PNG", "WEBP", "TIFF"):
        content = encoded(
            COLOUR, kind, save_all=True, append_images=[second], **({"lossless": 1} if kind == "WEBP" else {})
        )
        assert np.array_equal(decoded(content), np.asarray(COLOUR).transpose(2, 0, 1)), kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str) -> None:
    expected = np.rint(np.asarray(WIDE) / 257).astype(np.uint8)
    assert np.array_equal(decoded(encoded(WIDE, kind))[0], expected)


def test_sixteen_bits_in_colour_are_scaled() -> None:
    samples = GENERATOR.integers(0, 2**16, (2, 3, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    wide = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    for content in (wide, b"P6 3 2 65535\n" + samples.tobytes()):
        assert np.abs(decoded(content).transpose(1, 2, 0) - samples / 257).max() <= 1


def test_floats_from_0_to_1_are_scaled_and_other_ranges_refused() -> None:
    values = GENERATOR.random((9, 13), dtype=np.float32)
    assert np.array_equal(decoded(encoded(Image.fromarray(values), "TIFF"))[0], np.rint(values * 255))
    for bad in (values * 255, values - 1, values * np.nan):
        with pytest.raises(FileError, match=r"holds values from .* to .*, expected 0 to 1"):
            decoded(encoded(Image.fromarray(bad), "TIFF"))
    with pytest.raises(FileError, match=r"holds signed or 32-bit values, whose range is not known"):
        decoded(encoded(Image.fromarray(np.full((9, 13), 300, np.int32)), "TIFF"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"P1\n# black is 1\n3 2\n1 0 1\n001", [[0, 255, 0], [255, 255, 0]]),
        (b"P2 3 2 7\n0 1 2 # half\n 3 5 7", [[0, 36, 73], [109, 182, 255]]),
        (b"P5 3 2 7\n\0\1\2\3\5\7", [[0, 36, 73], [109, 182, 255]]),
        (b"P2 2 1 7\n3 3", [[109, 109]]),
        (b"P3 1 2 65535 0 128 65535 1 2 600", [[[0], [0]], [[0], [0]], [[255], [2]]]),
        (b"P4 3 2\n\xa0\x20", [[0, 255, 0], [255, 255, 0]]),
    ],
)
def test_netpbm_images_are_read_at_the_scale_they_state(content: bytes, expected: Any) -> None:
    assert decoded(content).squeeze(0 if content[1:2] != b"3" else ()).tolist() == expected


@pytest.mark.parametrize(
    "content",
    [
        b"P2 3 2 7\n0 1 2 3 5 8", b"P2 3 2 7\n0 1 2 3 5", b"P2 3 2 7\n0 1 2 3 5 -1", b"P2 3 2 0\n", b"P1 3 2\n10201",
        b"P5 3 2 7\n\0\1\2\3\5", b"P5 3 2 300\n" + b"\xff" * 12, b"P6 99999999 99999999 7\n1", b"P5 0 3 255\n", b"P5 x",
        b"P2 3 2 65536\n0 1 2 3 4 5", b"P2 2 1 7\n999999 1",
    ],
)  # fmt: skip
def test_a_damaged_netpbm_image_is_refused(content: bytes) -> None:
    with pytest.raises(FileError, match=r"x\.png': is not a readable image \("):
        decoded(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_cameras_orientation_is_applied(kind: str, orientation: int) -> None:
    content = encoded(COLOUR, kind, exif=exif(orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert np.array_equal(decoded(content), np.asarray(expected).transpose(2, 0, 1))
    upright = torch.from_numpy(np.asarray(expected).transpose(2, 0, 1).copy())[None]
    assert np.array_equal(decoded(content, 4), resized(upright, 4)[0].numpy())


@pytest.mark.parametrize("filler", [b"\xff" * 3, b"\xff\x01", b"\xff\xd0\xff\xd7", b"\0\0"])
def test_what_lies_between_the_segments_of_a_jpeg_is_passed_over(filler: bytes) -> None:
    content = encoded(COLOUR, "JPEG", exif=exif(6))
    assert decoded(content).shape == (3, 13, 9)
    note = content.index(b"\xff\xe1")
    assert np.array_equal(decoded(content[:note] + filler + content[note:]), decoded(content))


@pytest.mark.parametrize("block", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"\xff" * 99])
def test_a_damaged_orientation_is_none_and_warns_of_nothing(block: bytes) -> None:
    content = encoded(COLOUR, "PNG", exif=b"Exif\0\0" + block)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decoded(content), np.asarray(COLOUR).transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(1000, 1500, 3), (2500, 300), (700, 800, 3)])
@pytest.mark.parametrize("size", [1, 7, 32, 300])
def test_a_large_image_shrinks_as_a_small_one(shape: tuple[int, ...], size: int) -> None:
    pixels = GENERATOR.integers(0, 256, shape, dtype=np.uint8)
    planes = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    expected = resized(torch.from_numpy(planes.copy())[None], size)[0].numpy()
    # torch rounds sums of many pixels on the way.
    differences = np.abs(
        decoded(encoded(Image.fromarray(pixels), "PNG", compress_level=1), size) - expected.astype(int)
    )
    assert differences.max() <= (0 if size > 7 else 1)


def test_a_large_jpeg_is_read_at_a_fraction_of_its_size() -> None:
    content = encoded(Image.new("RGB", (7000, 7000), (10, 20, 30)), "JPEG")
    assert np.abs(decoded(content, 8).reshape(3, -1) - np.array([[10], [20], [30]])).max() <= 2
    with pytest.raises(FileError, match=r"has 7000x7000 pixels, .*expected at most 184549376: choose an --image-size"):
        decoded(content)


@pytest.mark.parametrize(
    ("image", "kind", "options", "held", "channels"),
    [
        (COLOUR, "PNG", {}, 4, 3),
        (COLOUR, "PPM", {}, 4, 3),
        (COLOUR, "BMP", {}, 4, 3),
        (COLOUR, "JPEG", {}, 4, 3),
        (COLOUR, "JPEG", {"progressive": True}, 4 + 2 * 3, 3),
        (COLOUR.convert("L"), "JPEG", {"progressive": True}, 1 + 2, 1),
        (COLOUR.convert("P"), "GIF", {}, 1 + 1, 3),
        (COLOUR, "TIFF", {}, 4 + 2, 3),
        (COLOUR, "WEBP", {}, 4 + 12, 3),
        (WIDE, "PNG", {}, 2, 1),
    ],
)
def test_what_decoding_takes_is_known_to_the_byte(
    image: Image.Image, kind: str, options: dict[str, Any], held: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(image, kind, **options)
    files = len(content) + len(bare_image(content).content)
    for size, result in ((0, channels), (8, 6 * channels)):
        cost = files + 9 * 13 * (held + result)
        monkeypatch.setattr("ticketguard.data.image_file.WORK_LIMIT_BYTES", cost)
        assert decoded(content, size).dtype == np.uint8
        monkeypatch.setattr("ticketguard.data.image_file.WORK_LIMIT_BYTES", cost - 1)
        with pytest.raises(FileError, match=f"has 13x9 pixels, which take {cost} bytes to decode"):
            decoded(content, size)


def test_an_image_costs_its_pixels(tmp_path: Path) -> None:
    """A one-bit PNG of 13 000 x 13 000, in a process with 300 MB to spare beside what the libraries take."""
    rows = zlib.compress((b"\0" + b"\xff" * 1625) * 13000, 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 13000, 13000, 1, 0, 0, 0, 0))
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ticketguard.data.image_file import decode_image\n"
        "from ticketguard.errors import FileError\n"
        "content = Path(sys.argv[1]).read_bytes()\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "limit = pages * resource.getpagesize() + 300 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "print(decode_image(content, name='', size=32).min())\n"
        "try:\n"
        "    decode_image(content, name='x.png', size=0)\n"
        "except FileError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("255\n'x.png': has 13000x13000 pixels, which take 338")


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    content = encoded(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    scan = content.rindex(b"\xff\xda")
    many = content[:scan] + content[scan:-2] * 1000 + content[-2:]
    with pytest.raises(FileError, match=r"has 2000x2000 pixels in 10\d\d scans, expected at most"):
        decoded(many)


def overlapping_tags(count: int, size: int) -> bytes:
    """Write an Exif block whose tags all point to the same bytes: *count* times *size* when it is read."""
    entries = b"".join(struct.pack("<HHII", 0x9000 + tag, 7, size, 8) for tag in range(count))
    return b"II*\0" + struct.pack("<I", 8 + size) + bytes(size) + struct.pack("<H", count) + entries + bytes(4)


def memory_bombs() -> dict[str, bytes]:
    plain, image = encoded(COLOUR, "JPEG"), encoded(COLOUR, "PNG")
    pieces = [overlapping_tags(4000, 400_000)[at : at + 65_000] for at in range(0, 448_000, 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in pieces)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000)))
    return {
        "Exif of a JPEG": plain[:2] + segments + plain[2:],
        "Exif of a PNG": image[:33] + chunk(b"eXIf", overlapping_tags(4000, 400_000)) + image[33:],
        "text of a PNG": image[:33] + text * 60 + image[33:],
        "text at a PNG's end": image[:-12] + text * 60 + image[-12:],
        "colour profile of a PNG": image[:33] + chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(10**8))) + image[33:],
    }


@pytest.mark.parametrize("bomb", memory_bombs())
def test_notes_beside_the_pixels_are_not_unpacked(bomb: str) -> None:
    import tracemalloc

    content = memory_bombs()[bomb]
    decoded(content)
    tracemalloc.start()
    assert decoded(content).shape == (3, 9, 13)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(content) + 2**20


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    """Write a grey TIFF of 2 x 2 whose directory has *entries* in the place of its own, or beside them."""
    tags = {256: (3, 1, 2), 257: (3, 1, 2), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8),
            277: (3, 1, 1), 278: (3, 1, 2), 279: (4, 1, 4)}  # fmt: skip
    tags |= {tag: tuple(rest) for tag, *rest in entries}  # type: ignore[misc]
    rows = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 12) + b"\1\2\3\4" + struct.pack("<H", len(tags)) + rows + bytes(4)


def test_the_sample_tiff_is_read() -> None:
    assert decoded(tiff()).tolist() == [[[1, 2], [3, 4]]]
    assert decoded(tiff((34665, 4, 1, 2**31), (700, 7, 2**31, 0))).tolist() == [[[1, 2], [3, 4]]]
    assert decoded(tiff((274, 3, 1, 3))).tolist() == [[[4, 3], [2, 1]]]
    for orientation in ((274, 2, 4, 3), (274, 3, 1, 9), (274, 3, 0, 0)):
        assert decoded(tiff(orientation)).tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((259, 3, 1, 34925), "is a TIFF of compression 34925, expected none, CCITT, LZW"),
        ((273, 4, 100_000, 8), "its tag 273 points out of the file"),
        ((322, 4, 1, 60_000), "has tiles of 60000x60000"),
        ((262, 3, 1, 0), "whose 0 is white, expected 0 to be black"),
        ((320, 1, 120, 8), "its tags overlap"),
    ],
)
def test_a_tiff_that_asks_for_too_much_is_refused(entry: tuple[int, int, int, int], message: str) -> None:
    more = {322: [(323, 4, 1, 60_000)], 262: [(258, 3, 1, 16)], 320: [(347, 7, 120, 8)]}.get(entry[0], [])
    with pytest.raises(FileError, match=message):
        decoded(tiff(entry, *more))


@pytest.mark.parametrize("tag", [273, 324])
def test_a_tiff_of_many_parts_is_refused(tag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticketguard.data.image_container._MAX_STRIPS", 1)
    assert decoded(tiff()).tolist() == [[[1, 2], [3, 4]]]
    with pytest.raises(FileError, match="is in more than 1 parts"):
        decoded(tiff((tag, 4, 2, 8)))


def test_a_run_length_bmp_of_many_pixels_is_refused() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 3000, 3000, 1, 8, 1, 2, 0, 0, 256, 0)
    content = b"BM" + struct.pack("<IHHI", 1080, 0, 0, 1078) + header + bytes(1024) + b"\0\1"
    with pytest.raises(FileError, match="is a run-length BMP of 3000x3000 pixels in 1080 bytes, expected at most"):
        decoded(content)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_damage_anywhere_is_an_error_that_names_the_file(kind: str) -> None:
    whole = encoded(COLOUR, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    generator = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(300):
            content = bytearray(whole)
            for place in generator.integers(len(whole), size=generator.integers(1, 9)):
                content[place] = generator.integers(256)
            try:
                assert decoded(bytes(content)).dtype == np.uint8
            except FileError as error:
                assert str(error).startswith("'x.png': ")  # noqa: PT017
