"""Undo a thief's rebuilding of a network: match a suspect's channels to the unmarked reference's.

The reference is all the matching sees. The owner's secret edges are a fresh draw given the reference, so they
are independent of the alignment and the p-value of an aligned suspect is as exact as that of an unaligned one: however
many orders, turns and starts are tried here, and however the best of them is chosen, no search has to be paid for.

What is compared is where a layer's strongest weights lie, and with what sign and size relative to their row and column:
both survive training, pruning, regrowth, and positive rescaling of channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ticketguard.errors import TensorError, UnverifiableError
from ticketguard.graph.groups import CHANNEL_AXES, ChannelGroup, GroupMember, IndexArray
from ticketguard.graph.likeness import TRACE_DEVIATIONS, Likeness, split
from ticketguard.graph.matching import PASSES, STEPS_A_TURN, Budget, Matching, Order
from ticketguard.graph.similarity import Edges, strongest_edges
from ticketguard.graph.streams import Shape, Stream, bound_streams, loosened_streams
from ticketguard.graph.turns import UNTURNED, KernelTurn, orbits, turns_of
from ticketguard.ticket import FloatArray, Reference

# Sweeps between two looks at how much is recognised.
PASSES_AT_ONCE = 2
# Of a network with more edges, turns are only looked for where a start that needs no turn finds a trace.
MOST_EDGES_TURNED = 50_000
# Share of a suspect's weights that is compared with a full layer of the reference.
FULL_SHARE = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a suspect's channels map to the reference's.

    Attributes:
        streams: The axes that were matched together.
        orders: Per stream; channel c of the reference is the suspect's channel ``orders[s][c]``, or -1 if it has none.
        turn: How the suspect's kernels are turned first.
        overlap: Share of the reference's edges that were held out of the matching and that the aligned suspect has
            among its strongest, of those that it could have, in [0, 1].
        chance: The overlap to expect of an unrelated suspect.
        deviations: Standard deviations by which the overlap is above chance.
        is_found: Whether it is beyond what chance gives: of the reference something is recognised.
        is_clear: Whether every layer is where it belongs.
        complete: Whether matching ended by itself, with every stream in it: those that ask for far more work or memory
            than layers of this size are worth are left as they are.
    """

    streams: tuple[Stream, ...]
    orders: tuple[IndexArray, ...]
    turn: KernelTurn = UNTURNED
    overlap: float
    chance: float = 0.0
    deviations: float = 0.0
    is_found: bool = False
    is_clear: bool = False
    complete: bool = True

    @property
    def changes_nothing(self) -> bool:
        """Whether everything is where it is stored."""
        return not (self.moved or self.missing or self.added) and self.turn.is_none

    @property
    def moved(self) -> int:
        """Number of the reference's channels that were found in another place."""
        return sum(int(((order >= 0) & (order != np.arange(len(order)))).sum()) for order in self.orders)

    @property
    def missing(self) -> int:
        """Number of the reference's channels that the suspect does not have."""
        return sum(int((order < 0).sum()) for order in self.orders)

    @property
    def added(self) -> int:
        """Number of the suspect's channels that the reference does not have."""
        return sum(
            stream.suspect_channels - int((order >= 0).sum())
            for stream, order in zip(self.streams, self.orders, strict=True)
        )

    def apply(self, name: str, layer: FloatArray, shape: Shape | None = None) -> FloatArray:
        """Return one suspect layer in the reference's order of channels, zero where the suspect has none.

        Args:
            name: The layer.
            layer: The suspect's, shape (out, in, *kernel).
            shape: The reference's, if it is another.
        """
        wanted = layer.shape if shape is None else shape
        result = self.turn.kernel(layer) if self.turn.fits(layer.shape[CHANNEL_AXES:]) else layer
        for axis in range(min(layer.ndim, CHANNEL_AXES)):
            order = self._along(name, axis, wanted[axis], layer.shape[axis])
            if len(order) == layer.shape[axis] and np.array_equal(order, np.arange(len(order))):
                continue
            result = np.take(result, np.maximum(order, 0), axis=axis)
            if (order < 0).any():
                result[(slice(None),) * axis + (order < 0,)] = 0
        return result

    def _along(self, name: str, axis: int, size: int, found: int) -> IndexArray:
        """Return the suspect's position for each of the reference's along an axis, -1 where it has none."""
        along = np.arange(size, dtype=np.int64)
        along[found:] = -1
        for stream, order in zip(self.streams, self.orders, strict=True):
            for member, other in zip(stream.reference, stream.suspect, strict=True):
                if (member.tensor, member.axis) == (name, axis):
                    there = other.positions()[:, self.turn.block_came_from(member.block)]
                    found_at = np.where((order >= 0)[:, None], there[np.maximum(order, 0)], -1)
                    # Another tensor that may be this layer can be shorter.
                    found_at[found_at >= found] = -1
                    along[member.positions().reshape(-1)] = found_at.reshape(-1)
        return along


