"""Pictures that marks show to a person, as files."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from ticketguard.errors import ConfigurationError
from ticketguard.files import make_folder, reading, write_whole
from ticketguard.verification.pictures import Shades, rendered
from ticketguard.verification.verdict import Verdict

# Large enough to be scanned off a screen: a code of 25 modules a side is 396 pixels wide.
PIXELS = 12


def require_empty_folder(folder: str | os.PathLike[str], *, advice: str = "name a new folder for the pictures") -> None:
    """Refuse a folder that holds something, or cannot be made.

    Args:
        folder: The folder, which is made if it is not there.
        advice: What to do about one that holds something.

    Raises:
        ConfigurationError: It does, or is not a folder.
        FileError: It cannot be made or read.
    """
    path = Path(folder)
    require_folder(path)
    with reading(path):
        if any(path.iterdir()):
            raise ConfigurationError(f"'{path}' holds files already: {advice}")


def require_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder if it is not there.

    Raises:
        ConfigurationError: It is something else.
        FileError: It cannot be made.
    """
    path = Path(folder)
    with reading(path):
        if path.exists() and not path.is_dir():
            raise ConfigurationError(f"'{path}' is not a folder: name a new folder for the pictures")
        make_folder(path)


def write_pictures(verdict: Verdict, folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Write the pictures of a verdict's evidence as PNG files, named after mark and picture.

    Returns:
        For each mark that shows any its name, the files, and what they decode to: "mark", "files" and "decoded".

    Raises:
        FileError: One cannot be written.
    """
    shown: list[dict[str, Any]] = []
    for evidence in verdict.evidence:
        files = []
        for name, shades in evidence.pictures.items():
            files.append(str(Path(folder) / f"{evidence.mark}-{name}.png"))
            write_whole(files[-1], png_of_modules(shades))
        if files:
            shown.append({"mark": evidence.mark, "files": files, "decoded": evidence.details["decoded"]})
    return shown


def png_of_modules(shades: Shades) -> bytes:
    """Return modules in *shades* as a PNG with a quiet zone."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(rendered(shades, PIXELS)).save(content, format="PNG")
    return content.getvalue()
