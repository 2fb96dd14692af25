"""The instructions of torch.save, followed to numbers, texts, containers and places of tensors, and nothing else.

A pickle is a program. This is a machine for the few instructions that a state dict needs: what it names is looked up
in a closed list (`torch_names`), what it calls is one of a handful of functions there, and what it would set on an
object is dropped. No step costs more than its own length.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from typing import IO, Any

from ticketguard.checkpoints.stored_tensors import is_count
from ticketguard.checkpoints.torch_names import (
    BUILDERS,
    INERT,
    NAMES,
    STORAGE_TYPES,
    DamagedInstructionsError,
    Name,
    RefusedInstructionError,
    Storage,
    ordered_dict,
)

# A tensor takes about 25, an optimiser's two moments of it as many each: room for 10 000 tensors with Adam, in 2 s.
MAX_INSTRUCTIONS = 3 * 2**18


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
        # What lies under a mark belongs to the code that set it.
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
        if name not in NAMES:
            raise RefusedInstructionError(name.replace(" ", ".", 1))
        self._stack.append(NAMES[name])

    def _name_from_stack(self) -> None:
        module, attribute = self._pop_many(2)
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise TypeError("a name is not a text")
        self._name(f"{module} {attribute}")

    def _call(self) -> None:
        function, arguments = self._pop_many(2)
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError("something is called that is not a name")
        builder = BUILDERS.get(function.name)
        if builder is None:
            raise RefusedInstructionError(f"a call of {function.name.replace(' ', '.')}")
        if builder is ordered_dict and arguments:
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
            case ("storage", Name(name), str(key), str(), elements) if name in STORAGE_TYPES and is_count(elements):
                found = Storage(key=key, type_name=STORAGE_TYPES[name], elements=elements)
            case _:
                raise RefusedInstructionError("a reference that is not a tensor's storage")
        if self.storages.setdefault(key, found) != found:
            raise ValueError("a storage is described in two ways")
        self._push(found)


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
