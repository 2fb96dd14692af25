"""Which tensor of a suspect is which layer, where names do not say it: the one that is most like it.

The reference is all that a choice sees. It costs nothing, however many tensors there are: the owner's secret edges are
a fresh draw given the reference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.layouts import Layout, Shape, layouts_of
from ticketguard.errors import TensorError
from ticketguard.ticket import Reference
from ticketguard.verification.likeness import CLEAR_NATS, Seen, distances, look, wanted_layers

# A file with more tensors of a layer's size than this many networks have is not searched; nor are more pairs.
MOST_COPIES, MOST_PAIRS = 32, 2**18
# Nats that one squared deviation of what a layer looks like is worth, about 2 of which lie between unrelated ones.
NATS_A_DEVIATION = 10.0
UNRELATED = 2.0
# Of two overlaps beyond this, neither says more than the other.
MOST_NATS = 300.0
# What another order has to be better by than the one that tensors are in, for every layer that it moves.
CLEAR_GAIN = 3.0
# By how much the channels of a layer and of a tensor without its name may differ.
MOST_RESIZED = 2.0
_IMPOSSIBLE = -1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A tensor that was found to be a layer.

    Attributes:
        name: The tensor.
        layouts: How it may be read, likeliest first; one if its weights say it.
        clear: Whether its strongest weights are the reference's edges, by far more than chance gives.
        moved: Whether it is another tensor than the one that was expected.
    """

    name: str
    layouts: tuple[Layout, ...]
    clear: bool
    moved: bool


