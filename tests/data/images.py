"""Small image archives for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def png(value: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """Return an image of one colour."""
    stream = io.BytesIO()
    Image.fromarray(np.full(size[::-1], value, np.uint8)).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    """Write files into a tar archive, in the order given."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path
