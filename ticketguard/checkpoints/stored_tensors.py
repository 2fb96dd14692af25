"""A tensor as a file stores it: its element type, its place, its strides; checked, then read by byte range."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ticketguard.checkpoints.sources import (
    Decoder,
    decode_bfloat16,
    decode_float8_e4m3,
    decode_float8_e5m2,
    decode_float16,
    unreadable_type,
)
from ticketguard.checkpoints.steady_file import SteadyFile
from ticketguard.errors import FileError, TensorError
from ticketguard.ticket import Array

MAX_AXES = 64  # numpy's limit, and torch's.
# A tensor without elements takes no room in its file, so the file does not bound its other axes.
MAX_EMPTY_SIZE = 2**24
# The largest language models have some thousands in each file; what is done for each name adds up to seconds here.
MAX_TENSORS = 50_000
# Names may share what is stored (tied weights). Reading every name costs at most so many times the file; a small file
# may cost more, because there the names outweigh the values.
MAX_REUSE = 16
MIN_BUDGET_BYTES = 64 * 2**20
# A byte of a bitmask (compressed-tensors) stands for eight weights; honest ones are no larger than their file.
BITMASK, BYTES_A_BITMASK_BYTE = ".bitmask", MAX_REUSE


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ElementType:
    """An element type of a file format.

    Attributes:
        name: What the format calls it.
        bits: Its size.
        stored: The numpy type its bytes are read as; None if it cannot be read.
        decode: Turns an array of these into values; None if numpy knows the type.
    """

    name: str
    bits: int
    stored: str | None = None
    decode: Decoder | None = None


BFLOAT16 = ("<u2", decode_bfloat16)
FLOAT8_E5M2 = ("|u1", decode_float8_e5m2)
FLOAT8_E4M3 = ("|u1", decode_float8_e4m3)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor's place in its file.

    Attributes:
        element: Its element type.
        shape: Its shape.
        strides: Elements to the next one along each axis; None if they lie in C order without gaps.
        start: Where its first element's bytes start in the file.
    """

    element: ElementType
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    start: int

    def span(self) -> int:
        """Return the number of elements from the first to the last in the file, both included."""
        if self.strides is None or 0 in self.shape:
            return math.prod(self.shape)
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number from 0 to 2^63 - 1; booleans and floats are not."""
    return type(value) is int and 0 <= value < 2**63


def require_possible_shape(name: str, shape: Sequence[int]) -> None:
    """Refuse shapes that no array can have.

    Raises:
        TensorError: There are too many axes, or a tensor without elements is huge along another axis.
    """
    if len(shape) > MAX_AXES:
        raise TensorError(
            name=name,
            reason=f"has {len(shape)} axes, expected at most {MAX_AXES}",
            hint="the file is damaged or hostile; use another copy",
        )
    if 0 in shape and math.prod(size for size in shape if size) > MAX_EMPTY_SIZE:
        raise TensorError(
            name=name,
            reason=f"has no elements, and a shape of {tuple(shape)}",
            hint="the file is damaged or hostile; use another copy",
        )


def require_affordable(file: SteadyFile, tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse a file whose tensors, read one after the other, cost far more than the file's own bytes.

    Raises:
        TensorError: One tensor is many times as large as the file.
        FileError: All of them together are, or they are too many.
    """
    if len(tensors) > MAX_TENSORS:
        raise FileError(
            path=file.path,
            reason=f"has {len(tensors)} tensors, expected at most {MAX_TENSORS}",
            hint="check that it is the file you meant, or save its layers in several files",
        )
    budget, total = max(MAX_REUSE * file.size, MIN_BUDGET_BYTES), 0
    for name, tensor in tensors.items():
        elements = math.prod(tensor.shape)
        # What is read widens to float32 at least; a view with gaps is read with its gaps.
        widened = BYTES_A_BITMASK_BYTE if name.endswith(BITMASK) else max(4, tensor.element.bits // 8)
        cost = max(elements, tensor.span()) * widened
        # Strides of zero make a tensor of any size from one number.
        if cost > budget:
            raise TensorError(
                name=name,
                reason=f"has {elements} elements in a file of {file.size} bytes",
                hint="the file is damaged or hostile; save the plain state dict",
            )
        total += cost
    if total > budget:
        raise FileError(
            path=file.path,
            reason=f"has {len(tensors)} tensors that take {total} bytes, stored in {file.size}",
            hint="too many names share the same values; save each tensor once",
        )


class StoredTensors:
    """The tensors of one file, whatever format says where they lie.

    Args:
        file: The file.
        tensors: Each tensor's place, by name, in the order that names are listed in.

    Raises:
        TensorError: One tensor costs many times the file.
        FileError: All of them together do, or they are too many.
    """

    def __init__(self, file: SteadyFile, tensors: Mapping[str, StoredTensor]) -> None:
        require_affordable(file, tensors)
        self._file = file
        self._tensors = tensors

    def names(self) -> tuple[str, ...]:
        """Return the names, in the format's order."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._tensors[name].shape

    def type_name(self, name: str) -> str:
        """Return a tensor's element type, as the format calls it."""
        return self._tensors[name].element.name

    def read(self, name: str) -> Array:
        """Return one tensor; nothing of the file stays in memory besides it."""
        return read_tensor(self._file, self._tensors[name], name=name)


def read_tensor(file: SteadyFile, tensor: StoredTensor, *, name: str) -> Array:
    """Return a new array: float32, or float64 if it is stored as that; integers and booleans as they are stored.

    Nothing of the file stays in memory besides it.

    Raises:
        FileError: The file cannot be read or has changed.
        TensorError: The element type cannot be read.
    """
    element = tensor.element
    if element.stored is None:
        raise unreadable_type(name, element.name)
    values = np.empty(tensor.span(), dtype=element.stored)
    file.fill(values, offset=tensor.start)
    if tensor.strides is None or not values.size:
        values = values.reshape(tensor.shape)
    else:
        # The stride of an axis of length one is never used, and may be any number.
        steps = [
            stride * values.itemsize if size > 1 else 0
            for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        ]
        values = np.array(np.ndarray(tensor.shape, values.dtype, buffer=values, strides=steps), order="C")
    if element.decode is not None:
        return element.decode(values)
    # What was just read belongs to nobody else, so the common case needs no second copy.
    return decode_float16(values.view(np.uint16)) if values.dtype == np.float16 else values
