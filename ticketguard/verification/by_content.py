"""Which tensor of a suspect is which layer, where names do not say it: the one that is most like it.

The reference is all that a choice sees. It costs nothing, however many tensors there are: the owner's secret edges are
a fresh draw given the reference.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.matching import Layout, Shape, layouts_of
from ticketguard.errors import TensorError
from ticketguard.graph.assignment import best_assignment
from ticketguard.ticket import AnyReference, FloatArray
from ticketguard.verification.likeness import CLEAR_NATS, Seen, Wanted, distances, look, profile_nats, wanted_layers

# A file with more tensors of a layer's size than this many networks have is not searched; nor are more pairs.
MOST_COPIES, MOST_PAIRS = 32, 2**18
# Nats that one squared deviation of what a layer looks like is worth, about 2 of which lie between unrelated ones.
NATS_A_DEVIATION = 10.0
UNRELATED = 2.0
# Of two overlaps beyond this, neither says more than the other.
MOST_NATS = 300.0
# What another order has to be better by than the one that tensors are in, for every layer that it moves: unrelated ones
# gain 1 to 7 on average, up to 13. Where the order they are in was seen to be wrong, less will do.
CLEAR_GAIN, LEAST_GAIN = 8.0, 3.0
# Of a few layers that stand for a large network, so much that unrelated ones seldom cost a second alignment.
SURE_GAIN = 12.0
# By how much the channels of a layer and of a tensor without its name may differ.
MOST_RESIZED = 2.0
MOST_VIEWS = 2**12
# An overlap below this share of the others', after channels were put in order, is what fitting an order makes of any.
FITTED_SHARE = 0.25
_IMPOSSIBLE = -1e9
# Gives a tensor, read as a layer of that name, in the order of channels, and the shape, of the reference's.
View: TypeAlias = Callable[[str, FloatArray], FloatArray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A tensor that was found to be a layer.

    Attributes:
        name: The tensor.
        layouts: How it may be read, likeliest first; one if its weights say it.
        clear: Whether its strongest weights are the reference's edges, by far more than chance gives.
    """

    name: str
    layouts: tuple[Layout, ...]
    clear: bool


