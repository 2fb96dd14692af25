"""Search for the order of a suspect's channels: turns of the kernels, streams and starts, the likeliest first."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ticketguard.graph.agreement import Agreement
from ticketguard.graph.groups import CHANNEL_AXES, ChannelGroup, GroupMember, IndexArray
from ticketguard.graph.likeness import PART_DEVIATIONS, TRACE_DEVIATIONS, Ends, Likeness, split
from ticketguard.graph.matching import PASSES, STEPS_A_LOOK, Budget, LaidOut, Matching, Order
from ticketguard.graph.recognition import recognised
from ticketguard.graph.similarity import Edges
from ticketguard.graph.streams import Shape, Stream, bound_streams, loosened_streams
from ticketguard.graph.turns import UNTURNED, KernelTurn, orbits, turns_of

# Sweeps between two looks at how much is recognised.
PASSES_AT_ONCE = 2
# How often a solution says anew how likely each channel is another's.
MOST_REFINED = 4
# Of a network with more edges, turns are only looked for where a start that needs no turn finds a trace.
MOST_EDGES_TURNED = 50_000
# Held-out edges that a solution without the groups' ties must have found beyond one with them: a few come by chance.
LEAST_GAIN = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """Where channels lie, as far as it is known.

    Attributes:
        streams: The axes that were matched together.
        orders: Per stream; channel c of the reference is the suspect's channel ``orders[s][c]``, or -1 if it has none.
        turn: How the suspect's kernels are turned first.
        layers: The layers that were compared.
    """

    streams: tuple[Stream, ...]
    orders: tuple[IndexArray, ...]
    turn: KernelTurn
    layers: tuple[str, ...] = ()

    def along(self, name: str, axis: int, size: int, found: int) -> IndexArray:
        """Return the suspect's position for each of the reference's along an axis, -1 where it has none.

        Args:
            name: The layer.
            axis: Its axis.
            size: Positions that the reference has there.
            found: Positions that the suspect has there.
        """
        along = np.arange(size, dtype=np.int64)
        along[found:] = -1
        for member, other, order in self._members.get((name, axis), ()):
            there = other.positions()[:, self.turn.block_came_from(member.block)]
            found_at = np.where((order >= 0)[:, None], there[np.maximum(order, 0)], -1)
            # Another tensor that may be this layer can be shorter.
            found_at[found_at >= found] = -1
            along[member.positions().reshape(-1)] = found_at.reshape(-1)
        return along

    @functools.cached_property
    def _members(self) -> Mapping[tuple[str, int], Sequence[tuple[GroupMember, GroupMember, IndexArray]]]:
        """By layer and axis, what lies there of streams: in the reference, in the suspect, and its order."""
        members: dict[tuple[str, int], list[tuple[GroupMember, GroupMember, IndexArray]]] = {}
        for stream, order in zip(self.streams, self.orders, strict=True):
            for member, other in zip(stream.reference, stream.suspect, strict=True):
                members.setdefault((member.tensor, member.axis), []).append((member, other, order))
        return members


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
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

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The axes that were matched together."""
        return self.matching.streams


