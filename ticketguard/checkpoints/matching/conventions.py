"""By which convention a whole network stores its layers, where their shapes alone leave it open.

A square matrix does not say which of its axes comes first, but one library wrote the whole network: it follows the
layers beside it. Where none of these says it, each convention is a hypothesis of its own.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from ticketguard.checkpoints.matching.layouts import Layout, Shape

_Side: TypeAlias = Callable[[Layout], bool | None]
_Options: TypeAlias = Mapping[str, Sequence[Layout]]

# Each is another reading of the whole network.
MOST_CONVENTIONS = 8
# Modules around a layer that are asked how their layers are stored.
_MOST_LEVELS = 8


def _in_first(layout: Layout) -> bool | None:
    return layout.in_first


def _kernel_first(layout: Layout) -> bool | None:
    return layout.kernel_first


def conventions_of(
    options: Mapping[str, Sequence[Layout]], reference: Mapping[str, Shape]
) -> tuple[Mapping[str, Layout], ...]:
    """Return the conventions by which a network may store its layers, likeliest first.

    Args:
        options: The layouts that each layer's shapes allow, likeliest first, by its name in the reference.
        reference: Shapes of the reference's layers.

    Returns:
        At most `MOST_CONVENTIONS`, each with one layout for every layer. The first is as stored where that fits.
    """
    found: list[_Options] = [{layer: _likeliest(layouts, reference[layer]) for layer, layouts in options.items()}]
    # Where channels were cut or added, an axis may have the size of another by chance, or because a thief chose so.
    if any(layouts[0].shape != reference[layer] for layer, layouts in options.items()):
        found.append(options)
    for side in (_in_first, _kernel_first):
        found = [narrowed for likely in found for narrowed in _decided(likely, side)]
    conventions: list[Mapping[str, Layout]] = []
    for likely in found:
        convention = {layer: layouts[0] for layer, layouts in likely.items()}
        if convention not in conventions:
            conventions.append(convention)
    return tuple(conventions[:MOST_CONVENTIONS])


def _likeliest(layouts: Sequence[Layout], wanted: Shape) -> Sequence[Layout]:
    """Return the layouts that leave as few axes of another size as the first does."""
    unequal = [sum(a != b for a, b in zip(layout.shape, wanted, strict=True)) for layout in layouts]
    return [layout for layout, count in zip(layouts, unequal, strict=True) if count == unequal[0]]


def _decided(likely: _Options, side: _Side) -> list[_Options]:
    """Return the layouts that are left once a side is decided: as is expected, and turned round where that is in doubt.

    A layer without a kernel may go another way than one with a kernel: GPT-2's are (in, out).
    """
    expected, doubted = _expected(likely, side)
    kinds = sorted({_has_kernel(likely[layer]) for layer in doubted})
    found: list[_Options] = []
    for turned in (turned for count in range(len(kinds) + 1) for turned in itertools.combinations(kinds, count)):
        ways = {
            layer: way != (layer in doubted and _has_kernel(likely[layer]) in turned) for layer, way in expected.items()
        }
        found.append(
            {
                layer: [layout for layout in layouts if side(layout) in (ways.get(layer), None)] or layouts
                for layer, layouts in likely.items()
            }
        )
    return found


def _expected(likely: _Options, side: _Side) -> tuple[dict[str, bool], set[str]]:
    """Return what is expected of the layers that are open, and which of these are in doubt.

    A layer follows those of the same name but for numbers; else those beside it, whose names share as many leading
    components as any; else the others with a kernel, or without; else all.
    """
    said = {layer: {side(layout) for layout in layouts} for layer, layouts in likely.items()}
    levels = {layer: _levels(layer, _has_kernel(layouts)) for layer, layouts in likely.items()}
    votes: dict[tuple[object, ...], Counter[bool]] = {}
    for layer, ways in said.items():
        way = next(iter(ways))
        if len(ways) == 1 and way is not None:
            for level in levels[layer]:
                votes.setdefault(level, Counter())[way] += 1
    left = [layer for layer, ways in said.items() if len(ways) > 1]
    kinds = Counter(_has_kernel(likely[layer]) for layer in left)
    # Where no layer says it, what most of them are likeliest to be.
    guesses = Counter((_has_kernel(likely[layer]), side(likely[layer][0])) for layer in left)
    expected: dict[str, bool] = {}
    doubted: set[str] = set()
    for layer in left:
        kernel = _has_kernel(likely[layer])
        depth = next((depth for depth, level in enumerate(levels[layer]) if level in votes), None)
        if depth is None:
            expected[layer] = guesses[kernel, True] > guesses[kernel, False]
            doubted.add(layer)
            continue
        heard = votes[levels[layer][depth]]
        expected[layer] = heard[True] > heard[False]
        # Those beside it are as it is. Layers elsewhere are if they all agree, and are not a few that speak for many.
        # Where a map is flattened, it is decided anew what comes first; convolutions do not say it.
        everyone = votes.get((kernel,), Counter() if side is _kernel_first else votes[()])
        if not (depth < 2 and len(heard) == 1) and not (len(everyone) == 1 and everyone.total() >= kinds[kernel]):
            doubted.add(layer)
    return expected, doubted


def _has_kernel(layouts: Sequence[Layout]) -> bool:
    return len(layouts[0].shape) > 2


def _levels(layer: str, kernel: bool) -> list[tuple[object, ...]]:
    """Return the sets of layers that a layer belongs to, closest first."""
    parts = re.sub("[0-9]+", "#", layer).split(".")
    nearest = max(1, len(parts) - 2)
    # The last component says which tensor of a module it is, the one before it which module.
    beside: list[tuple[object, ...]] = [
        (kernel, *parts[:depth]) for depth in range(nearest, max(0, nearest - _MOST_LEVELS), -1)
    ]
    return [(kernel, "", *parts), *beside, (kernel,), ()]
