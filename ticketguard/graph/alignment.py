"""Undo a thief's rebuilding of a network: match a suspect's channels to the unmarked reference's.

The reference is all the matching sees. The owner's secret edges are a fresh draw given the reference, so they
are independent of the alignment and the p-value of an aligned suspect is as exact as that of an unaligned one: however
many orders, turns and starts are tried here, and however the best of them is chosen, no search has to be paid for.

What is compared is where a layer's strongest weights lie, and with what sign and size relative to their row and column:
both survive training, pruning, regrowth, and positive rescaling of channels.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ticketguard.errors import TensorError, UnverifiableError
from ticketguard.graph.by_signs.coded import Signs, StartSigns, signs_of
from ticketguard.graph.by_signs.found import Found as SignsFound
from ticketguard.graph.by_signs.search import SignSearch
from ticketguard.graph.groups import CHANNEL_AXES, ChannelGroup, IndexArray
from ticketguard.graph.likeness import LEAST_DEVIATIONS, LEAST_EXCESS
from ticketguard.graph.matching import Budget, Order
from ticketguard.graph.search import Found, Placed, Search
from ticketguard.graph.similarity import MOST_FULL, Edges, kept_edges, strongest_edges
from ticketguard.graph.streams import Shape, Stream
from ticketguard.graph.surplus import without_full_channels
from ticketguard.graph.turns import UNTURNED, KernelTurn
from ticketguard.ticket import AnyReference, FloatArray, Reference, StartReference

# What has less than this share of what counts as found has no trace of the reference.
TRACED = 0.5
# Share of a suspect's weights that is compared with a full layer of the reference.
FULL_SHARE = 0.25
# Beside start weights, where that finds nothing: little is known then, and weaker weights say something too.
FULLER_SHARE = 0.5
# A mask with up to so many times the reference's edges is compared whole: where the edges are says more then than
# which of them are strong. Of one that was doubled at random the stronger half has half of the reference's.
MOST_GROWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a suspect's channels map to the reference's.

    Attributes:
        streams: The axes that were matched together.
        orders: Per stream; channel c of the reference is the suspect's channel ``orders[s][c]``, or -1 if it has none
            that is recognised.
        unrecognised: Number of the reference's channels for which the suspect has one left over that shares no more
            edges with it than chance gives.
        turn: How the suspect's kernels are turned first.
        overlap: Share of the reference's edges that were held out of the matching and that the aligned suspect has
            among its strongest, of those that it could have, in [0, 1].
        chance: The overlap to expect of an unrelated suspect.
        deviations: Standard deviations by which the overlap is above chance.
        surplus: Held-out edges found beyond chance: the more, the likelier this is how the suspect's layers are to be
            read. Deviations would say that of fewer layers, too.
        is_found: Whether it is beyond what chance gives: of the reference something is recognised.
        is_clear: Whether every layer is where it belongs; beside start weights, with their signs.
        layers: The layers that were compared.
        is_part: Whether these are a few of the layers, of which nothing was recognised, so that no more were compared.
        complete: Whether matching ended by itself, with every stream in it: those that ask for far more work or memory
            than layers of this size are worth are left as they are.
    """

    streams: tuple[Stream, ...]
    orders: tuple[IndexArray, ...]
    unrecognised: int = 0
    turn: KernelTurn = UNTURNED
    overlap: float
    chance: float = 0.0
    deviations: float = 0.0
    surplus: float = 0.0
    is_found: bool = False
    is_clear: bool = False
    layers: tuple[str, ...] = ()
    is_part: bool = False
    complete: bool = True

    @functools.cached_property
    def placed(self) -> Placed:
        """Where the channels lie."""
        return Placed(streams=self.streams, orders=self.orders, turn=self.turn, layers=self.layers)

    @property
    def is_traced(self) -> bool:
        """Whether so much is recognised that a look at more layers may find the reference."""
        excess = (self.overlap - self.chance) / max(1.0 - self.chance, 1e-9)
        return excess >= TRACED * LEAST_EXCESS and self.deviations >= TRACED * LEAST_DEVIATIONS

    @property
    def changes_nothing(self) -> bool:
        """Whether everything is where it is stored."""
        return not (self.moved or self.missing or self.added or self.unrecognised) and self.turn.is_none

    @property
    def moved(self) -> int:
        """Number of the reference's channels that were found in another place."""
        return sum(int(((order >= 0) & (order != np.arange(len(order)))).sum()) for order in self.orders)

    @property
    def missing(self) -> int:
        """Number of the reference's channels that the suspect does not have."""
        return sum(int((order < 0).sum()) for order in self.orders) - self.unrecognised

    @property
    def added(self) -> int:
        """Number of the suspect's channels that the reference does not have."""
        used = sum(int((order >= 0).sum()) for order in self.orders)
        return sum(stream.suspect_channels for stream in self.streams) - used - self.unrecognised

    def apply(self, name: str, layer: FloatArray, shape: Shape | None = None) -> FloatArray:
        """Return one suspect layer in the reference's order of channels, zero where the suspect has none.

        Args:
            name: The layer.
            layer: The suspect's, shape (out, in, *kernel).
            shape: The reference's, if it is another.
        """
        wanted = layer.shape if shape is None else shape
        placed = self.placed
        result = self.turn.kernel(layer) if self.turn.fits(layer.shape[CHANNEL_AXES:]) else layer
        for axis in range(min(layer.ndim, CHANNEL_AXES)):
            order = placed.along(name, axis, wanted[axis], layer.shape[axis])
            if len(order) == layer.shape[axis] and np.array_equal(order, np.arange(len(order))):
                continue
            result = np.take(result, np.maximum(order, 0), axis=axis)
            if (order < 0).any():
                result[(slice(None),) * axis + (order < 0,)] = 0
        return result


