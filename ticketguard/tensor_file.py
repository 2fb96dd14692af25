"""The container of tickets and references: a safetensors file whose header names nothing twice and is bounded.

The header is read here first, before any value is: a foreign file is refused at the cost of reading its header.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from ticketguard.errors import ConfigurationError, FileError, TensorError, UnknownVersionError
from ticketguard.files import open_at_once, reading
from ticketguard.strict_json import parse_json

Array: TypeAlias = npt.NDArray[Any]

METADATA_KEY = "ticketguard"
# Room for two billion float32 weights with the weights they are trained from.
TICKET_LIMIT_BYTES = 16 * 1024**3
# Some 150 bytes a tensor: room for 25 000 of them. safetensors itself allows 100 MB.
HEADER_LIMIT_BYTES = 4 * 1024**2
MAX_HEADER_VALUES = 500_000
# Weights have up to five, and numpy's own limit is 64.
MAX_AXES = 32
LENGTH_BYTES = 8
# numpy's types; tickets do not have others (bfloat16, float8): their weights are what numpy computes with.
ELEMENT_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U64": "<u8", "I32": "<i4", "U32": "<u4",
    "I16": "<i2", "U16": "<u2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1", "C64": "<c8",
}  # fmt: skip
DAMAGED = "the file is damaged; use another copy"


def write_tensors(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytes:
    """Serialise named arrays and our *metadata* as safetensors.

    Raises:
        ConfigurationError: Names and metadata are longer than `parse_tensors` reads, or hold what JSON does not.
    """
    try:
        document = json.dumps(metadata, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"options or history of this ticket cannot be written ({error}): plain finite numbers, text, lists and "
            "mappings can"
        ) from error
    content = safetensors.numpy.save(dict(tensors), metadata={METADATA_KEY: document})
    if (size := int.from_bytes(content[:LENGTH_BYTES], "little")) > HEADER_LIMIT_BYTES:
        raise ConfigurationError(
            f"names, shapes, options and history of this ticket take {size} bytes, expected at most "
            f"{HEADER_LIMIT_BYTES}, which is what can be read again: leave some of its history out"
        )
    return content


def parse_tensors(content: bytes, *, what: str, versions: tuple[str, ...]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Undo `write_tensors`. The arrays are views of *content*, not to be written to.

    Args:
        content: The file's bytes.
        what: What error messages call it.
        versions: The version markers that are read.

    Raises:
        FileError: The bytes are not a safetensors file with our metadata.
        UnknownVersionError: The version is unknown.
        TensorError: A tensor has a type or shape that no ticket has.
    """
    size = int.from_bytes(content[:LENGTH_BYTES], "little")
    header = _parse_header(content[LENGTH_BYTES : LENGTH_BYTES + min(size, HEADER_LIMIT_BYTES)], size, what=what)
    metadata = _our_metadata(header, what=what, versions=versions)
    del header["__metadata__"]
    for name, entry in header.items():
        _check_entry(name, entry, what=what)
    try:
        return _views(content, header, start=LENGTH_BYTES + size), metadata
    except ValueError as error:
        raise _not_whole(what, error) from error


def read_tensors(path: str | os.PathLike[str], *, versions: tuple[str, ...]) -> bytes:
    """Read a file that `parse_tensors` is for, its header first, and no byte more than that header asks for.

    Raises:
        FileError: It cannot be read, is not a file, or its header is not one of ours.
        UnknownVersionError: The version is unknown.
    """
    what = os.fspath(path)
    with reading(path), open(path, "rb", opener=open_at_once) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise FileError(path=path, reason="is a folder, pipe or device", hint="expected a ticket file")
        size = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        header = _parse_header(stream.read(min(size, HEADER_LIMIT_BYTES)), size, what=what)
        _our_metadata(header, what=what, versions=versions)
        if found.st_size > TICKET_LIMIT_BYTES:
            raise FileError(
                path=path,
                reason=f"has {found.st_size} bytes, expected at most {TICKET_LIMIT_BYTES}",
                hint="check that it is the file you meant",
            )
        stream.seek(0)
        return stream.read(found.st_size)