def align(
    suspect: Mapping[str, FloatArray],
    reference: Reference,
    groups: Sequence[ChannelGroup],
    *,
    budget: Budget | None = None,
) -> Alignment:
    """Match a suspect's channels to the reference's.

    The suspect may be sparse, pruned further, fine-tuned, regrown or dense: of each layer only as many of its
    strongest weights as the reference keeps are compared. It may have other numbers of channels.

    Args:
        suspect: Weights under the reference's layer names, shape (out, in, *kernel); layers may be missing. Each is
            looked up once, so a lazy mapping keeps memory low.
        reference: The unmarked ticket.
        groups: Channel groups of the reference's model; members that are not masked layers are ignored.
        budget: Work that is left for this suspect, where it is aligned in several ways; one of its own if not given.

    Raises:
        UnverifiableError: The suspect has none of the reference's layers.
        TensorError: A layer has another number of axes, or other kernels, than the reference's.
    """
    names = [name for name in reference.mask if name in suspect]
    if not names:
        raise UnverifiableError(
            "the suspect has none of the reference's layers: check that it is the same architecture"
        )
    edges: dict[str, tuple[Edges, Edges]] = {}
    shapes: dict[str, Shape] = {}
    for name in names:
        layer, kept = suspect[name], reference.mask[name]
        _require_kernel(name, layer.shape, kept.shape)
        shapes[name] = layer.shape
        # Which edges a full layer has says nothing, but what they weigh: the suspect's strongest are compared with it.
        count = max(1, round(FULL_SHARE * kept.size)) if kept.all() else int(kept.sum())
        # What was added to a layer takes its share of the strongest.
        more = max(1.0, layer.size / kept.size)
        edges[name] = (
            strongest_edges(reference.layer_weights(name), count, kept),
            strongest_edges(layer, round(more * count)),
        )
    wanted = {name: reference.mask[name].shape for name in names}
    return _Search(edges, wanted, shapes, groups, budget or Budget.of(wanted, shapes)).best()


