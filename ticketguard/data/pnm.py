"""Netpbm images (PBM, PGM, PPM) of text, or of samples that are not bytes, become plain binary ones.

https://netpbm.sourceforge.net/doc/ppm.html and its siblings. Pillow reads these kinds in Python, a microsecond a
sample: a large one would take minutes.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

_BLANK = rb"(?:\s|#[^\n]*\n)+"
# Width and height; and for grey and colour the sample that is full brightness, then one blank.
_BITMAP = re.compile(rb"P[14]" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})\s")
_SAMPLES = re.compile(rb"P[2356]" + (_BLANK + rb"(\d{1,9})") * 3 + rb"\s")
_HEADER_BYTES = 2**16


def binary_pnm(content: bytes) -> bytes:
    """Return the same image with samples of one byte, or one bit (P4, P5 or P6).

    Raises:
        ValueError: It is damaged or cut short.
    """
    text, plain = content[:2] in (b"P1", b"P2", b"P3"), content[:2] in (b"P1", b"P4")
    header = (_BITMAP if plain else _SAMPLES).match(content, 0, _HEADER_BYTES)
    if header is None:
        raise ValueError("its header is damaged")
    width, height, *rest = (int(number) for number in header.groups())
    largest = rest[0] if rest else 1
    if not 1 <= largest < 2**16:
        raise ValueError(f"its brightest sample is {largest}, expected 1 to 65535")
    if not text and largest in (1 if plain else 255, 255):
        return content
    count = width * height * (3 if content[:2] in (b"P3", b"P6") else 1)
    if count > len(content):
        raise ValueError(f"is cut short: {count} samples in {len(content)} bytes")
    body = memoryview(content)[header.end() :]
    if plain:
        values = _bits(body, count)
    elif text:
        values = _numbers(body, count)
    else:
        sample = np.dtype(">u2" if largest > 255 else "u1")
        values = np.frombuffer(body[: min(count * sample.itemsize, len(body))], dtype=sample)
    if len(values) != count or (count and not 0 <= values.min() <= values.max() <= largest):
        raise ValueError(f"holds {len(values)} samples, expected {count} from 0 to {largest}")
    scale = (np.arange(largest + 1) * 255 + largest // 2) // largest
    kind = "P6" if content[:2] in (b"P3", b"P6") else "P5"
    head = f"{kind} {width} {height} 255\n".encode()
    return b"".join((head, scale.astype(np.uint8)[values].tobytes()))


def _bits(body: memoryview, count: int) -> npt.NDArray[np.integer]:
    """Return the digits of a text bitmap, where 1 is black, as brightness."""
    digits = np.frombuffer(re.sub(rb"#[^\n]*|\s+", b"", body), dtype=np.uint8)[:count]
    # What is neither digit becomes a value above 1.
    return np.where(digits == ord("1"), 0, np.where(digits == ord("0"), 1, 2))


def _numbers(body: memoryview, count: int) -> npt.NDArray[np.integer]:
    text = re.sub(rb"#[^\n]*", b"", body)
    if re.search(rb"[^\d\s]|\d{6}", text):
        raise ValueError("holds something else than samples")
    return np.fromstring(text, dtype=np.int32, sep=" ", count=min(count, len(text)))