class Search:
    """Tries turns, streams and starts, the likeliest first, until the suspect is clearly aligned."""

    def __init__(
        self,
        edges: Mapping[str, tuple[Edges, Edges]],
        reference: Mapping[str, Shape],
        suspect: Mapping[str, Shape],
        groups: Sequence[ChannelGroup],
        budget: Budget,
        *,
        start: Placed | None = None,
        is_part: bool = False,
    ) -> None:
        self._whole = {name: one for name, (one, _) in edges.items()}
        self._seen, self._held_out = split(self._whole)
        self._suspect = {name: other for name, (_, other) in edges.items()}
        self._shapes = (reference, suspect)
        self._groups = groups
        self._budget = budget
        self._start = start
        self._orbits: dict[int, IndexArray] = {}
        self._laid_out: LaidOut = {}
        self._turns = turns_of(shape[CHANNEL_AXES:] for shape in reference.values())
        count = sum(len(one.values) for one in self._whole.values())
        self._is_small = count <= MOST_EDGES_TURNED and not is_part
        self._is_part = is_part

    def best(self) -> Found:
        """Return the solution that agrees best with what the matching did not see."""
        best: Found | None = None
        for found in self._tried():
            if best is None or found.likeness.excess > best.likeness.excess:
                best = found
            if best.likeness.is_clear or not self._budget.is_left:
                break
        assert best is not None
        if not best.likeness.is_clear and self._has_trace(best):
            refined = self._refined(best, self._seen)
            best = max(best, self._solution(best.matching, best.turn, refined.orders), key=_excess)
        # A part is a start for the rest, which are matched with it.
        if not best.likeness.is_found or self._is_part:
            return best
        best = self._refined(best, self._whole)
        untied = self._unbound(best)
        return untied if untied is best else self._refined(untied, self._whole)

    def recognised(self, best: Found) -> list[Order]:
        """Return the orders of a solution without the channels that share no more with the reference's than others."""
        known = recognised(self._whole, *_lying(best))
        return [np.where(there, order, -1) for there, order in zip(known, best.orders, strict=True)]

    def _refined(self, found: Found, reference: Mapping[str, Edges]) -> Found:
        """Return a solution whose doubtful streams were matched again, by how the rest agrees, while that changes any.

        Args:
            found: Aligned to most of the reference.
            reference: The reference's edges that the matching sees.
        """
        for _ in range(MOST_REFINED):
            agreement = Agreement.of(reference, *_lying(found))
            if not agreement.doubtful or not self._budget.is_left:
                break
            matching = self._matching(found.turn, found.matching.streams, reference, agreement)
            orders = matching.converge(found.orders, only=agreement.doubtful)
            if all(map(np.array_equal, orders, found.orders)):
                break
            found = dataclasses.replace(found, orders=orders)
        return found

    def _unbound(self, found: Found) -> Found:
        """Return a solution with the groups' ties undone, where more is in its place then: classes permuted, say."""
        loose = loosened_streams(self._groups, *self._shapes)
        tied = [set(stream.pairs) for stream in found.matching.streams]
        untied = [index for index, stream in enumerate(loose) if set(stream.pairs) not in tied]
        if not untied:
            return found
        matching = self._matching(found.turn, loose)
        orders = matching.matched([_carried_over(stream, found) for stream in loose], untied)
        other = self._solution(matching, found.turn, orders)
        bound = self._solution(found.matching, found.turn, found.orders)
        gain = sum(other.likeness.found.values()) - sum(bound.likeness.found.values())
        return other if gain >= LEAST_GAIN else found

    def _tried(self) -> Iterator[Found]:
        """Give solutions, the likeliest and cheapest first."""
        reference, suspect = self._shapes
        loose = loosened_streams(self._groups, reference, suspect)
        bound = bound_streams(self._groups, reference, suspect) if reference == suspect else ()
        if self._start is not None:
            yield self._continued(self._start, bound, loose)
        seen = []
        for found in self._started(bound, loose):
            seen.append(found)
            yield found
        is_hidden = bound and self._is_small and not max(seen, key=_excess).likeness.is_found
        for turn in self._turns[1:] if is_hidden else ():
            matching = self._matching(turn, bound)
            start = self._solution(matching, turn, matching.place_unknown(matching.unknown()))
            yield self._swept(start)

    def _started(self, bound: Sequence[Stream], loose: Sequence[Stream]) -> Iterator[Found]:
        """Give a solution from each start that needs no turn."""
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
        best = max(seen, key=_excess)
        if self._is_part and not self._has_trace(best):
            return
        loosened = self._matching(best.turn, loose)
        yield self._followed(loosened, [_carried_over(stream, best) for stream in loose], best.turn)

    def _continued(self, start: Placed, bound: Sequence[Stream], loose: Sequence[Stream]) -> Found:
        """Go on from what was found in some layers: it says where many of the others' channels lie."""
        reference, suspect = ({name: shapes[name] for name in start.layers} for shapes in self._shapes)
        was_bound = bound and start.streams == bound_streams(self._groups, reference, suspect)
        matching = self._matching(start.turn, bound if was_bound else loose)
        orders = [
            unknown if found is None else found
            for unknown, found in zip(
                matching.unknown(),
                (read_off(stream, start, *self._shapes) for stream in matching.streams),
                strict=True,
            )
        ]
        return self._swept(self._solution(matching, start.turn, matching.place_unknown(orders)))

    def _kinds(self, places: int) -> IndexArray:
        if places not in self._orbits:
            self._orbits[places] = orbits(self._turns, places)
        return self._orbits[places]

    def _followed(self, matching: Matching, start: Sequence[Order], turn: KernelTurn = UNTURNED) -> Found:
        """Go on from a start, in the turn that agrees best."""
        return self._swept(self._turned_best(self._solution(matching, turn, start)))

    def _swept(self, best: Found) -> Found:
        """Go on: a sweep, and more where there is anything to follow, while there is work left."""
        if best.likeness.is_clear or not self._budget.is_left:  # of what is clear, what is doubtful is matched again
            return best
        once = self._solution(best.matching, best.turn, best.matching.converge(best.orders, passes=1))
        best = max(best, once, key=_excess)
        return self._converged(best) if self._has_trace(best) and not best.likeness.is_clear else best

    def _has_trace(self, found: Found) -> bool:
        """Say whether a solution is worth following: of the best of many by chance, a part shows that more clearly."""
        return found.likeness.deviations >= (PART_DEVIATIONS if self._is_part else TRACE_DEVIATIONS)

    def _turned_best(self, found: Found) -> Found:
        """Return a solution in the turn that it agrees best in; its own, where it is clear."""
        if found.likeness.is_clear:
            return found
        cost = STEPS_A_LOOK * len(self._suspect)
        turns = [turn for turn in self._turns if turn != found.turn and self._budget.spend(cost)]
        streams = found.matching.streams
        if any(member.block > 1 for stream in streams for member in stream.suspect):
            others = [self._look(self._matching(turn, streams), turn, found.orders) for turn in turns]
            return max([found, *others], key=_excess)
        unturned = found.matching if found.turn.is_none else self._matching(UNTURNED, streams)
        places = [self._places(turn) for turn in turns]
        seen = Likeness.in_turns(self._held_out, self._aligned(unturned, found.orders), places)
        best, likeness = max(
            zip(turns, seen, strict=True), key=lambda one: one[1].excess, default=(found.turn, found.likeness)
        )
        if likeness.excess <= found.likeness.excess:
            return found
        return Found(matching=self._matching(best, streams), turn=best, orders=found.orders, likeness=likeness)

    def _places(self, turn: KernelTurn) -> dict[str, IndexArray]:
        """Return which place of the kernel comes to each, by layer."""
        kernels = {name: shape[CHANNEL_AXES:] for name, shape in self._shapes[1].items()}
        return {name: turn.came_from(kernel) for name, kernel in kernels.items() if kernel and turn.fits(kernel)}

    def _aligned(self, matching: Matching, orders: Sequence[Order]) -> dict[str, Ends]:
        return {name: matching.aligned(name, orders).placed() for name in self._held_out}

    def _matching(
        self,
        turn: KernelTurn,
        streams: Sequence[Stream],
        reference: Mapping[str, Edges] | None = None,
        agreement: Agreement | None = None,
    ) -> Matching:
        turned = dict(self._suspect)
        if not turn.is_none:
            turned = {name: _turned(edges, turn, self._shapes[1][name]) for name, edges in self._suspect.items()}
        blocks = [member for stream in streams for member in stream.suspect if member.block > 1]
        for member in () if turn.is_none else blocks:
            turned[member.tensor] = _with_turned_blocks(turned[member.tensor], turn, member)
        seen = self._seen if reference is None else reference
        return Matching(seen, turned, streams, self._budget, self._laid_out, agreement)

    def _solution(self, matching: Matching, turn: KernelTurn, orders: Sequence[Order]) -> Found:
        self._budget.spend(STEPS_A_LOOK * len(self._suspect))
        return self._look(matching, turn, orders)

    def _look(self, matching: Matching, turn: KernelTurn, orders: Sequence[Order]) -> Found:
        likeness = Likeness.of(self._held_out, self._aligned(matching, orders))
        return Found(matching=matching, turn=turn, orders=orders, likeness=likeness)

    def _converged(self, start: Found) -> Found:
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


