"""A checkpoint in several files, and the index that says what belongs together (Hugging Face's ``*.index.json``).

The index is a stranger's: it names files of its own folder and nothing else, and every tensor it lists is looked for
before any is read. One file is open at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ticketguard.checkpoints.opening import LONGEST_MAGIC, open_file
from ticketguard.checkpoints.safetensors_file import MAX_HEADER_VALUES
from ticketguard.checkpoints.sources import TensorSource
from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.errors import FileError
from ticketguard.files import read_whole
from ticketguard.strict_json import parse_json
from ticketguard.ticket import Array

INDEX_SUFFIX = ".index.json"
# An entry is about 100 bytes, as in a safetensors header, which has the same limit.
INDEX_LIMIT_BYTES = 16 * 2**20
MAX_SHARDS = 1000
# The longest name of a file on the systems in use.
MAX_NAME_BYTES = 255
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>[0-9]{1,6})-of-(?P<total>[0-9]{1,6})(?P<suffix>\.[A-Za-z]+)")


def open_checkpoint(path: str | os.PathLike[str]) -> TensorSource:
    """Open a file, a sharded checkpoint by its index, or the folder that holds exactly one index.

    Raises:
        FileError: It cannot be read, is one shard of several, or the index and its files do not fit each other.
        TensorError: A tensor is impossible.
    """
    named = Path(path)
    if _is_folder(named):
        found = sorted(named.glob(f"*{INDEX_SUFFIX}"))
        if len(found) > 1:
            raise FileError(
                path=path,
                reason=f"is a folder with {len(found)} checkpoints ({', '.join(index.name for index in found[:4])})",
                hint="name one of these files",
            )
        named = found[0] if found else named
    file = SteadyFile(named)
    start = file.read(0, LONGEST_MAGIC)
    # A safetensors header's size has zero bytes where text has none.
    if start.lstrip()[:1] == b"{" and b"\0" not in start:
        return ShardedSource(named)
    _refuse_lone_shard(named)
    return open_file(file)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long: opening it says so
        return False


class ShardedSource:
    """The tensors of several files, one of which is open at a time.

    Args:
        path: The index.

    Raises:
        FileError: The index is malformed, leaves its folder, or does not fit the files it names.
        TensorError: A tensor is impossible.
    """

    def __init__(self, path: Path) -> None:
        self._index = path
        self._files = _read_index(path)
        for file in sorted(set(self._files.values())):
            _require_inside(path, file)
        self._open: tuple[str, TensorSource] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, str] = {}
        for file in sorted(set(self._files.values())):
            self._take(file)
        # The files' order is the order they are stored in, the index's is the alphabet's.
        self._names = tuple(self._shapes)

    def names(self) -> tuple[str, ...]:
        """Return the names, file after file."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._shapes[name]

    def type_name(self, name: str) -> str:
        """Return a tensor's element type."""
        return self._types[name]

    def read(self, name: str) -> Array:
        """Return one tensor.

        Raises:
            FileError: A file is gone or has changed.
            TensorError: The element type cannot be read.
        """
        source = self._source(self._files[name])
        if name not in source.names() or source.shape(name) != self._shapes[name]:
            raise FileError(
                path=self._index.parent / self._files[name],
                reason="has changed while it was read",
                hint="use a copy that nothing is writing to",
            )
        return source.read(name)

    def _source(self, file: str) -> TensorSource:
        if self._open is None or self._open[0] != file:
            self._open = None  # Let go of one before the next: a file in torch's old format is held in memory.
            self._open = (file, open_file(self._index.parent / file))
        return self._open[1]

    def _take(self, file: str) -> None:
        source = self._source(file)
        held, listed = set(source.names()), {name for name, where in self._files.items() if where == file}
        if held != listed:
            odd = min(held ^ listed)
            raise FileError(
                path=self._index,
                reason=f"says that '{odd}' is {'' if odd in listed else 'not '}in '{file}', which is wrong",
                hint="fetch the index and its files again, all from one place",
            )
        for name in source.names():
            self._shapes[name], self._types[name] = source.shape(name), source.type_name(name)


def _read_index(path: Path) -> dict[str, str]:
    """Return what an index says: the file of every tensor.

    Raises:
        FileError: It cannot be read, or is not an index.
    """
    try:
        document = parse_json(read_whole(path, limit_bytes=INDEX_LIMIT_BYTES), max_values=MAX_HEADER_VALUES)
    except ValueError as error:
        raise _malformed(path, f"is not a readable index ({type(error).__name__}: {str(error)[:100]})") from error
    files = document.get("weight_map") if isinstance(document, Mapping) else None
    if not isinstance(files, Mapping) or not files or not all(isinstance(file, str) for file in files.values()):
        raise FileError(
            path=path,
            reason="has no 'weight_map' of file names by tensor, so it is not a checkpoint's index",
            hint="check that it is the file you meant; if it is, fetch the index and its files again",
        )
    if len(set(files.values())) > MAX_SHARDS:
        raise _malformed(path, f"names {len(set(files.values()))} files, expected at most {MAX_SHARDS}")
    _require_all_shards(path, set(files.values()))
    return dict(files)


def _require_all_shards(index: Path, files: set[str]) -> None:
    """Check that an index names as many files as their names say there are.

    Raises:
        FileError: It names fewer: what they hold is not a whole network.
    """
    for file in sorted(files):
        found = _SHARD.fullmatch(file)
        total = int(found["total"]) if found is not None else 1
        if total > len(files):
            raise _malformed(index, f"names {len(files)} files, one of them '{file}', expected all {total}")


def _require_inside(index: Path, file: str) -> None:
    """Check that an index names a regular file beside it.

    Raises:
        FileError: It leads elsewhere, or there is no such file.
    """
    plain = file.isprintable() and file.strip(".") and not any(mark in file for mark in "/\\:")
    if not plain or len(file.encode()) > MAX_NAME_BYTES:
        raise _malformed(index, f"names the file '{file[:80]}', expected the plain name of a file beside it")
    folder = index.parent.resolve()
    # The Hugging Face cache keeps contents in blobs/, and links to them from snapshots/REVISION/.
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    target = (folder / file).resolve()
    if target.parent not in (folder, blobs):
        raise _malformed(index, f"names the file '{file}', which is a link out of its folder")
    if not target.exists():
        raise _malformed(index, f"names the file '{file}', which is not there")
    if not target.is_file():
        raise _malformed(index, f"names '{file}', which is not a regular file")


def _malformed(index: Path, reason: str) -> FileError:
    return FileError(path=index, reason=reason, hint="fetch the index and its files again, all from one place")


def _refuse_lone_shard(path: Path) -> None:
    """Refuse a file that is named as one of several, or that an index beside it names among others.

    Raises:
        FileError: It is such a one.
    """
    found = _SHARD.fullmatch(path.name)
    if found is not None and int(found["total"]) > 1:
        raise _lone(path, f"is file {int(found['number'])} of {int(found['total'])} of one checkpoint")
    for index in sorted(path.parent.glob(f"*{INDEX_SUFFIX}")):
        try:
            files = set(_read_index(index).values())
        except FileError:
            continue  # It is not what was asked for, and may be anything.
        if path.name in files and len(files) > 1:
            raise _lone(path, f"is one file of {len(files)} that '{index.name}' names")


def _lone(path: Path, reason: str) -> FileError:
    return FileError(
        path=path,
        reason=f"{reason}, and not a whole network",
        hint=f"name the *{INDEX_SUFFIX} beside it, or the folder",
    )
