"""Match a suspect's channels to the reference's, stream by stream, by the edges they have in common.

Each stream is one rectangular linear assignment, the others held fixed, until nothing changes (weight matching,
Ainsworth et al. 2023, "Git Re-Basin", algorithm 1). Where the suspect has more channels than the reference some are
left over; where it has fewer, some of the reference's stay without a counterpart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.agreement import Agreement, channel_nats
from ticketguard.graph.assignment import best_assignment
from ticketguard.graph.fingerprints import ROUNDS, WIDTH, alike, fingerprints
from ticketguard.graph.groups import GroupMember, IndexArray
from ticketguard.graph.rows import Known, Places, Rows, member_similarity
from ticketguard.graph.similarity import Edges
from ticketguard.graph.streams import Shape, Stream

# A pass over all streams costs one assignment each; matching converges in 3 to 8 passes, or is lost.
PASSES = 30
# Breaks ties in favour of what is: channels without edges stay where they are.
STAY_BONUS = 1e-6
# Groups are somebody else's file, and an assignment of n channels takes up to n^3 steps (of 2 to 5 ns) and n^2 numbers:
# what a network of this size has, several times over, and no more. Of its own, each part of a stream costs as much as
# this many steps.
FREE_STEPS, STEPS_A_POSITION, STEPS_A_MEMBER = 2 * 10**9, 4096, 300_000
# So does looking at one layer, to see how much of it agrees.
STEPS_A_LOOK = 100_000
FREE_CELLS, CELLS_A_POSITION = 2**23, 4

# Edges of which more is kept than where they are, a few dozen bytes each: large layers are worth their time without it.
MOST_KEPT = 2**21

# How members' edges are laid out, by the edges (which are kept with it), the member, and the size of its other axis.
LaidOut: TypeAlias = dict[tuple[int, GroupMember, int], Rows]
# Per stream the suspect's channel for each of the reference's, -1 where it has none; None while it is not known.
Order = IndexArray
Orders = Sequence[Order | None]


class Budget:
    """Work that is left; shared by everything that is tried for one network: conventions, turns, starts, pairings.

    Args:
        positions: Positions of its layers.
        shares: In how many what is free is divided; this is one of them.
    """

    def __init__(self, positions: int, *, shares: int = 1) -> None:
        self._left = FREE_STEPS // shares + STEPS_A_POSITION * positions
        self.kept = True

    @classmethod
    def of(cls, reference: Mapping[str, Shape], suspect: Mapping[str, Shape], *, shares: int = 1) -> Budget:
        """Return what layers of these shapes are worth, with one of some *shares* of what is free."""
        positions = sum(math.prod(shape) for shape in (*reference.values(), *suspect.values())) // 2
        return cls(positions, shares=shares)

    @property
    def is_left(self) -> bool:
        """Whether any is."""
        return self._left >= 0

    def set_aside(self, share: float) -> Budget:
        """Take a *share* of what is left, for what comes last; `give_back` what is left of it."""
        aside = Budget(0)
        aside._left = int(share * max(0, self._left))
        self._left -= aside._left
        return aside

    def give_back(self, aside: Budget) -> None:
        """Take back what is left of what was set aside."""
        self._left += aside._left
        self.kept = self.kept and aside.kept

    def spend(self, steps: int) -> bool:
        """Say whether so many steps are left; once they are not, matching ends with what it has."""
        self._left -= steps
        self.kept = self.kept and self.is_left
        return self.is_left


class Matching:
    """One way to see a suspect: its edges and its streams.

    Args:
        reference: The reference's edges by layer.
        suspect: The suspect's.
        streams: What is matched.
        budget: Work that may be done.
        laid_out: Keeps how edges are laid out, for other ways to see the same suspect.
        agreement: How the two agree, where most of the suspect is aligned already; all orders are known then.
    """

    def __init__(
        self,
        reference: Mapping[str, Edges],
        suspect: Mapping[str, Edges],
        streams: Sequence[Stream],
        budget: Budget,
        laid_out: LaidOut | None = None,
        agreement: Agreement | None = None,
    ) -> None:
        self._reference, self._suspect, self.streams, self._budget = reference, suspect, tuple(streams), budget
        self._is_left_out = [self._is_too_large(stream) for stream in self.streams]
        self._agreement = agreement
        self._rows: LaidOut = {} if laid_out is None else laid_out
        self._known: dict[GroupMember, Known] = {}
        self._touching: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for index, stream in enumerate(self.streams):
            for place, member in enumerate(stream.reference):
                self._touching.setdefault((member.tensor, member.axis), []).append((index, place))

    def _is_too_large(self, stream: Stream) -> bool:
        names = {member.tensor for member in stream.reference}
        positions = sum(math.prod(self._suspect[name].shape) + math.prod(self._reference[name].shape) for name in names)
        too_large = stream.channels * stream.suspect_channels > FREE_CELLS + CELLS_A_POSITION * positions // 2
        if too_large:
            self._budget.kept = False
        return too_large

    def stored(self) -> list[Order]:
        """Return the orders of a suspect whose channels are where the reference's are."""
        return [in_place(stream) for stream in self.streams]

    def unknown(self, *, ends: bool = False) -> list[Order | None]:
        """Return the orders of a suspect of which nothing is known, but for *ends*: axes of their own, in place."""
        return [
            in_place(stream) if out or (ends and len(stream.reference) == 1) else None
            for stream, out in zip(self.streams, self._is_left_out, strict=True)
        ]

    def place_unknown(self, start: Orders) -> list[Order]:
        """Match the streams that are not known once each, those that know most of their other ends first."""
        current = list(start)
        while self._budget.is_left and any(order is None for order in current):
            index = max(
                (i for i, order in enumerate(current) if order is None), key=lambda i: self._anchored(i, current)
            )
            current[index] = self._match(index, current)
        stored = self.stored()
        return [there if order is None else order for order, there in zip(current, stored, strict=True)]

    def guessed(self, start: Orders, kinds: Callable[[int], IndexArray]) -> list[Order]:
        """Match the streams that are not known by the fingerprints of their channels.

        Args:
            start: What is known.
            kinds: Numbers places of a kernel so that those which turns bring to each other have one number.
        """
        if not self._budget.spend(self._steps_of_guess(start)):
            return [there if order is None else order for order, there in zip(start, self.stored(), strict=True)]
        ones = fingerprints(
            self._reference,
            [stream.reference for stream in self.streams],
            [
                None if order is None else np.arange(stream.channels)
                for stream, order in zip(self.streams, start, strict=True)
            ],
            kinds,
        )
        others = fingerprints(
            self._suspect,
            [stream.suspect for stream in self.streams],
            [
                None if order is None else inverse(order, stream.suspect_channels)
                for stream, order in zip(self.streams, start, strict=True)
            ],
            kinds,
        )
        orders = []
        for stream, order, one, other in zip(self.streams, start, ones, others, strict=True):
            if order is None:
                order = self._assigned(alike(one, other), otherwise=in_place(stream))
            orders.append(order)
        return orders

    def _steps_of_guess(self, start: Orders) -> int:
        """Return what fingerprints cost, and comparing them."""
        steps = 0
        for stream, order in zip(self.streams, start, strict=True):
            for member in stream.reference:
                edges = len(self._reference[member.tensor].values) + len(self._suspect[member.tensor].values)
                steps += ROUNDS * (STEPS_A_MEMBER + 2 * WIDTH * edges)
            if order is None:
                steps += 2 * WIDTH * len(stream.reference) * stream.channels * stream.suspect_channels
        return steps

    def matched(self, start: Sequence[Order], indices: Iterable[int]) -> list[Order]:
        """Match some of the streams once, each by what is known of all others at the start."""
        found = list(start)
        for index in indices:
            if not self._is_left_out[index] and self._budget.is_left:
                found[index] = self._match(index, start)
        return found

    def converge(
        self, start: Sequence[Order], passes: int = PASSES, *, only: Iterable[int] | None = None
    ) -> list[Order]:
        """Match every stream again and again until nothing changes.

        Args:
            start: Where channels lie so far.
            passes: Sweeps at most.
            only: Streams to match at first; the others are, where they lie beside something that moved.
        """
        current: list[Order] = list(start)
        # Only what lies beside something that moved can find anything new.
        first = range(len(self.streams)) if only is None else only
        waiting = {index for index in first if not self._is_left_out[index]}
        for sweep in range(passes):
            order = range(len(self.streams))
            for index in order if sweep % 2 else reversed(order):
                if index not in waiting or not self._budget.is_left:
                    continue
                waiting.discard(index)
                found = self._match(index, current)
                if not np.array_equal(found, current[index]):
                    current[index] = found
                    waiting |= self._beside(index)
            if not waiting:
                break
        return current

    def _beside(self, index: int) -> set[int]:
        """Return the streams that are matched by where a stream's channels lie."""
        return {
            other
            for member in self.streams[index].reference
            for other, _ in self._touching.get((member.tensor, 1 - member.axis), ())
            if not self._is_left_out[other]
        }

    def _anchored(self, index: int, current: Orders) -> float:
        """Return the share of a stream's edges whose other end is known already."""
        known = total = 0
        for member in self.streams[index].reference:
            edges = self._reference[member.tensor]
            self._budget.spend(STEPS_A_MEMBER // 10 + 3 * (len(edges.values) + sum(edges.shape[:2])))
            unknown = self.places(member.tensor, 1 - member.axis, current).unknown_reference
            known += int((~unknown[edges.ends[1 - member.axis]]).sum())
            total += len(edges.values)
        return known / max(1, total)

    def places(self, name: str, axis: int, current: Orders) -> Places:
        """Return where the suspect's positions on an axis lie in the reference."""
        size, found = self._reference[name].shape[axis], self._suspect[name].shape[axis]
        places = np.arange(found, dtype=np.int64)
        places[size:] = Places.NOWHERE
        unknown_reference = np.zeros(size, dtype=np.bool_)
        for index, place in self._touching.get((name, axis), ()):
            stream, order = self.streams[index], current[index]
            here, there = stream.reference[place].positions(), stream.suspect[place].positions()
            if order is None:
                places[there.reshape(-1)] = Places.UNKNOWN
                unknown_reference[here.reshape(-1)] = True
                continue
            places[there.reshape(-1)] = Places.NOWHERE
            has_one = np.flatnonzero(order >= 0)
            places[there[order[has_one]].reshape(-1)] = here[has_one].reshape(-1)
        return Places(places=places, unknown_reference=unknown_reference)

    def _match(self, index: int, current: Orders) -> Order:
        stream, held = self.streams[index], current[index]
        nats = np.zeros((stream.channels, stream.suspect_channels), dtype=np.float32)
        for member, other in zip(stream.reference, stream.suspect, strict=True):
            reference, suspect = self._reference[member.tensor], self._suspect[member.tensor]
            edges = len(reference.values) + len(suspect.values)
            self._budget.spend(STEPS_A_MEMBER + 10 * (edges + sum(reference.shape[:2]) + sum(suspect.shape[:2])))
            places = self.places(member.tensor, 1 - member.axis, current)
            size = len(places.unknown_reference)
            rows = (self._laid_out(reference, member, size), self._laid_out(suspect, other, size))
            whole = self._whole(member, rows[0], places)
            if self._agreement is None or whole is None:
                nats += member_similarity(rows[0], whole, rows[1], places)
            else:
                moved = rows[1].known(places.places, rows[0].rarity)
                nats += channel_nats(whole, moved, self._agreement.layers[member.tensor], member.axis)
        similarity = nats.astype(np.float64)
        if held is not None:
            here = np.flatnonzero(held >= 0)
            similarity[here, held[here]] += STAY_BONUS
        return self._assigned(similarity, otherwise=in_place(stream) if held is None else held)

    def _laid_out(self, edges: Edges, member: GroupMember, size: int) -> Rows:
        """Return a member's edges with one row per channel; small ones are kept, for they do not depend on an order."""
        key = (id(edges), member, size)
        if key in self._rows:
            return self._rows[key]
        rows = Rows(edges, member, size)
        if sum(len(kept.values) for kept in self._rows.values()) + len(rows.values) <= MOST_KEPT:
            self._rows[key] = rows
        return rows

    def _whole(self, member: GroupMember, rows: Rows, places: Places) -> Known | None:
        """Return the reference's edges, once the other ends of all are known."""
        if places.unknown_reference.any():
            return None
        if member in self._known:
            return self._known[member]
        known = rows.known(np.arange(len(places.unknown_reference)), rows.rarity)
        if sum(len(kept.column) for kept in self._known.values()) + len(known.column) <= MOST_KEPT // 2:
            self._known[member] = known
        return known

    def _assigned(self, similarity: npt.NDArray[np.float64], otherwise: Order) -> Order:
        """Return the order with the largest sum of similarities, or another where that is too much work."""
        # A channel whose first choice nobody else wants is placed in one pass over the others; what is contested takes
        # a search.
        least, most = sorted(similarity.shape)
        choices = similarity.argmax(axis=1 if len(similarity) == least else 0)
        wanted = np.count_nonzero(np.bincount(choices, minlength=most))
        if not self._budget.spend(least * most * (1 + least - int(wanted))):
            return otherwise
        order = np.full(len(similarity), -1, dtype=np.int64)
        rows, columns = best_assignment(similarity)
        order[rows] = columns
        return order

    def aligned(self, name: str, orders: Sequence[Order]) -> Edges:
        """Return the suspect's edges in a layer of the reference, where they lie there; those that have a place."""
        suspect = self._suspect[name]
        out, given = (self.places(name, axis, orders).places[suspect.ends[axis]] for axis in (0, 1))
        there = (out >= 0) & (given >= 0)
        return Edges(
            shape=self._reference[name].shape,
            ends=(out[there], given[there]),
            kernel=suspect.kernel[there],
            values=suspect.values[there],
        )


def in_place(stream: Stream) -> Order:
    """Return the order in which channel *c* is the suspect's channel *c*, where it has as many."""
    order = np.arange(stream.channels, dtype=np.int64)
    order[stream.suspect_channels :] = -1
    return order


def inverse(order: Order, channels: int) -> Order:
    """Return the reference's channel of each of so many *channels* of the suspect, -1 where it has none."""
    back = np.full(channels, -1, dtype=np.int64)
    here = np.flatnonzero(order >= 0)
    back[order[here]] = here
    return back
