"""The instructions of torch.save, followed to numbers, texts, containers and places of tensors, and nothing else.

A pickle is a program. This is a machine for the few instructions that a state dict needs: what it names is looked up
in a closed list and stands for itself, what it calls is one of a handful of functions here, and what it would set
on an object is dropped. Nothing can widen the list, and no step costs more than its own length.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable, Sequence
from typing import IO, Any, Final

from ticketguard.suspects.stored_tensors import MAX_AXES, is_count

# A tensor takes about 30 and every optimiser's two moments as many again: room for some 10 000 of them with Adam.
MAX_INSTRUCTIONS = 2**20

_STORAGE_TYPES = {
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


class _Inert:
    """Stands for a value that nothing here needs: bytes, a set, a device, a random generator's state."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """Stands for something in a library that instructions name."""

    name: str


INERT: Final = _Inert()


class Interpreter:
    """Follows the pickles of one file, one after the other, within one budget of instructions.

    Attributes:
        storages: Every storage named so far, by key.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._budget = MAX_INSTRUCTIONS
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        """Follow one pickle to its end, and return what it describes: texts, numbers, containers, `View`, or inert.

        Raises:
            RefusedInstructionError: It builds more than tensors and containers.
            DamagedInstructionsError: It makes no sense, ends early, or does not end.
        """
        self._stack, self._marks, self._memo = [], [], {}
        try:
            code = b""
            while code != _STOP:
                self._spend(1)
                code = stream.read(1)
                if code not in _INSTRUCTIONS:
                    raise RefusedInstructionError(f"the instruction {code!r}") if code else EOFError
                # Looked up first: reading the argument of a foreign instruction may cost more than its length.
                step, read_argument = _INSTRUCTIONS[code]
                step(self, read_argument(stream) if read_argument else None)
            (value,) = self._stack
            if self._marks:
                raise ValueError("a mark is left")
        except (ValueError, EOFError, LookupError, TypeError, OverflowError) as error:
            raise DamagedInstructionsError("its instructions are damaged") from error
        return value

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise DamagedInstructionsError(f"it has more than {MAX_INSTRUCTIONS} instructions")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        # What lies under a mark belongs to whoever set it.
        if self._marks and self._marks[-1] == len(self._stack):
            raise ValueError("nothing is left above the mark")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _pop_many(self, count: int) -> tuple[Any, ...]:
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise ValueError("too little is left above the mark")
        values = tuple(self._stack[start:])
        del self._stack[start:]
        return values

    def _drop_to_mark(self) -> None:
        self._pop_to_mark()

    def _replace_to_mark(self) -> None:
        self._pop_to_mark()
        self._push(INERT)

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _drop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _remember(self, index: int | None) -> None:
        # Numbers beyond what could be counted to would only serve to make look-ups slow.
        index = len(self._memo) if index is None else index
        if index > MAX_INSTRUCTIONS:
            raise ValueError("a memo is numbered out of turn")
        self._memo[index] = self._stack[-1]

    def _recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _extend(self, values: Sequence[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif target is not INERT:
            raise TypeError("values are added to something that is not a list")

    def _update(self, values: Sequence[Any]) -> None:
        """Set a dict's items, those with texts for keys: no others are needed, and tuples can take for ever to hash."""
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise TypeError("items are set on something that is not a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, str):
                target[key] = value

    def _name(self, name: str) -> None:
        if name not in _NAMES:
            raise RefusedInstructionError(name.replace(" ", ".", 1))
        self._stack.append(_NAMES[name])

    def _name_from_stack(self) -> None:
        module, attribute = self._pop_many(2)
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise TypeError("a name is not a text")
        self._name(f"{module} {attribute}")

    def _call(self) -> None:
        function, arguments = self._pop_many(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise TypeError("something is called that is not a name")
        builder = _BUILDERS.get(function.name)
        if builder is None:
            raise RefusedInstructionError(f"a call of {function.name.replace(' ', '.')}")
        if builder is _ordered_dict and arguments:
            self._spend(len(arguments[0]))
        self._push(builder(arguments))

    def _set_state(self) -> None:
        """Drop what would be set on an object: a state dict's _metadata, or an attack."""
        self._pop()
        if not isinstance(self._stack[-1], dict) and self._stack[-1] is not INERT:
            raise RefusedInstructionError("the instruction BUILD")

    def _storage(self) -> None:
        reference = self._pop()
        # The old format writes a sixth part, which is None unless one storage is a part of another.
        if isinstance(reference, tuple) and len(reference) == 6 and reference[5] is None:
            reference = reference[:5]
        match reference:
            case ("storage", _Name(name), str(key), str(), elements) if name in _STORAGE_TYPES and is_count(elements):
                found = Storage(key=key, type_name=_STORAGE_TYPES[name], elements=elements)
            case _:
                raise RefusedInstructionError("a reference that is not a tensor's storage")
        if self.storages.setdefault(key, found) != found:
            raise ValueError("a storage is described in two ways")
        self._push(found)


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    (pairs,) = arguments or ([],)
    return {key: value for key, value in pairs if isinstance(key, str)}


def _empty_dict(_: tuple[Any, ...]) -> dict[str, Any]:
    # A Counter or defaultdict: in the states of optimisers and schedulers, never of a network.
    return {}


def _inert(_: tuple[Any, ...]) -> _Inert:
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
    return _view(arguments, _ELEMENT_TYPES.get(named.name) if isinstance(named, _Name) else None)


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


_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections OrderedDict": _ordered_dict,
    "collections Counter": _empty_dict,
    "collections defaultdict": _empty_dict,
    "torch Size": _size,
    "torch device": _inert,
    "torch.nn.parameter Parameter": _parameter,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_type,
}
_NAMES = {name: _Name(name) for name in (*_BUILDERS, *_STORAGE_TYPES, *_ELEMENT_TYPES)}

_ARGUMENT = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
)
_UNUSED_ARGUMENT = ("LONG4", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
_Step = Callable[[Interpreter, Any], None]
# The binary instructions of protocols 2 to 5, but for those that make objects. Anything else is refused.
_STEPS: dict[str, _Step] = {
    **dict.fromkeys(_ARGUMENT, Interpreter._push),
    **dict.fromkeys(_UNUSED_ARGUMENT, lambda machine, _: machine._push(INERT)),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), Interpreter._remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), Interpreter._recall),
    "NONE": lambda machine, _: machine._push(None),
    "NEWTRUE": lambda machine, _: machine._push(True),
    "NEWFALSE": lambda machine, _: machine._push(False),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "EMPTY_TUPLE": lambda machine, _: machine._push(()),
    "EMPTY_SET": lambda machine, _: machine._push(INERT),
    "MARK": lambda machine, _: machine._mark(),
    "POP": lambda machine, _: machine._drop(),
    "POP_MARK": lambda machine, _: machine._drop_to_mark(),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._pop_to_mark())),
    "TUPLE1": lambda machine, _: machine._push(machine._pop_many(1)),
    "TUPLE2": lambda machine, _: machine._push(machine._pop_many(2)),
    "TUPLE3": lambda machine, _: machine._push(machine._pop_many(3)),
    "FROZENSET": lambda machine, _: machine._replace_to_mark(),
    "APPEND": lambda machine, _: machine._extend(machine._pop_many(1)),
    "APPENDS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "SETITEM": lambda machine, _: machine._update(machine._pop_many(2)),
    "SETITEMS": lambda machine, _: machine._update(machine._pop_to_mark()),
    "GLOBAL": Interpreter._name,
    "STACK_GLOBAL": lambda machine, _: machine._name_from_stack(),
    "REDUCE": lambda machine, _: machine._call(),
    "BUILD": lambda machine, _: machine._set_state(),
    "BINPERSID": lambda machine, _: machine._storage(),
}
_STOP = b"."


def _read_name(stream: IO[bytes]) -> str:
    """Read two lines as pickle does; the description's own reader would follow escapes in them."""
    module, name = stream.readline(), stream.readline()
    if not name.endswith(b"\n"):
        raise EOFError
    return f"{module[:-1].decode()} {name[:-1].decode()}"


# What each does, and how its argument is read. pickletools describes the format and runs nothing.
_INSTRUCTIONS: dict[bytes, tuple[_Step, Callable[[IO[bytes]], Any] | None]] = {
    **{
        opcode.code.encode("latin-1"): (_STEPS[opcode.name], opcode.arg.reader if opcode.arg else None)
        for opcode in pickletools.opcodes
        if opcode.name in _STEPS
    },
    b"c": (_STEPS["GLOBAL"], _read_name),
}
