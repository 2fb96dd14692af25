"""What the instructions of a torch checkpoint may name and call: a closed list, each entry of which stands for itself.

A call makes a dict, a tuple, or the place of a tensor; nothing of torch is looked up, and nothing can widen the list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from ticketguard.checkpoints.stored_tensors import MAX_AXES, is_count

STORAGE_TYPES = {
    "torch DoubleStorage": "float64",
    "torch FloatStorage": "float32",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
    "torch ComplexFloatStorage": "complex64",
    "torch ComplexDoubleStorage": "complex128",
    "torch.storage UntypedStorage": "uint8",
}
_ELEMENT_TYPES = {
    f"torch {name}": name
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex32", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
    )
}


class RefusedInstructionError(Exception):
    """The instructions build more than tensors and containers; the text names what."""


class DamagedInstructionsError(Exception):
    """The instructions make no sense, or there are too many of them."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Where a tensor's elements are stored.

    Attributes:
        key: The storage's name in the file.
        type_name: Its element type, as torch calls it.
        elements: How many there are.
    """

    key: str
    type_name: str
    elements: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A tensor: a strided view of a storage, in elements of its own type; not yet compared with the storage's size.

    Attributes:
        storage: What it is a view of.
        type_name: Its element type, as torch calls it.
        offset: Elements before its first.
        shape: Its shape.
        strides: Elements to the next one along each axis.
    """

    storage: Storage
    type_name: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Inert:
    """Stands for a value that nothing here needs: bytes, a set, a device, a random generator's state."""


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """Stands for something in a library that instructions name.

    Attributes:
        name: Its module and its own name, with a space between.
    """

    name: str


INERT: Final = Inert()


def ordered_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Make a dict from nothing, or from pairs as Python 2 wrote them."""
    (pairs,) = arguments or ([],)
    return {key: value for key, value in pairs if isinstance(key, str)}


def _empty_dict(_: tuple[Any, ...]) -> dict[str, Any]:
    # A Counter: in the states of schedulers, never of a network.
    return {}


def _inert(_: tuple[Any, ...]) -> Inert:
    return INERT


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    (sizes,) = arguments
    if not isinstance(sizes, tuple):
        raise TypeError("a size is not a tuple")
    return sizes


def _parameter(arguments: tuple[Any, ...]) -> View:
    if not isinstance(arguments[0], View):
        raise TypeError("a parameter is not a tensor")
    return arguments[0]


def _tensor(arguments: tuple[Any, ...]) -> View:
    # What follows says whether gradients are wanted, and a hint that the values are to be negated or conjugated.
    if any(arguments[6:7]):
        raise RefusedInstructionError("a tensor that is negated or conjugated when it is read")
    return _view(arguments, arguments[0].type_name if isinstance(arguments[0], Storage) else None)


def _tensor_of_type(arguments: tuple[Any, ...]) -> View:
    if any(arguments[7:8]):
        raise RefusedInstructionError("a tensor that is negated or conjugated when it is read")
    named = arguments[6]
    return _view(arguments, _ELEMENT_TYPES.get(named.name) if isinstance(named, Name) else None)


def _view(arguments: tuple[Any, ...], type_name: str | None) -> View:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or type_name is None or not is_count(offset):
        raise TypeError("a tensor is not a view of a storage")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise TypeError("a tensor's shape and strides are not two tuples of one length")
    if len(shape) > MAX_AXES:
        raise DamagedInstructionsError(f"a tensor has {len(shape)} axes, expected at most {MAX_AXES}")
    if not all(map(is_count, (*shape, *strides))):
        raise TypeError("a tensor's shape or strides are not sizes")
    return View(storage=storage, type_name=type_name, offset=offset, shape=shape, strides=strides)


BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections OrderedDict": ordered_dict,
    "collections Counter": _empty_dict,
    "torch Size": _size,
    "torch device": _inert,
    "torch.nn.parameter Parameter": _parameter,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_type,
}
NAMES = {name: Name(name) for name in (*BUILDERS, *STORAGE_TYPES, *_ELEMENT_TYPES)}