def align(
    suspect: Mapping[str, FloatArray],
    reference: AnyReference,
    groups: Sequence[ChannelGroup],
    *,
    budget: Budget | None = None,
    start: Alignment | None = None,
    is_part: bool = False,
    counts: Mapping[str, int] | None = None,
) -> Alignment:
    """Match a suspect's channels to the reference's.

    The suspect may be sparse, pruned further, fine-tuned, regrown or dense: of each layer only as many of its
    strongest weights as the reference keeps are compared. It may have other numbers of channels.

    Args:
        suspect: Weights under the reference's layer names, shape (out, in, *kernel); layers may be missing. Each is
            looked up once or twice, so a lazy mapping keeps memory low.
        reference: The unmarked ticket; or the start weights, of whose anchors the signs are compared.
        groups: Channel groups of the reference's model; members that are not masked layers are ignored.
        budget: Work that is left for this suspect, where it is aligned in several ways; one of its own if not given.
        start: What was found in some of the layers, which is tried first.
        is_part: Whether these are a few layers of a larger network, of which less is tried.
        counts: With start weights: by layer, how many of the suspect's strongest weights are compared. Of a layer that
            is left out it is all that are not zero, or a quarter of its positions where nearly all are not.

    Raises:
        UnverifiableError: The suspect has none of the reference's layers.
        TensorError: A layer has another number of axes, or other kernels, than the reference's.
    """
    names = [name for name in reference.mask if name in suspect]
    if not names:
        raise UnverifiableError(
            "the suspect has none of the reference's layers: check that it is the same architecture"
        )
    wanted = {name: reference.mask.shape(name) for name in names}
    placed = None if start is None else start.placed
    best: Found | SignsFound
    recognised: Callable[[], list[Order]]
    if isinstance(reference, StartReference):
        starts, signs, shapes = _signs(suspect, reference, names, counts or {})
        budget = budget or Budget.of(wanted, shapes)
        fuller = functools.partial(_fuller, suspect, signs)
        by_signs = SignSearch(
            starts, signs, wanted, shapes, groups, budget, start=placed, is_part=is_part, fuller=fuller
        )
        best = by_signs.best()
        recognised = best.recognised
        # Edges alone say where channels belong, of a copy that was trained anew as well: its signs do not acquit it.
        is_clear = best.judgement.signs.is_clear
    else:
        edges, shapes = _edges(suspect, reference, names)
        budget = budget or Budget.of(wanted, shapes)
        search = Search(edges, wanted, shapes, groups, budget, start=placed, is_part=is_part)
        best = search.best()
        recognised = functools.partial(search.recognised, best)
        is_clear = best.likeness.is_clear
    # Of a part, all orders are starts for the rest.
    orders = best.orders if is_part or not best.likeness.is_found else recognised()
    return Alignment(
        streams=best.streams,
        orders=tuple(orders),
        unrecognised=sum(int((one != other).sum()) for one, other in zip(orders, best.orders, strict=True)),
        turn=best.turn,
        overlap=best.likeness.overlap,
        chance=best.likeness.chance,
        deviations=best.likeness.deviations,
        surplus=best.likeness.surplus,
        is_found=best.likeness.is_found,
        is_clear=is_clear,
        layers=tuple(names),
        complete=budget.kept,
    )


