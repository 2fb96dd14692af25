"""A safetensors file, read tensor by tensor and without torch.

The header is parsed here alone, once, and by the rules of the format (lengths, offsets, no gaps, no overlaps), so that
there is no second reading of it that could differ: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import math
import os
from typing import Any

from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.checkpoints.stored_tensors import (
    BFLOAT16,
    FLOAT8_E4M3,
    FLOAT8_E5M2,
    ElementType,
    StoredTensor,
    StoredTensors,
    is_count,
    require_possible_shape,
)
from ticketguard.errors import FileError
from ticketguard.strict_json import parse_json

# A header line is about 100 bytes a tensor; the format allows 100 MB.
MAX_HEADER_BYTES = 16 * 2**20
# An entry takes about ten: one object, two lists, and commas. They, not the header's length, decide what JSON costs.
MAX_HEADER_VALUES = 2**19

_PLAIN_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|u1",
}  # fmt: skip
_DECODED_TYPES = {"BF16": BFLOAT16, "F8_E5M2": FLOAT8_E5M2, "F8_E4M3": FLOAT8_E4M3}
_UNREADABLE_TYPES = {
    "C64": 64, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_TYPES = {
    **{name: ElementType(name=name, bits=8 * int(code[2]), stored=code) for name, code in _PLAIN_TYPES.items()},
    **{
        name: ElementType(name=name, bits=8 * int(code[2]), stored=code, decode=decode)
        for name, (code, decode) in _DECODED_TYPES.items()
    },
    **{name: ElementType(name=name, bits=bits) for name, bits in _UNREADABLE_TYPES.items()},
}
_LENGTH_BYTES = 8
_FIELDS = ("dtype", "shape", "data_offsets")
_METADATA = "__metadata__"


class SafetensorsFile(StoredTensors):
    """The tensors of a safetensors file.

    Args:
        file: The file, or its path.

    Raises:
        FileError: The file cannot be read, is truncated, or is not a safetensors file.
        TensorError: A shape is impossible.
    """

    def __init__(self, file: SteadyFile | str | os.PathLike[str]) -> None:
        opened = file if isinstance(file, SteadyFile) else SteadyFile(file)
        super().__init__(opened, _read_tensors(opened))


def _read_tensors(file: SteadyFile) -> dict[str, StoredTensor]:
    length = int.from_bytes(file.read(0, _LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        # Any other kind of file reads as a length far beyond its own.
        foreign = length > file.size
        raise FileError(
            path=file.path,
            reason="is neither a safetensors nor a torch file"
            if foreign
            else f"declares a header of {length} bytes, expected at most {MAX_HEADER_BYTES}",
            hint="expected a safetensors or torch checkpoint; check that it is the file you meant",
        )
    content = file.read(_LENGTH_BYTES, length)
    try:
        if len(content) != length:
            raise ValueError("it ends inside its header")
        return _tensors(_header(content), data_start=_LENGTH_BYTES + length, file_size=file.size)
    except ValueError as error:
        raise FileError(
            path=file.path,
            reason=f"is not a whole safetensors file ({str(error)[:200]})",
            hint="expected a safetensors or torch checkpoint; fetch it again or check that it is the file you meant",
        ) from error


def _header(content: bytes) -> dict[str, Any]:
    if not content.startswith(b"{"):
        raise ValueError("its header does not start with a brace")
    try:
        header: dict[str, Any] = parse_json(content, max_values=MAX_HEADER_VALUES)  # An object: it starts as one.
    except ValueError as error:
        raise ValueError(f"its header {error}") from error
    return header


def _tensors(header: dict[str, Any], *, data_start: int, file_size: int) -> dict[str, StoredTensor]:
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts by name")
    placed = sorted((*_range(name, fields), name) for name, fields in header.items())
    tensors: dict[str, StoredTensor] = {}
    position = 0
    for start, stop, name in placed:
        if start != position:
            raise ValueError(f"tensor {name[:80]!r} starts at byte {start} of the values, expected {position}")
        fields = header[name]
        require_possible_shape(name, fields["shape"])
        element = _TYPES[fields["dtype"]]
        if math.prod(fields["shape"]) * element.bits != 8 * (stop - start):
            raise ValueError(f"tensor {name[:80]!r} has {stop - start} bytes, which do not fit its shape and type")
        tensors[name] = StoredTensor(element=element, shape=tuple(fields["shape"]), start=data_start + start)
        position = stop
    if data_start + position != file_size:
        raise ValueError(f"it has {file_size} bytes, expected {data_start + position}")
    return tensors


def _range(name: str, fields: object) -> tuple[int, int]:
    """Check an entry's fields, and return where its bytes start and stop."""
    if not isinstance(fields, dict) or sorted(fields) != sorted(_FIELDS):
        raise ValueError(f"the entry of tensor {name[:80]!r} does not have the fields {', '.join(_FIELDS)}")
    type_name, shape, offsets = (fields[field] for field in _FIELDS)
    if not isinstance(type_name, str) or type_name not in _TYPES:
        shown = repr(type_name[:40]) if isinstance(type_name, str) else type(type_name).__name__
        raise ValueError(f"tensor {name[:80]!r} has the unknown type {shown}")
    if not isinstance(shape, list) or not all(map(is_count, shape)):
        raise ValueError(f"the shape of tensor {name[:80]!r} is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)) or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {name[:80]!r} does not start and end at two offsets in the file")
    return offsets[0], offsets[1]