def is_shape(value: object) -> bool:
    """Say whether *value*, from JSON, is a shape that numpy can make: up to `MAX_AXES` sizes from 0, in a list."""
    return (
        isinstance(value, list)
        and len(value) <= MAX_AXES
        and all(type(size) is int and size >= 0 for size in value)
        # numpy multiplies the sizes that are not zero, whatever the others are.
        and math.prod(size for size in value if size) < 2**60
    )


def _parse_header(content: bytes, size: int, *, what: str) -> dict[str, Any]:
    try:
        if size > HEADER_LIMIT_BYTES:
            # Any other kind of file reads as a length far beyond its own.
            raise ValueError(f"its header would have {size} bytes, expected at most {HEADER_LIMIT_BYTES}")
        if len(content) < max(size, 1):
            raise ValueError("it ends inside its header")
        header = parse_json(content, max_values=MAX_HEADER_VALUES)
    except ValueError as error:
        raise _not_whole(what, error) from error
    if not isinstance(header, dict):
        raise _not_whole(what, ValueError("its header is not an object"))
    return header


def _our_metadata(header: Mapping[str, Any], *, what: str, versions: tuple[str, ...]) -> dict[str, Any]:
    texts = header.get("__metadata__")
    text = texts.get(METADATA_KEY) if isinstance(texts, dict) else None
    if not isinstance(text, str):
        raise FileError(
            path=what,
            reason="is a safetensors file without ticketguard's metadata",
            hint="'ticketguard import' turns a sparse checkpoint into a ticket",
        )
    try:
        metadata = parse_json(text.encode(), max_values=MAX_HEADER_VALUES)
    except ValueError as error:
        raise FileError(path=what, reason=f"has metadata that {str(error)[:200]}", hint=DAMAGED) from error
    if not isinstance(metadata, dict) or metadata.get("version") not in versions:
        found = metadata.get("version") if isinstance(metadata, dict) else None
        raise UnknownVersionError(what=what, found=found, known=versions)
    return metadata


def _check_entry(name: str, entry: object, *, what: str) -> None:
    if not isinstance(entry, dict):
        raise _not_whole(what, ValueError("the entry of a tensor is not an object"))
    if not isinstance(entry.get("dtype"), str) or entry["dtype"] not in ELEMENT_TYPES:
        raise TensorError(
            name=name,
            reason=f"has type {str(entry.get('dtype'))[:40]}, expected one of {', '.join(sorted(ELEMENT_TYPES))}",
            hint="a ticket's weights are plain numbers; convert them, or use another copy",
        )
    if not is_shape(entry.get("shape")):
        raise TensorError(
            name=name,
            reason=f"has shape {str(entry.get('shape'))[:80]}, expected up to {MAX_AXES} sizes that memory could hold",
            hint=DAMAGED,
        )


def _views(content: bytes, header: Mapping[str, Any], *, start: int) -> dict[str, Array]:
    """Find each tensor's bytes, which follow one another from *start* to the end without a gap.

    Raises:
        ValueError: They do not, or do not fit a type and shape.
    """
    tensors: dict[str, Array] = {}
    end = start
    for begin, stop, name in sorted((*_offsets(name, entry), name) for name, entry in header.items()):
        dtype, shape = np.dtype(ELEMENT_TYPES[header[name]["dtype"]]), header[name]["shape"]
        count = math.prod(shape)
        if start + begin != end or stop - begin != count * dtype.itemsize or start + stop > len(content):
            raise ValueError(f"the bytes of tensor {name[:80]!r} do not fit its type and shape, or its neighbours")
        values = np.frombuffer(content, dtype=dtype, count=count, offset=end) if count else np.empty(0, dtype=dtype)
        tensors[name] = values.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
        end = start + stop
    if end != len(content):
        raise ValueError(f"it has {len(content)} bytes, expected {end}")
    return tensors


def _offsets(name: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    found = entry.get("data_offsets")
    if sorted(entry) != ["data_offsets", "dtype", "shape"] or not isinstance(found, list) or len(found) != 2:
        raise ValueError(f"the entry of tensor {name[:80]!r} does not have a type, a shape and two offsets")
    if not all(type(offset) is int and offset >= 0 for offset in found):
        raise ValueError(f"tensor {name[:80]!r} does not start and end at two offsets")
    return found[0], found[1]


def _not_whole(what: str, error: Exception) -> FileError:
    return FileError(
        path=what,
        reason=f"is not a whole safetensors file ({str(error)[:200]})",
        hint="check that it is the file you meant",
    )
