"""A parser, whole files to start from, and what puts checksums right."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Reader: TypeAlias = Callable[[bytes], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A parser and what it is fed with.

    Attributes:
        name: As results name it.
        seeds: Whole files, of ours or of other programs, that damaged ones are made from.
        read: Reads one file's bytes; may raise nothing but errors of ours.
        is_json: Whether the input is JSON: half of the damage is then done to its values, not to its bytes.
        repair: Puts right the checksums and lengths that end the reading of most damaged files at their first check,
            so that what lies behind is reached as well; every other input goes through it.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Reader
    is_json: bool = False
    repair: Callable[[bytes], bytes] | None = None


class Scratch:
    """A folder for inputs of parsers that take a path."""

    def __init__(self) -> None:
        self._kept = tempfile.TemporaryDirectory(prefix="ticketguard-fuzz-")
        self.folder = Path(self._kept.name)

    def reader(self, name: str, read: Callable[[Path], object]) -> Reader:
        """Return a reader of bytes that goes through the file *name*."""
        path = self.folder / name

        def through_a_file(content: bytes) -> object:
            path.write_bytes(content)
            return read(path)

        return through_a_file


def within(pack: Callable[[bytes], bytes], read: Reader) -> Reader:
    """Return a reader of what is packed into a whole file, so that nothing but it is damaged."""
    return lambda content: read(pack(content))
