"""Layers whose names are unknown, paired with tensors of their shape in order, where there are as many of both."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TypeAlias

from ticketguard.checkpoints.matching.layouts import Shape, layouts_of

# Given tensors of one shape, returns those that stand for no layer of their own: second names of one, masks, counters.
Spare: TypeAlias = Callable[[Sequence[str]], Collection[str]]

# Numbers are looked for in names up to this length.
_LONGEST_NUMBERED = 256


def pair_by_order(
    reference: Mapping[str, Shape], suspect: Mapping[str, Shape], *, spare: Spare | None = None
) -> dict[str, str]:
    """Pair layers with tensors in order: first those of equal shape, then those of equal size in some layout.

    Args:
        reference: Shapes by layer.
        suspect: Shapes by tensor, in stored order.
        spare: Picks out tensors that are not paired.

    Returns:
        Tensors by layer; a shape, or size, of which there are more tensors than layers, or fewer, is left out.
    """
    pairs = _pair(reference, suspect, spare, of=lambda shape: shape)
    taken = set(pairs.values())
    left = {layer: shape for layer, shape in reference.items() if layer not in pairs}
    free = {name: shape for name, shape in suspect.items() if name not in taken} if left else {}
    return pairs | _pair(left, free, spare, of=math.prod)


def _pair(
    reference: Mapping[str, Shape],
    suspect: Mapping[str, Shape],
    spare: Spare | None,
    *,
    of: Callable[[Shape], Hashable],
) -> dict[str, str]:
    wanted: dict[Hashable, list[str]] = {}
    for layer, shape in reference.items():
        wanted.setdefault(of(shape), []).append(layer)
    held: dict[Hashable, list[str]] = {}
    for name, shape in suspect.items():
        if of(shape) in wanted:
            held.setdefault(of(shape), []).append(name)
    pairs: dict[str, str] = {}
    for kind, layers in wanted.items():
        names = held.get(kind, [])
        again = spare(names) if spare is not None and len(names) > 1 else ()
        names = [name for name in names if name not in again]
        # A file in alphabetical order (safetensors) says nothing about the network's order, but its numbers do.
        ordered = sorted(names, key=_natural) if names == sorted(names) else names
        if len(layers) != len(ordered):
            continue
        found = dict(zip(sorted(layers, key=_natural), ordered, strict=True))
        if all(_same_layer(suspect[name], reference[layer]) for layer, name in found.items()):
            pairs |= found
    return pairs


def _same_layer(stored: Shape, wanted: Shape) -> bool:
    return stored == wanted or any(layout.shape == wanted for layout in layouts_of(stored, wanted))


def _natural(name: str) -> str:
    """Return a key that sorts the numbers in names by their value, before any letter."""
    # Of a longer name, which only a hostile file has, the rest is compared as text.
    return re.sub(r"[0-9]+", _number_key, name[:_LONGEST_NUMBERED]) + name[_LONGEST_NUMBERED:]


def _number_key(digits: re.Match[str]) -> str:
    # By length, then as text: a hostile name may have more digits than `int` takes.
    number = digits[0].lstrip("0")
    return f"\0{len(number):03}{number}"