def _lying(found: Found) -> tuple[dict[str, Edges], list[ChannelGroup]]:
    """Return a solution's edges where they lie in the reference's layers, and where its channels lie there."""
    edges = {name: found.matching.aligned(name, found.orders) for name in found.likeness.found}
    return edges, [stream.reference for stream in found.matching.streams]


def _excess(found: Found) -> float:
    return found.likeness.excess


def _turned(edges: Edges, turn: KernelTurn, shape: Shape) -> Edges:
    """Return the edges of a suspect's layer of this *shape* with its kernels turned."""
    kernel = shape[CHANNEL_AXES:]
    if not kernel or not turn.fits(kernel):
        return edges
    return dataclasses.replace(
        edges, kernel=np.argsort(turn.came_from(kernel)).astype(edges.kernel.dtype)[edges.kernel]
    )


def _with_turned_blocks(edges: Edges, turn: KernelTurn, member: GroupMember) -> Edges:
    """Return the edges with the places of the flattened maps of a *member* turned."""
    positions = member.positions()
    where = np.arange(edges.shape[member.axis], dtype=np.int64)
    where[positions] = positions[:, np.argsort(turn.block_came_from(member.block))]
    ends = list(edges.ends)
    ends[member.axis] = where[ends[member.axis]]
    return dataclasses.replace(edges, ends=(ends[0], ends[1]))


def _carried_over(stream: Stream, found: Found) -> Order:
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


def read_off(
    stream: Stream, start: Placed, reference: Mapping[str, Shape], suspect: Mapping[str, Shape]
) -> Order | None:
    """Return a stream's order as it was found in some layers; None if it goes through none of them."""
    for member, other in zip(stream.reference, stream.suspect, strict=True):
        if member.tensor not in start.layers:
            continue
        along = start.along(
            member.tensor, member.axis, reference[member.tensor][member.axis], suspect[member.tensor][member.axis]
        )
        channel_at = np.full(suspect[member.tensor][member.axis], -1, dtype=np.int64)
        channel_at[other.positions().reshape(-1)] = np.repeat(np.arange(other.channels), other.block)
        first = along[member.positions()[:, 0]]
        return np.where(first >= 0, channel_at[np.maximum(first, 0)], -1)
    return None
