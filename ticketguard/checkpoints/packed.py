"""Weights that a file holds in a quantised or packed form: recognised by their parts' names, and by whole numbers.

They are not read. A file of them must not pass for what little in it is not packed.
"""

from __future__ import annotations

from collections.abc import Mapping

from ticketguard.checkpoints.sources import TensorSource
from ticketguard.ticket import RESERVED_PREFIX

# By the end of a part's name, what the format that writes it is called; the first that fits.
_FORMATS: Mapping[str, str] = {
    ".weight_packed": "compressed-tensors, packed",
    ".quant_state.bitsandbytes__nf4": "bitsandbytes, 4 bits",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes, 4 bits",
    ".SCB": "bitsandbytes, 8 bits",
    ".qweight": "GPTQ or AWQ",
    ".B_24": "Marlin, 2:4",
    ".weight_scale": "whole numbers with scales",
}
# How safetensors and torch name what only quantised weights are stored in; indices and counters have 32 or 64 bits.
_SMALL_INTEGERS = frozenset({"I8", "U8", "int8", "uint8", "qint8", "quint8", "I16", "int16"})


def is_integer(type_name: str) -> bool:
    """Say whether a format's name of an element type is that of whole numbers or booleans."""
    return type_name.lower().startswith(("i", "u", "bool", "q"))


def packed_weights(source: TensorSource) -> dict[str, str]:
    """Return the format of every weight that is stored packed, by the weight's name.

    Args:
        source: The tensors, those that can be read as well.
    """
    found: dict[str, str] = {}
    # A ticket's own masks are packed too, and are not weights.
    names = tuple(name for name in source.names() if not name.startswith(RESERVED_PREFIX))
    known = frozenset(names)
    for end, form in _FORMATS.items():
        for name in names:
            if name.endswith(end):
                weight = f"{name.removesuffix(end).removesuffix('.weight')}.weight"
                # Scales also go with floating types of 8 bits, which are read.
                if weight not in known or source.type_name(weight) in _SMALL_INTEGERS:
                    found.setdefault(weight, form)
    for name in names:
        if name.rpartition(".")[2] == "weight" and source.type_name(name) in _SMALL_INTEGERS:
            found.setdefault(name, "whole numbers")
    return found


def describe(packed: Mapping[str, str]) -> str:
    """Return how many weights are packed, in which formats, and one of them, for messages."""
    formats = ", ".join(sorted(set(packed.values())))
    return f"{len(packed)} of its weights, '{min(packed)}' among them, in a packed format ({formats})"
