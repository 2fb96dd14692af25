"""Pictures that marks show to a person, as files."""

from __future__ import annotations

import io
import os
from pathlib import Path

from ticketguard.errors import FileError
from ticketguard.files import make_folder, reading, write_whole
from ticketguard.ticket import BoolArray
from ticketguard.verification.pictures import rendered
from ticketguard.verification.verdict import Verdict

# Large enough to be scanned off a screen: a code of 25 modules a side is 396 pixels wide.
PIXELS = 12


def require_empty_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that holds something, or cannot be made.

    Raises:
        FileError: It does, or is not a folder.
    """
    path = Path(folder)
    with reading(path):
        if path.is_dir() and any(path.iterdir()):
            raise FileError(path=path, reason="holds files already", hint="name a new folder for the pictures")
        make_folder(path)


def write_pictures(verdict: Verdict, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the pictures of a verdict's evidence as PNG files, named after mark and picture; returns their paths.

    Raises:
        FileError: One cannot be written.
    """
    written = []
    for evidence in verdict.evidence:
        for name, modules in evidence.pictures.items():
            written.append(Path(folder) / f"{evidence.mark}-{name}.png")
            write_whole(written[-1], png_of_modules(modules))
    return written


def png_of_modules(modules: BoolArray) -> bytes:
    """Return modules, True for black, as a PNG with a quiet zone."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(rendered(modules, PIXELS)).convert("1").save(content, format="PNG")
    return content.getvalue()