def pair_by_content(
    suspect: Checkpoint,
    reference: AnyReference,
    *,
    layers: Sequence[str],
    tensors: Sequence[str],
    expected: Mapping[str, str],
    blocks: Mapping[str, int] | None = None,
    view: View | None = None,
    gain: float = CLEAR_GAIN,
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
        view: Puts a tensor's channels into a layer's order, where that is known of some; each tensor is then compared
            with each layer in its own order, and at most `MOST_VIEWS` are.
        gain: What another order than the expected one has to be better by, in nats a layer.

    Returns:
        What was found, by layer. A layer is left out if no tensor fits, or too many do.
    """
    found: dict[str, Found] = {}
    for exact in (True, False):
        taken = {item.name for item in found.values()}
        fits = _Fits(suspect=suspect, reference=reference, blocks=blocks or {}, exact=exact, view=view, gain=gain)
        left = [layer for layer in layers if layer not in found]
        for names, near in fits.classes(left, [name for name in tensors if name not in taken]):
            there = {name: expected[name] for name in names if expected.get(name) in near}
            found |= _assigned(fits, names, near, there)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fits:
    suspect: Checkpoint
    reference: AnyReference
    blocks: Mapping[str, int]
    exact: bool
    view: View | None
    gain: float

    def layouts(self, layer: str, tensor: str) -> tuple[Layout, ...]:
        """Return the layouts in which a tensor may be a layer."""
        wanted = self.reference.mask.shape(layer)
        found = layouts_of(self.suspect.shape(tensor), wanted, block=self.blocks.get(layer, 1))
        return tuple(
            layout for layout in found if (layout.shape == wanted if self.exact else _near(layout.shape, wanted))
        )

    def classes(self, layers: Sequence[str], tensors: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
        """Yield layers that are of one size, or have one kernel, and the tensors that may be one of them."""
        classes: dict[Shape, list[str]] = {}
        for layer in layers:
            shape = self.reference.mask.shape(layer)
            classes.setdefault((math.prod(shape),) if self.exact else shape[2:], []).append(layer)
        by_size: dict[int, list[str]] = {}
        for name in tensors:
            by_size.setdefault(math.prod(self.suspect.shape(name)), []).append(name)
        for key, names in classes.items():
            near = by_size.get(key[0], []) if self.exact else tensors
            most = MOST_PAIRS if self.view is None else MOST_VIEWS
            if len(near) > MOST_COPIES * len(names) or len(near) * len(names) > most:
                continue
            kinds = {self.reference.mask.shape(layer): layer for layer in names}.values()
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
        return {layers[0]: Found(name=tensors[0], layouts=fits.layouts(layers[0], tensors[0]), clear=False)}
    compared = _compared(fits, layers, tensors)
    score = compared.score
    best = _assignment(score)
    if expected:
        there = np.array([[expected.get(layer, name) == name for name in tensors] for layer in layers])
        kept = _assignment(np.where(there, score, _IMPOSSIBLE))
        moved = sum(best.get(row) != column for row, column in kept.items())
        gain = sum(score[pair] for pair in best.items()) - sum(score[pair] for pair in kept.items())
        if len(kept) == len(best) and gain < fits.gain * moved:
            best = kept
    found: dict[str, Found] = {}
    for row, column in best.items():
        nats = compared.overlaps[row, column]
        layouts = fits.layouts(layers[row], tensors[column])
        said = [layout for layout in layouts if nats.get(layout, 0.0) >= max(CLEAR_NATS, max(nats.values()) / 2)]
        is_clear = bool(said) or compared.clear[row, column]
        found[layers[row]] = Found(name=tensors[column], layouts=tuple(said) or layouts, clear=bool(is_clear))
    return found


def _assignment(score: npt.NDArray[np.float64]) -> dict[int, int]:
    rows, columns = best_assignment(score)
    return {
        int(row): int(column) for row, column in zip(rows, columns, strict=True) if score[row, column] > _IMPOSSIBLE / 2
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Compared:
    """How like some layers some tensors are.

    Attributes:
        score: In nats, shape (layers, tensors).
        clear: Whether their channels are alike beyond chance, each in its place; shape of *score*.
        overlaps: By row and column, the overlap in each layout, in nats.
    """

    score: npt.NDArray[np.float64]
    clear: npt.NDArray[np.bool_]
    overlaps: Mapping[tuple[int, int], Mapping[Layout, float]]


def _compared(fits: _Fits, layers: Sequence[str], tensors: Sequence[str]) -> _Compared:
    """Compare every layer of a class with every tensor, one tensor in memory at a time."""
    wanted = wanted_layers(fits.reference, layers)
    reads = [(column, item) for column, name in enumerate(tensors) for item in _read(fits, name, wanted)]
    score = np.full((len(layers), len(tensors)), _IMPOSSIBLE)
    clear = np.zeros(score.shape, dtype=np.bool_)
    overlaps: dict[tuple[int, int], dict[Layout, float]] = {}
    # An order of channels that was found for the wrong tensors fits these a little.
    most = [max((item.nats.get(layer, 0.0) for _, item in reads), default=0.0) for layer in layers]
    fitted = max(CLEAR_NATS, FITTED_SHARE * float(np.median(most)))
    for kernel in {item.shape[2:] for item in wanted.values()}:
        rows = [row for row, layer in enumerate(layers) if wanted[layer].shape[2:] == kernel]
        here = [(column, item) for column, item in reads if item.layout.shape[2:] == kernel]
        if not here:
            continue
        ours, theirs = [wanted[layers[row]] for row in rows], [item for _, item in here]
        far, in_place = distances(ours, theirs), profile_nats(ours, theirs)
        for (i, row), (j, (column, item)) in itertools.product(enumerate(rows), enumerate(here)):
            layer, shape = layers[row], item.layout.shape
            if layer not in item.layers or not (shape == ours[i].shape if fits.exact else _near(shape, ours[i].shape)):
                continue
            overlap = item.nats.get(layer, 0.0)
            if fits.view is not None and overlap < fitted:
                overlap = 0.0
            nats = min(MOST_NATS, max(overlap, in_place[i, j]))
            likeness = nats + NATS_A_DEVIATION * (UNRELATED - far[i, j]) - _resizing(shape, ours[i].shape)
            score[row, column] = max(score[row, column], likeness)
            clear[row, column] |= nats >= CLEAR_NATS
            overlaps.setdefault((row, column), {})[item.layout] = overlap
    return _Compared(score=score, clear=clear, overlaps=overlaps)


def _read(fits: _Fits, tensor: str, wanted: Mapping[str, Wanted]) -> Iterator[Seen]:
    """Read a tensor in every layout in which it may be one of the layers."""
    layouts: dict[Layout, dict[str, Wanted]] = {}
    for layer, item in wanted.items():
        for layout in fits.layouts(layer, tensor):
            layouts.setdefault(layout, {})[layer] = item
    try:
        values = fits.suspect.weights(tensor)
    except TensorError:
        return
    for layout, alike in layouts.items():
        stored = layout.apply(values)
        if fits.view is None:
            yield look(stored, layout, alike)
        else:
            for layer, item in alike.items():
                yield look(fits.view(layer, stored), layout, {layer: item})


def _resizing(shape: Shape, wanted: Shape) -> float:
    """Return what a change of channels counts against a layer, in nats: layers are cut and widened much alike."""
    return NATS_A_DEVIATION * sum(abs(math.log(a / b)) for a, b in zip(shape[:2], wanted[:2], strict=True))


def clear_layouts(
    suspect: Checkpoint, reference: AnyReference, options: Mapping[str, tuple[str, Sequence[Layout]]]
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
            values = suspect.weights(name)
        except TensorError:
            continue
        wanted = wanted_layers(reference, [layer])
        nats = {layout: look(layout.apply(values), layout, wanted).nats.get(layer, 0.0) for layout in layouts}
        best = max(layouts, key=lambda layout: nats[layout])
        if nats[best] >= CLEAR_NATS and all(nats[other] < nats[best] / 2 for other in layouts if other != best):
            found[layer] = (best,)
    return found