def pair_by_content(
    suspect: Checkpoint,
    reference: Reference,
    *,
    layers: Sequence[str],
    tensors: Sequence[str],
    expected: Mapping[str, str],
    blocks: Mapping[str, int] | None = None,
) -> dict[str, Found]:
    """Find the tensors that are most like some layers, each tensor at most once.

    First those of exactly a layer's shape, in any layout; then those of its kernel and nearly its channels.

    Args:
        suspect: Read one tensor at a time; those that cannot be read are like no layer.
        reference: What the layers look like.
        layers: Names of the layers.
        tensors: Names of the tensors that they may be.
        expected: The tensor that a layer is by its name or the order; kept unless its content contradicts it clearly.
        blocks: Positions of one input channel, of the linear layers behind a flattened feature map.

    Returns:
        What was found, by layer. A layer is left out if no tensor fits, or too many do.
    """
    found: dict[str, Found] = {}
    for exact in (True, False):
        taken = {item.name for item in found.values()}
        fits = _Fits(suspect=suspect, reference=reference, blocks=blocks or {}, exact=exact)
        left = [layer for layer in layers if layer not in found]
        for names, near in fits.classes(left, [name for name in tensors if name not in taken]):
            found |= _assigned(fits, names, near, {name: expected[name] for name in names if name in expected})
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fits:
    suspect: Checkpoint
    reference: Reference
    blocks: Mapping[str, int]
    exact: bool

    def layouts(self, layer: str, tensor: str) -> tuple[Layout, ...]:
        """Return the layouts in which a tensor may be a layer."""
        wanted = self.reference.mask[layer].shape
        found = layouts_of(self.suspect.shape(tensor), wanted, block=self.blocks.get(layer, 1))
        return tuple(
            layout for layout in found if (layout.shape == wanted if self.exact else _near(layout.shape, wanted))
        )

    def classes(self, layers: Sequence[str], tensors: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
        """Yield layers that are of one size, or have one kernel, and the tensors that may be one of them."""
        classes: dict[Shape, list[str]] = {}
        for layer in layers:
            shape = self.reference.mask[layer].shape
            classes.setdefault((math.prod(shape),) if self.exact else shape[2:], []).append(layer)
        by_size: dict[int, list[str]] = {}
        for name in tensors:
            by_size.setdefault(math.prod(self.suspect.shape(name)), []).append(name)
        for key, names in classes.items():
            near = by_size.get(key[0], []) if self.exact else tensors
            if len(near) > MOST_COPIES * len(names) or len(near) * len(names) > MOST_PAIRS:
                continue
            kinds = {self.reference.mask[layer].shape: layer for layer in names}.values()
            near = [name for name in near if any(self.layouts(layer, name) for layer in kinds)]
            again = self.suspect.spare(near) if len(near) > 1 else ()
            yield names, [name for name in near if name not in again]


def _near(shape: Shape, wanted: Shape) -> bool:
    return all(a <= MOST_RESIZED * b and b <= MOST_RESIZED * a for a, b in zip(shape[:2], wanted[:2], strict=True))


def _assigned(
    fits: _Fits, layers: Sequence[str], tensors: Sequence[str], expected: Mapping[str, str]
) -> dict[str, Found]:
    """Assign tensors to layers of one class: as expected, or better if that is clearly better."""
    if not tensors:
        return {}
    if len(layers) == len(tensors) == 1:
        return {
            layers[0]: Found(name=tensors[0], layouts=fits.layouts(layers[0], tensors[0]), clear=False, moved=False)
        }
    score, seen = _scores(fits, layers, tensors)
    best = _assignment(score)
    if expected:
        there = np.array([[expected.get(layer, name) == name for name in tensors] for layer in layers])
        kept = _assignment(np.where(there, score, _IMPOSSIBLE))
        moved = sum(best.get(row) != column for row, column in kept.items())
        gain = sum(score[pair] for pair in best.items()) - sum(score[pair] for pair in kept.items())
        if len(kept) == len(best) and gain < CLEAR_GAIN * moved:
            best = kept
    found: dict[str, Found] = {}
    for row, column in best.items():
        layer, name = layers[row], tensors[column]
        nats = {item.layout: item.nats.get(layer, 0.0) for item in seen[column]}
        layouts = fits.layouts(layer, name)
        clear = [layout for layout in layouts if nats.get(layout, 0.0) >= max(CLEAR_NATS, max(nats.values()) / 2)]
        found[layer] = Found(
            name=name,
            layouts=tuple(clear) or layouts,
            clear=bool(clear),
            moved=expected.get(layer, name) != name,
        )
    return found


def _assignment(score: npt.NDArray[np.float64]) -> dict[int, int]:
    from scipy.optimize import linear_sum_assignment  # slow to import, and rarely needed

    rows, columns = linear_sum_assignment(score, maximize=True)
    return {
        int(row): int(column) for row, column in zip(rows, columns, strict=True) if score[row, column] > _IMPOSSIBLE / 2
    }


def _scores(
    fits: _Fits, layers: Sequence[str], tensors: Sequence[str]
) -> tuple[npt.NDArray[np.float64], list[list[Seen]]]:
    """Return how like each layer each tensor is, in nats, shape (layers, tensors); and how each tensor was read."""
    wanted = wanted_layers(fits.reference, layers)
    kinds = {wanted[layer].shape: layer for layer in layers}.values()
    score = np.full((len(layers), len(tensors)), _IMPOSSIBLE)
    seen: list[list[Seen]] = []
    for name in tensors:
        layouts = dict.fromkeys(layout for layer in kinds for layout in fits.layouts(layer, name))
        try:
            values = fits.suspect.read(name)
        except TensorError:
            layouts = {}
        seen.append([])
        for layout in layouts:
            alike = {layer: item for layer, item in wanted.items() if item.shape[2:] == layout.shape[2:]}
            seen[-1].append(look(values if layout.as_stored else layout.apply(values), layout, alike))
    for kernel in {item.shape[2:] for item in wanted.values()}:
        rows = [row for row, layer in enumerate(layers) if wanted[layer].shape[2:] == kernel]
        reads = [
            (column, item) for column, items in enumerate(seen) for item in items if item.layout.shape[2:] == kernel
        ]
        if not reads:
            continue
        far = distances([wanted[layers[row]] for row in rows], [item for _, item in reads])
        for row, per_layer in zip(rows, far, strict=True):
            shape = wanted[layers[row]].shape
            for (column, item), distance in zip(reads, per_layer, strict=True):
                if item.layout.shape == shape if fits.exact else _near(item.layout.shape, shape):
                    nats = min(MOST_NATS, item.nats.get(layers[row], 0.0))
                    likeness = nats + NATS_A_DEVIATION * (UNRELATED - distance) - _resizing(item.layout.shape, shape)
                    score[row, column] = max(score[row, column], likeness)
    return score, seen


def _resizing(shape: Shape, wanted: Shape) -> float:
    """Return what a change of channels counts against a layer, in nats: layers are cut and widened much alike."""
    return NATS_A_DEVIATION * sum(abs(math.log(a / b)) for a, b in zip(shape[:2], wanted[:2], strict=True))


def clear_layouts(
    suspect: Checkpoint, reference: Reference, options: Mapping[str, tuple[str, Sequence[Layout]]]
) -> dict[str, tuple[Layout, ...]]:
    """Return the layouts that weights themselves say, of layers whose shapes leave it open.

    Args:
        suspect: Read one tensor at a time.
        reference: What the layers look like.
        options: The tensor and its possible layouts, by layer.
    """
    found: dict[str, tuple[Layout, ...]] = {}
    for layer, (name, layouts) in options.items():
        try:
            values = suspect.read(name)
        except TensorError:
            continue
        wanted = wanted_layers(reference, [layer])
        nats = {layout: look(layout.apply(values), layout, wanted).nats.get(layer, 0.0) for layout in layouts}
        best = max(layouts, key=lambda layout: nats[layout])
        if nats[best] >= CLEAR_NATS and all(nats[other] < nats[best] / 2 for other in layouts if other != best):
            found[layer] = (best,)
    return found
