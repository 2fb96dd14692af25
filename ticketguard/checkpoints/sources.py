"""Where a checkpoint's tensors come from: the seam between `Checkpoint` and the file formats."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ticketguard.errors import TensorError
from ticketguard.ticket import Array


class TensorSource(Protocol):
    """Named tensors that are read one at a time."""

    def names(self) -> tuple[str, ...]:
        """Return the tensors' names, in the order they are stored in."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading its values."""
        ...

    def type_name(self, name: str) -> str:
        """Return a tensor's element type, as its format calls it."""
        ...

    def read(self, name: str) -> Array:
        """Return a new array: float32, or a wider floating type if it is stored so; integers and booleans as stored.

        Raises:
            FileError: The file is gone or has changed.
            TensorError: The element type cannot be read.
        """
        ...


class MappingSource:
    """Tensors that are in memory: a state dict of numpy arrays or torch tensors.

    Args:
        tensors: Arrays or tensors by name; they are copied when read, never changed.

    Raises:
        TensorError: A value is not a tensor, or a name is not text.
    """

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        for name, tensor in tensors.items():
            if not isinstance(name, str):
                raise TensorError(
                    name=repr(name),
                    reason=f"has a {type(name).__name__} for a name, expected text",
                    hint="give a state dict: names and tensors, nothing else",
                )
            if not hasattr(tensor, "shape") or not hasattr(tensor, "dtype"):
                raise TensorError(
                    name=str(name),
                    reason=f"is a {type(tensor).__name__}, expected an array or tensor",
                    hint="give a state dict: names and tensors, nothing else",
                )
        self._tensors = dict(tensors)

    def names(self) -> tuple[str, ...]:
        """Return the names in the mapping's order."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(int(size) for size in self._tensors[name].shape)

    def type_name(self, name: str) -> str:
        """Return a tensor's element type."""
        return str(self._tensors[name].dtype).removeprefix("torch.")

    def read(self, name: str) -> Array:
        """Return a copy, of no floating type that is narrower than float32."""
        tensor = self._tensors[name]
        if isinstance(tensor, np.ndarray):
            return _widened(tensor, name=name)
        try:
            # numpy has no bfloat16 or float8, so torch widens such tensors before they are handed over.
            is_narrow = tensor.is_floating_point() and tensor.element_size() < np.dtype(np.float32).itemsize
            return _widened((tensor.detach().cpu().float() if is_narrow else tensor.detach().cpu()).numpy(), name=name)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise unreadable_type(name, self.type_name(name)) from error


def _widened(array: Array, *, name: str) -> Array:
    if array.dtype.kind not in "fiub":
        raise unreadable_type(name, str(array.dtype))
    if array.dtype == np.float16:
        return decode_float16(array.view(np.uint16))
    return np.array(array)


def to_float32(array: Array, *, name: str) -> Array:
    """Return *array* in float32 if it is floating, else as it is: the values that a network computes with.

    Raises:
        TensorError: All values that are not zero are too small for float32.
    """
    if array.dtype.kind != "f" or array.dtype == np.float32:
        return array
    with np.errstate(over="ignore", under="ignore"):
        # Too large for float32 becomes infinite, and infinity is refused by name. Too small becomes zero.
        result = np.array(array, dtype=np.float32)
    # Beside others, what is so small is nothing: a thief can fill holes with it. A layer of nothing else was scaled.
    if array.dtype.itemsize > result.dtype.itemsize and not result.any() and array.any():
        raise TensorError(
            name=name,
            reason="has values that are too small for float32",
            hint="multiply it by a power of two; behind a rectifier or a normalisation another layer can be divided",
        )
    return result


def unreadable_type(name: str, type_name: str) -> TensorError:
    """Return the error for an element type that has no float32 reading."""
    return TensorError(
        name=name,
        reason=f"has type {type_name}, expected a floating-point type",
        hint="a quantised or packed model has to be dequantised first",
    )


Decoder = Callable[[Array], Array]


def decode_bfloat16(stored: Array) -> Array:
    """Widen bfloat16, given as uint16: the upper half of a float32's bits."""
    # What numpy computes from an array of no axes is a scalar, and none of its arrays.
    return np.asarray((stored.astype(np.uint32) << np.uint32(16)).view(np.float32))


def decode_float16(stored: Array) -> Array:
    """Widen float16, given as uint16: looked up, in two thirds of the time that converting takes."""
    return np.asarray(_float16_values()[stored])


@functools.cache
def _float16_values() -> Array:
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def decode_float8_e5m2(stored: Array) -> Array:
    """Widen float8 E5M2, given as uint8: the upper half of a float16's bits."""
    return decode_float16(stored.astype(np.uint16) << np.uint16(8))


def decode_float8_e4m3(stored: Array) -> Array:
    """Widen float8 E4M3 (finite, NaN = all ones), given as uint8.

    Micikevicius et al., "FP8 formats for deep learning" (arXiv 2209.05433), table 1: exponent bias 7.
    """
    codes = np.arange(256)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent, fraction = codes >> 3 & 0xF, (codes & 0x7) / 8.0
    values = sign * np.where(exponent == 0, np.ldexp(fraction, -6), np.ldexp(1.0 + fraction, exponent - 7))
    values[(codes & 0x7F) == 0x7F] = np.nan
    return np.asarray(values.astype(np.float32)[stored])