def _require_kernel(name: str, found: Shape, wanted: Shape) -> None:
    if len(found) != len(wanted) or found[CHANNEL_AXES:] != wanted[CHANNEL_AXES:]:
        raise TensorError(
            name=name,
            reason=f"has shape {found}, expected {wanted}, or another number of channels",
            hint="check that the suspect has the reference's architecture",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """One solution.

    Attributes:
        matching: What was matched.
        turn: How the kernels were turned before.
        orders: What was found.
        likeness: How much of what the matching did not see agrees.
    """

    matching: Matching
    turn: KernelTurn
    orders: Sequence[Order]
    likeness: Likeness


class _Search:
    """Tries turns, streams and starts, the likeliest first, until the suspect is clearly aligned."""

    def __init__(
        self,
        edges: Mapping[str, tuple[Edges, Edges]],
        reference: Mapping[str, Shape],
        suspect: Mapping[str, Shape],
        groups: Sequence[ChannelGroup],
        budget: Budget,
    ) -> None:
        self._whole = {name: one for name, (one, _) in edges.items()}
        self._seen, self._held_out = split(self._whole)
        self._suspect = {name: other for name, (_, other) in edges.items()}
        self._shapes = (reference, suspect)
        self._groups = groups
        self._budget = budget
        self._turns = turns_of(shape[CHANNEL_AXES:] for shape in reference.values())
        self._is_small = sum(len(one.values) for one in self._whole.values()) <= MOST_EDGES_TURNED

    def best(self) -> Alignment:
        """Return the solution that agrees best with what the matching did not see."""
        best: _Found | None = None
        for found in self._tried():
            if best is None or found.likeness.excess > best.likeness.excess:
                best = found
            if best.likeness.is_clear:
                break
        assert best is not None
        orders = best.orders
        if best.likeness.is_found:
            orders = self._matching(best.turn, best.matching.streams, self._whole).converge(orders)
        return Alignment(
            streams=best.matching.streams,
            orders=tuple(orders),
            turn=best.turn,
            overlap=best.likeness.overlap,
            chance=best.likeness.chance,
            deviations=best.likeness.deviations,
            is_found=best.likeness.is_found,
            is_clear=best.likeness.is_clear,
            complete=self._budget.kept,
        )

    def _tried(self) -> Iterator[_Found]:
        """Give solutions, the likeliest and cheapest first."""
        reference, suspect = self._shapes
        loose = loosened_streams(self._groups, reference, suspect)
        bound = bound_streams(self._groups, reference, suspect) if reference == suspect else ()
        stored = self._matching(UNTURNED, bound or loose)
        seen = []
        if not bound:
            # Of another size hardly a channel is where it was, while inputs and classes mostly are: the cheaper guess,
            # before the matching of what is not there has used the work up.
            seen.append(self._followed(stored, stored.place_unknown(stored.unknown(ends=True))))
            yield seen[-1]
        seen.append(self._followed(stored, stored.stored()))
        yield seen[-1]
        if bound:
            seen.append(self._followed(stored, stored.place_unknown(stored.unknown())))
            yield seen[-1]
        guessing = self._matching(UNTURNED, loose)
        for ends in (True, False):
            seen.append(self._followed(guessing, guessing.guessed(guessing.unknown(ends=ends), self._kinds)))
            yield seen[-1]
        best = max(seen, key=lambda found: found.likeness.excess)
        loosened = self._matching(best.turn, loose)
        yield self._followed(loosened, [_carried_over(stream, best) for stream in loose], best.turn)
        if bound and not best.likeness.is_found and self._is_small:
            for turn in self._turns[1:]:
                matching = self._matching(turn, bound)
                start = self._solution(matching, turn, matching.place_unknown(matching.unknown()))
                yield self._swept(start)

    def _kinds(self, places: int) -> IndexArray:
        return orbits(self._turns, places)

    def _followed(self, matching: Matching, start: Sequence[Order], turn: KernelTurn = UNTURNED) -> _Found:
        """Go on from a start, in the turn that agrees best."""
        return self._swept(self._turned_best(self._solution(matching, turn, start)))

    def _swept(self, best: _Found) -> _Found:
        """Go on: a sweep, and more where there is anything to follow."""
        once = self._solution(best.matching, best.turn, best.matching.converge(best.orders, passes=1))
        best = max(best, once, key=lambda found: found.likeness.excess)
        return self._converged(best) if best.likeness.deviations >= TRACE_DEVIATIONS else best

    def _turned_best(self, found: _Found) -> _Found:
        """Return a solution in the turn that it agrees best in; its own, where it is clear."""
        if found.likeness.is_clear:
            return found
        best = found
        for turn in self._turns:
            if self._budget.spend(STEPS_A_TURN * len(self._suspect)):
                other = self._solution(self._matching(turn, found.matching.streams), turn, found.orders)
                best = max(best, other, key=lambda one: one.likeness.excess)
        return best

    def _matching(
        self, turn: KernelTurn, streams: Sequence[Stream], reference: Mapping[str, Edges] | None = None
    ) -> Matching:
        turned = {name: _turned(edges, turn, self._shapes[1][name]) for name, edges in self._suspect.items()}
        for member in (member for stream in streams for member in stream.suspect if member.block > 1):
            turned[member.tensor] = _with_turned_blocks(turned[member.tensor], turn, member)
        return Matching(self._seen if reference is None else reference, turned, streams, self._budget)

    def _solution(self, matching: Matching, turn: KernelTurn, orders: Sequence[Order]) -> _Found:
        likeness = Likeness.of(self._held_out, {name: matching.aligned(name, orders) for name in self._held_out})
        return _Found(matching=matching, turn=turn, orders=orders, likeness=likeness)

    def _converged(self, start: _Found) -> _Found:
        """Sweep on until nothing changes, or while nothing is recognised until it gets no better."""
        best = start
        for _ in range(PASSES // PASSES_AT_ONCE):
            orders = best.matching.converge(best.orders, passes=PASSES_AT_ONCE)
            found = self._solution(best.matching, best.turn, orders)
            is_done = all(map(np.array_equal, orders, best.orders))
            if found.likeness.excess < best.likeness.excess:
                return best
            is_better = found.likeness.deviations > best.likeness.deviations + 0.5
            best = found
            if is_done or (not is_better and not best.likeness.is_found):
                break
        return best


def _turned(edges: Edges, turn: KernelTurn, shape: Shape) -> Edges:
    """Return the edges of a suspect's layer of this *shape* with its kernels turned."""
    kernel = shape[CHANNEL_AXES:]
    if not kernel or not turn.fits(kernel):
        return edges
    return dataclasses.replace(edges, kernel=np.argsort(turn.came_from(kernel))[edges.kernel])


def _with_turned_blocks(edges: Edges, turn: KernelTurn, member: GroupMember) -> Edges:
    """Return the edges with the places of the flattened maps of a *member* turned."""
    positions = member.positions()
    where = np.arange(edges.shape[member.axis], dtype=np.int64)
    where[positions] = positions[:, np.argsort(turn.block_came_from(member.block))]
    ends = list(edges.ends)
    ends[member.axis] = where[ends[member.axis]]
    return dataclasses.replace(edges, ends=(ends[0], ends[1]))


def _carried_over(stream: Stream, found: _Found) -> Order:
    """Return a stream's order as a solution of other streams has it."""
    member, other = stream.reference[0], stream.suspect[0]
    places = found.matching.places(member.tensor, member.axis, found.orders).places
    at = np.full(member.channels, -1, dtype=np.int64)
    channel_at = np.full(int(member.positions().max()) + 1, -1, dtype=np.int64)
    channel_at[member.positions()[:, 0]] = np.arange(member.channels)
    there = places[other.positions()[:, 0]]
    known = np.flatnonzero((there >= 0) & (there < len(channel_at)))
    channels = channel_at[there[known]]
    at[channels[channels >= 0]] = known[channels >= 0]
    return at
