"""A safetensors file, read tensor by tensor and without torch.

The library checks the header (lengths, offsets, no gaps, no overlaps); the values are then read by byte
range. Mapped pages would count towards the process' memory until the file is closed, a plain read does not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from ticketguard.errors import FileError
from ticketguard.suspects.sources import (
    Decoder,
    decode_bfloat16,
    decode_float8_e4m3,
    decode_float8_e5m2,
    to_float32,
    unreadable_type,
)
from ticketguard.ticket import Array

# A header line is about 100 bytes a tensor, so this is room for more than 100 000 of them; the format allows 100 MB.
MAX_HEADER_BYTES = 16 * 2**20

_PLAIN_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|u1",
}  # fmt: skip
_DECODED_TYPES: dict[str, tuple[str, Decoder]] = {
    "BF16": ("<u2", decode_bfloat16),
    "F8_E5M2": ("|u1", decode_float8_e5m2),
    "F8_E4M3": ("|u1", decode_float8_e4m3),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
    type_name: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """The tensors of a safetensors file.

    Args:
        path: The file.

    Raises:
        FileError: The file cannot be read, is truncated, or is no safetensors file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        try:
            self._entries = _read_header(self._path)
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def names(self) -> tuple[str, ...]:
        """Return the names in the order of their bytes in the file."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._entries[name].shape

    def type_name(self, name: str) -> str:
        """Return a tensor's element type, such as F32 or BF16."""
        return self._entries[name].type_name

    def read(self, name: str) -> Array:
        """Return one tensor; nothing of the file stays in memory besides it."""
        entry = self._entries[name]
        stored_type, decoder = _DECODED_TYPES.get(entry.type_name, (_PLAIN_TYPES.get(entry.type_name), None))
        if stored_type is None:
            raise unreadable_type(name, entry.type_name)
        stored = np.empty(math.prod(entry.shape), dtype=stored_type)
        if stored.size:
            self._fill(stored, entry)
        stored = stored.reshape(entry.shape)
        if decoder is not None:
            return decoder(stored)
        # What was just read belongs to nobody else, so the common case needs no second copy.
        return stored if entry.type_name == "F32" else to_float32(stored, name=name)

    def _fill(self, stored: Array, entry: _Entry) -> None:
        try:
            with self._path.open("rb", buffering=0) as stream:
                stream.seek(entry.start)
                view = memoryview(stored.view(np.uint8).data)
                while view:
                    count = stream.readinto(view)
                    if not count:
                        raise FileError(
                            path=self._path,
                            reason="became shorter while it was read",
                            hint="use a copy that is at rest",
                        )
                    view = view[count:]
        except OSError as error:
            raise _unreadable(self._path, error) from error


def _unreadable(path: Path, error: OSError) -> FileError:
    return FileError(path=path, reason=f"cannot be read ({error.strerror})", hint="check its name and permissions")


def _read_header(path: Path) -> dict[str, _Entry]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > MAX_HEADER_BYTES:
            # Any other kind of file reads as a length far beyond its own.
            foreign = length > os.fstat(stream.fileno()).st_size
            raise FileError(
                path=path,
                reason="is neither a safetensors nor a torch file"
                if foreign
                else f"declares a header of {length} bytes, expected at most {MAX_HEADER_BYTES}",
                hint="expected a safetensors or torch checkpoint; check that it is the file you meant",
            )
        header_bytes = stream.read(length)
    try:
        with safetensors.safe_open(path, framework="numpy") as checked:
            known = set(checked.keys())
        header = json.loads(header_bytes, object_pairs_hook=_without_duplicates)
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise FileError(
            path=path,
            reason=f"is no whole safetensors file ({error})",
            hint="expected a safetensors or torch checkpoint; fetch it again or check that it is the file you meant",
        ) from error
    header.pop("__metadata__", None)
    if set(header) != known:
        raise FileError(path=path, reason="has a header that reads two ways", hint="use another copy")
    entries = {name: _entry(fields, data_start=8 + length) for name, fields in header.items()}
    return dict(sorted(entries.items(), key=lambda item: (item[1].start, item[0])))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return fields


def _entry(fields: dict[str, Any], *, data_start: int) -> _Entry:
    start, stop = fields["data_offsets"]
    return _Entry(
        type_name=fields["dtype"], shape=tuple(fields["shape"]), start=data_start + start, stop=data_start + stop
    )
