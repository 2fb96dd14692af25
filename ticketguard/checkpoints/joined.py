"""Layers that are stored as several tensors: as blocks of rows or columns whose names differ in a number alone.

``fc1.0.weight`` and ``fc1.1.weight``, or ``fc1_0`` and ``fc1_1``. In which order they are joined matters little: the
channels are put in the reference's.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ticketguard.checkpoints.matching.fronts import shared_components
from ticketguard.checkpoints.matching.layouts import Shape, layouts_of
from ticketguard.checkpoints.parts import Part

# Of longer names, and of more numbers in one, which only a hostile file has, nothing is joined.
_LONGEST, _MOST_NUMBERS = 256, 4
_NUMBER = re.compile(r"(?:^|[._])([0-9]{1,9})(?=[._]|$)")
# Rows and columns: the axes that blocks are cut along.
_AXES = (0, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
    """Tensors that are one layer.

    Attributes:
        names: The tensors, by their numbers.
        axis: What they are joined along.
        shape: Of the whole.
    """

    names: tuple[str, ...]
    axis: int
    shape: Shape


def blocks_in(
    tensors: Mapping[str, Shape], layers: Mapping[str, Shape], *, block: Mapping[str, int] | None = None
) -> dict[str, Blocks]:
    """Find tensors that are a layer together: of its shape in some layout, or under its name without the number.

    Names and shapes decide, so it is another way to read the suspect and no other look. A tensor with a layer's name,
    behind whatever components, is no block.

    Args:
        tensors: Shapes of the suspect's tensors.
        layers: Shapes of the reference's layers.
        block: Positions of one input channel, of the linear layers behind a flattened feature map.

    Returns:
        The blocks by the name that the whole gets. No tensor is in two.
    """
    by_size: dict[int, list[str]] = {}
    for layer, shape in layers.items():
        by_size.setdefault(math.prod(shape), []).append(layer)
    front = _front(layers)
    known = {layer.removeprefix(front): shape for layer, shape in layers.items()}
    free = {name: shape for name, shape in tensors.items() if known.keys().isdisjoint(_ends(name))}
    found: dict[str, Blocks] = {}
    taken: set[str] = set()
    for name, names in _series(free):
        if name in tensors or name in found or not taken.isdisjoint(names):
            continue
        ways = list(_ways([tensors[one] for one in names], names))
        exact = [way for way in ways if _is_any(way.shape, by_size.get(math.prod(way.shape), ()), layers, block or {})]
        named = [known[end] for end in _ends(name) if end in known]
        if exact or (ways and named):
            wanted = named or [layers[layer] for way in exact for layer in by_size[math.prod(way.shape)]]
            found[name] = min(exact or ways, key=lambda way: min(_unlikeness(way.shape, shape) for shape in wanted))
            taken.update(names)
    return found


def with_blocks(parts: Mapping[str, Part], found: Mapping[str, Blocks]) -> dict[str, Part]:
    """Return tensors, by name, with each layer that was *found* in place of its blocks."""
    inside = {name for blocks in found.values() for name in blocks.names}
    joined = {name: part for name, part in parts.items() if name not in inside}
    for name, blocks in found.items():
        first, *more = (parts[one] for one in blocks.names)
        joined[name] = dataclasses.replace(first, more=tuple(more), axis=blocks.axis)
    return joined


def _series(tensors: Mapping[str, Shape]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield names without one of their numbers, the last one first, and the tensors that differ in it, in order."""
    series: dict[tuple[str, str], dict[int, str]] = {}
    for name in tensors:
        numbers = list(_NUMBER.finditer(name)) if len(name) <= _LONGEST else []
        for number in numbers[-_MOST_NUMBERS:]:
            series.setdefault((name[: number.start()], name[number.end() :]), {})[int(number[1])] = name
    for before, after in sorted(series, key=lambda around: -len(around[0])):
        numbered = series[before, after]
        whole = (before + after).lstrip("._")
        if len(numbered) > 1 and whole:
            yield whole, tuple(numbered[number] for number in sorted(numbered))


def _ways(shapes: Sequence[Shape], names: tuple[str, ...]) -> Iterator[Blocks]:
    """Yield the ways in which tensors fit together: they are alike but for their sizes along one axis."""
    first = shapes[0]
    if len(first) < len(_AXES) or any(len(shape) != len(first) for shape in shapes):
        return
    for axis in _AXES:
        if all(_beside(shape, axis) == _beside(first, axis) for shape in shapes):
            size = sum(shape[axis] for shape in shapes)
            yield Blocks(names=names, axis=axis, shape=(*first[:axis], size, *first[axis + 1 :]))


def _beside(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


def _unlikeness(shape: Shape, wanted: Shape) -> tuple[int, int]:
    """Return how many axes have another size, and by how many positions: blocks that are all alike fit either way."""
    pairs = list(zip(shape, wanted, strict=False))
    return sum(a != b for a, b in pairs), sum(abs(a - b) for a, b in pairs)


def _front(names: Iterable[str]) -> str:
    """Return the components that names start with, all of them."""
    return "".join(f"{part}." for part in shared_components(list(names)))


def _ends(name: str) -> set[str]:
    """Return what a name is behind each of its first components."""
    parts = name[-_LONGEST:].split(".")
    return {".".join(parts[index:]) for index in range(len(parts))}


def _is_any(shape: Shape, names: Sequence[str], layers: Mapping[str, Shape], block: Mapping[str, int]) -> bool:
    """Say whether a tensor has the shape of one of some layers, in some layout."""
    return any(
        layout.shape == layers[name]
        for name in names
        for layout in layouts_of(shape, layers[name], block=block.get(name, 1))
    )