def _edges(
    suspect: Mapping[str, FloatArray], reference: Reference, names: Sequence[str]
) -> tuple[dict[str, tuple[Edges, Edges]], dict[str, Shape]]:
    """Return the edges of the reference's and of the suspect's layers, and the shapes of the suspect's."""
    edges: dict[str, tuple[Edges, Edges]] = {}
    shapes: dict[str, Shape] = {}
    for name in names:
        layer, kept = suspect[name], reference.mask[name]
        _require_kernel(name, layer.shape, kept.shape)
        shapes[name] = layer.shape
        # Which edges a full layer has says nothing, but what they weigh: the suspect's strongest are compared with it.
        count = max(1, round(FULL_SHARE * kept.size)) if kept.all() else int(np.count_nonzero(kept))
        edges[name] = kept_edges(kept, reference.kept_weights[name]), _strongest(layer, kept.shape, count)
    return edges, shapes


def _signs(
    suspect: Mapping[str, FloatArray], reference: StartReference, names: Sequence[str], counts: Mapping[str, int]
) -> tuple[dict[str, StartSigns], dict[str, Signs], dict[str, Shape]]:
    """Return the start's layers, the suspect's edges, and the shapes of its layers."""
    starts: dict[str, StartSigns] = {}
    signs: dict[str, Signs] = {}
    shapes: dict[str, Shape] = {}
    for name in names:
        layer, wanted = suspect[name], reference.layers[name].shape
        _require_kernel(name, layer.shape, wanted)
        shapes[name] = layer.shape
        starts[name] = StartSigns.of(reference, name)
        if name in counts:
            edges = _strongest(layer, wanted, counts[name])
        else:
            there = int(np.count_nonzero(layer))
            edges = strongest_edges(layer, there if there <= MOST_FULL * layer.size else round(FULL_SHARE * layer.size))
        signs[name] = signs_of(edges)
    return starts, signs, shapes


def _fuller(suspect: Mapping[str, FloatArray], signs: Mapping[str, Signs]) -> dict[str, Signs]:
    """Return a suspect's edges with more of those of full layers."""
    fuller = dict(signs)
    for name in signs:
        layer = suspect[name]
        if np.count_nonzero(layer) > MOST_FULL * layer.size:
            fuller[name] = signs_of(strongest_edges(layer, round(FULLER_SHARE * layer.size)))
    return fuller


def _strongest(layer: FloatArray, wanted: Shape, count: int) -> Edges:
    layer = without_full_channels(layer, wanted, most=MOST_GROWN * count)
    # What was added to a layer takes its share of the strongest.
    more = max(1.0, layer.size / math.prod(wanted))
    return strongest_edges(layer, round(more * count), grown=MOST_GROWN)


def _require_kernel(name: str, found: Shape, wanted: Shape) -> None:
    if len(found) != len(wanted) or found[CHANNEL_AXES:] != wanted[CHANNEL_AXES:]:
        raise TensorError(
            name=name,
            reason=f"has shape {found}, expected {wanted}, or another number of channels",
            hint="check that the suspect has the reference's architecture",
        )
