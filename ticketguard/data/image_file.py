"""One image file becomes an array of bytes: of a format in a closed list, at a cost that is known beforehand.

Nothing but pixels reaches Pillow (`image_container`), the format goes by the content and not by the name, and whatever
a decoder raises becomes an error that names the file. What an image means is fixed here:

* grey stays grey, everything else becomes RGB; transparency is dropped, as torchvision does;
* 16 bits are scaled to 8, and so are floats from 0 to 1; other ranges are refused, never clipped;
* the orientation that a camera noted is applied; of several frames the first is taken.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ticketguard.data.dataset import no_data, resized
from ticketguard.data.image_container import BareImage, bare_image
from ticketguard.errors import FileError
from ticketguard.printable import printable

Pixels: TypeAlias = npt.NDArray[np.uint8]

# What decoding one image may take, its file included.
WORK_LIMIT_BYTES = 176 * 2**20
# A progressive JPEG goes over its pixels ten times; each pass costs nearly nothing to write and a second to read.
SCANNED_PIXELS_LIMIT = 2**29
_BAND_PIXELS = 2**19
_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_GREY = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))


def decode_image(content: bytes, *, name: str, size: int) -> Pixels:
    """Return an image's pixels, shape (1 or 3, height, width).

    Args:
        content: The file.
        name: What errors call it.
        size: Height and width to resize to; 0 to leave them.

    Raises:
        FileError: It is not an image of a known format, is damaged, holds values of an unknown range, or is too large.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images, which are measured here, and of damaged notes, which are not used.
            warnings.simplefilter("ignore")
            bare = bare_image(content)
            with Image.open(io.BytesIO(bare.content), formats=(bare.format,)) as image:
                _fit(image, bare, len(content), name, size)
                image.load()
                pixels = _shrunk(image, bare, size) if _is_shrunk(image, size) else _resized(_whole(image, bare), size)
    except FileError:
        raise
    # Decoders raise struct.error, KeyError, SyntaxError, MemoryError and more; whatever it is, it is the file's.
    except Exception as error:
        reason = printable((str(error).strip().splitlines() or [type(error).__name__])[0], limit=200)
        raise no_data(name, f"is not a readable image ({reason})", "replace it or leave it out") from error
    return _upright(pixels, bare.orientation)


def _fit(image: Image.Image, bare: BareImage, other_bytes: int, name: str, size: int) -> None:
    """Check what decoding will take; a JPEG that takes too much is decoded at a fraction of its size, if it may be.

    Raises:
        FileError: It is too large.
        ValueError: It is empty.
    """
    if not image.width * image.height:
        raise ValueError("has no pixels")
    if image.width * image.height * bare.scans > SCANNED_PIXELS_LIMIT:
        raise no_data(
            name,
            f"has {image.width}x{image.height} pixels in {bare.scans} scans, expected at most "
            f"{SCANNED_PIXELS_LIMIT // bare.scans} pixels in as many",
            "shrink it or leave it out",
        )
    other_bytes += len(bare.content)
    other_bytes += bare.decoder_bytes * image.width * image.height
    cost = other_bytes + _pixel_bytes(image, size) * image.width * image.height
    if cost > WORK_LIMIT_BYTES and size and bare.format == "JPEG":
        image.draft(None, (size, size))
        cost = other_bytes + _pixel_bytes(image, size) * image.width * image.height
    if cost > WORK_LIMIT_BYTES:
        raise no_data(
            name,
            f"has {image.width}x{image.height} pixels, which take {cost} bytes to decode, expected at most "
            f"{WORK_LIMIT_BYTES}",
            "shrink it or leave it out" if size else "choose an --image-size, shrink it or leave it out",
        )


def _pixel_bytes(image: Image.Image, size: int) -> int:
    stored = _STORED_BYTES.get(image.mode, 4)
    if _is_shrunk(image, size):
        return stored
    channels = 1 if image.mode in _GREY else 3
    # Growing one side and shrinking the other is done in floating point.
    return stored + (6 if size else 1) * channels


def _is_shrunk(image: Image.Image, size: int) -> bool:
    return 0 < size <= min(image.size) and image.width * image.height > _BAND_PIXELS


def _whole(image: Image.Image, bare: BareImage) -> Pixels:
    """Decode an image, a band of rows at a time: Pillow's pixels and the result are all that is held of it."""
    channels = 1 if image.mode in _GREY else 3
    pixels = np.empty((channels, image.height, image.width), dtype=np.uint8)
    step = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        pixels[:, top:bottom] = _band(image, bare, top, bottom)
    return pixels


def _shrunk(image: Image.Image, bare: BareImage, size: int) -> Pixels:
    """Decode an image to *size* x *size*, each pixel the mean of the area it covers, as `resized` does."""
    starts = np.arange(size) * image.width // size
    ends = -(-(np.arange(size) + 1) * image.width // size)
    rows = []
    for row in range(size):
        top, bottom = row * image.height // size, -(-(row + 1) * image.height // size)
        columns = _column_sums(image, bare, top, bottom)
        totals = np.concatenate((np.zeros_like(columns[:, :1]), columns.cumsum(axis=1)), axis=1)
        rows.append((totals[:, ends] - totals[:, starts]) / ((ends - starts) * (bottom - top)))
    shrunk: Pixels = np.rint(np.stack(rows, axis=1)).astype(np.uint8)
    return shrunk


def _column_sums(image: Image.Image, bare: BareImage, top: int, bottom: int) -> npt.NDArray[np.int64]:
    step = max(1, _BAND_PIXELS // image.width)
    parts = [
        _band(image, bare, start, min(start + step, bottom)).sum(axis=1, dtype=np.int64)
        for start in range(top, bottom, step)
    ]
    sums: npt.NDArray[np.int64] = np.sum(parts, axis=0)
    return sums


def _band(image: Image.Image, bare: BareImage, top: int, bottom: int) -> Pixels:
    """Return rows *top* to *bottom*, shape (channels, rows, width)."""
    part = image.crop((0, top, image.width, bottom))
    if part.mode.startswith("I") or part.mode == "F":
        return _scaled(np.asarray(part), part.mode, bare)[None]
    grey = part.mode in _GREY
    pixels = np.asarray(part.convert("L" if grey else "RGB"), dtype=np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _scaled(values: npt.NDArray[Any], mode: str, bare: BareImage) -> Pixels:
    """Scale wide grey values to bytes.

    Raises:
        ValueError: Their range is not known, or they are outside it.
    """
    if bare.format == "TIFF" and mode == "I":
        raise ValueError("holds signed or 32-bit values, whose range is not known, expected 8 or 16 bits")
    largest = 1 if mode == "F" else 2**bare.sample_bits - 1
    if not (values.min() >= 0 and values.max() <= largest):
        raise ValueError(f"holds values from {values.min()} to {values.max()}, expected 0 to {largest}")
    if mode == "F":
        return np.rint(values * np.float32(255)).astype(np.uint8)
    scale = (np.arange(largest + 1) * 255 + largest // 2) // largest
    scaled: Pixels = scale.astype(np.uint8)[values]
    return scaled


def _resized(pixels: Pixels, size: int) -> Pixels:
    return resized(torch.from_numpy(pixels)[None], size)[0].numpy() if size else pixels


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn an image so that the pixel which the orientation calls the first is at the top left (Exif 2.32, 4.6.4)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(1, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[:, ::-1]
    return pixels
