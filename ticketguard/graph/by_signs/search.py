"""Search for the order of a suspect's channels by signs: the likeliest and cheapest ways first, until one is clear."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ticketguard.graph.by_signs.coded import Signs, StartSigns, turned
from ticketguard.graph.by_signs.found import SURE, Found, completed, learned
from ticketguard.graph.by_signs.judging import judged
from ticketguard.graph.by_signs.scoring import Matrix, Place, Scoring
from ticketguard.graph.by_signs.sweeping import State, annealed, converged, made_up, placed_once, pointed
from ticketguard.graph.by_signs.tables import ASSUMED, PRESENCE, Table
from ticketguard.graph.groups import CHANNEL_AXES, ChannelGroup
from ticketguard.graph.likeness import PART_DEVIATIONS, TRACE_DEVIATIONS
from ticketguard.graph.matching import STEPS_A_LOOK, Budget, in_place
from ticketguard.graph.search import Placed, read_off
from ticketguard.graph.streams import Shape, Stream, bound_streams, loosened_streams
from ticketguard.graph.turns import UNTURNED, KernelTurn, turns_of

# Sweeps of a matching outright, and of one that begins with little certainty.
PASSES, FIRST_SWEEPS, LAST_SWEEPS = 6, 8, 6
LEAST_CERTAIN, SETTLED = 0.1, 0.5
# Share of the work that is left that matching by all positions may take at the end.
LAST_SHARE = 0.125
# Sweeps from one end alone, of which the first show whether there is anything. What is said is believed at once: less
# is lost on the way to the other end.
LOOKING_SWEEPS, GOING_SWEEPS = 6, 12
# Of networks with edges at this share of their positions a guess of where one input or class lies is enough, if it is
# one of so few; it shows a trace after so many sweeps.
DENSE, MOST_GUESSES, GUESSING_SWEEPS = 0.4, 16, 4
# Turns are only looked for in small networks, of so many positions.
MOST_POSITIONS_TURNED = 1_000_000
# So are guesses.
MOST_POSITIONS_GUESSED = 1_000_000


class SignSearch:
    """Tries streams, starts, flips and turns until the suspect is clearly aligned.

    Args:
        starts: The start's layers.
        suspect: The suspect's.
        reference: Shapes of the start's layers.
        shapes: Shapes of the suspect's.
        groups: Channel groups.
        budget: Work that may be done.
        start: What was found in some of the layers.
        is_part: Whether these are a few layers of a larger network.
        fuller: Gives the suspect's layers with more of the edges of full ones.
    """

    def __init__(
        self,
        starts: Mapping[str, StartSigns],
        suspect: Mapping[str, Signs],
        reference: Mapping[str, Shape],
        shapes: Mapping[str, Shape],
        groups: Sequence[ChannelGroup],
        budget: Budget,
        *,
        start: Placed | None = None,
        is_part: bool = False,
        fuller: Callable[[], Mapping[str, Signs]] | None = None,
    ) -> None:
        self._fuller = fuller
        self._starts, self._suspect, self._shapes = starts, suspect, (reference, shapes)
        self._groups, self._budget, self._start, self._is_part = groups, budget, start, is_part
        self._kinds = {name: one.kinds for name, one in starts.items()}

    def best(self) -> Found:
        """Return the solution that agrees best with what the matching did not see; matched again by all, if found."""
        aside = self._budget.set_aside(LAST_SHARE)
        best: Found | None = None
        for found in self._tried():
            if best is None or found.rank > best.rank:
                best = self._followed(found)
            if best.likeness.is_clear or not self._budget.is_left:
                break
        assert best is not None
        # A part is a start for the rest, which are judged by the same positions.
        if best.likeness.is_found and not self._is_part:
            best = completed(best, self._starts, aside)
        self._budget.give_back(aside)
        return best

    def _followed(self, found: Found) -> Found:
        """Go on from what has a trace and is not clear by signs, by what edges say there, as long as that is better."""
        if self._is_part or found.likeness.deviations < PART_DEVIATIONS:
            return found
        for _ in range(PASSES):
            if found.judgement.signs.is_clear or not self._budget.is_left:
                break
            further = self._found(found.scoring, found.turn, learned(found.scoring, found.state))
            if further.rank <= found.rank:
                break
            found = further
        return found

    def _tried(self) -> Iterator[Found]:
        """Give solutions, the likeliest and cheapest first."""
        bound, loose = self._bound, self._loose
        if self._start is not None:
            yield self._continued(self._start)
        stored = self._scoring(bound or loose)
        places = [in_place(one) for one in stored.streams]
        yield self._settled(stored, UNTURNED, self._state(stored, places))
        yield self._found(stored, UNTURNED, pointed(stored, self._state(stored, places, may_flip=True)))
        for streams, may_flip in ((bound, False), (bound, True), (loose, False), (loose, True)):
            if not streams:
                continue
            scoring = self._scoring(streams)
            if not may_flip:
                yield self._settled(scoring, UNTURNED, self._from_ends(scoring))
            yield self._annealed(scoring, UNTURNED, self._ends(scoring), may_flip=may_flip)
            if streams is (bound or loose) and not may_flip:
                yield self._annealed(scoring, UNTURNED, self._ends(scoring), table=PRESENCE)
        if self._is_part:  # the rest needs the work that is left
            return
        yield from self._from_one_end(loose)
        yield from self._from_guesses(loose)
        if sum(layer.size for layer in self._kinds.values()) <= MOST_POSITIONS_TURNED:
            yield from self._turned(bound or loose)

    def _from_one_end(self, streams: Sequence[Stream]) -> Iterator[Found]:
        """Give solutions for inputs in any order and classes in place, and for classes in any order.

        Where as many ends are in the wrong place as in the right one, they speak against all that is right.
        """
        scoring = self._scoring(streams)
        ends = self._ends(scoring)
        for axis in (0, 1):
            fixed = [index for index in ends if streams[index].reference[0].axis == axis]
            if not 0 < len(fixed) < len(ends):
                continue
            places: list[Place] = [
                in_place(stream) if left_out or index in fixed else _anywhere(stream)
                for index, (stream, left_out) in enumerate(zip(streams, scoring.is_left_out, strict=True))
            ]
            state = annealed(scoring, self._state(scoring, places), [SURE] * LOOKING_SWEEPS, fixed=fixed)
            found = self._found(scoring, UNTURNED, state)
            if self._has_trace(found):
                yield self._found(scoring, UNTURNED, annealed(scoring, state, [SURE] * GOING_SWEEPS))
            else:
                yield found

    def _from_guesses(self, streams: Sequence[Stream]) -> Iterator[Found]:
        """Give solutions for inputs and classes in any order, each from a guess of where the first one of them lies."""
        positions = sum(layer.size for layer in self._suspect.values())
        if positions > MOST_POSITIONS_GUESSED or self._fuller is None:
            return
        suspect = self._fuller()
        scoring = Scoring(self._kinds, suspect, streams, self._budget)
        ends = [index for index in self._ends(scoring) if streams[index].suspect_channels <= MOST_GUESSES]
        if not ends or sum(map(np.count_nonzero, suspect.values())) < DENSE * positions:
            return
        end = min(ends, key=lambda index: streams[index].suspect_channels)
        for guess in range(streams[end].suspect_channels):
            places: list[Place] = [
                in_place(stream) if left_out else _anywhere(stream)
                for stream, left_out in zip(streams, scoring.is_left_out, strict=True)
            ]
            places[end] = _guessed(streams[end], guess)
            state = annealed(scoring, self._state(scoring, places), [SURE], fixed=[end])
            state = annealed(scoring, state, [SURE] * (GUESSING_SWEEPS - 1))
            found = self._found(scoring, UNTURNED, state)
            if found.likeness.deviations >= PART_DEVIATIONS:
                found = self._found(scoring, UNTURNED, annealed(scoring, state, [SURE] * GOING_SWEEPS))
            yield found

    def _turned(self, streams: Sequence[Stream]) -> Iterator[Found]:
        """Give a solution in the turn that agrees best from the ends."""
        seen = []
        for turn in turns_of(shape[CHANNEL_AXES:] for shape in self._shapes[0].values())[1:]:
            scoring = self._scoring(streams, turn)
            seen.append(self._settled(scoring, turn, self._from_ends(scoring)))
            yield seen[-1]
        if seen:
            best = max(seen, key=lambda found: found.rank)
            yield self._annealed(best.scoring, best.turn, self._ends(best.scoring))

    @functools.cached_property
    def _bound(self) -> tuple[Stream, ...]:
        reference, suspect = self._shapes
        return bound_streams(self._groups, reference, suspect) if dict(reference) == dict(suspect) else ()

    @functools.cached_property
    def _loose(self) -> tuple[Stream, ...]:
        return loosened_streams(self._groups, *self._shapes)

    def _scoring(self, streams: Sequence[Stream], turn: KernelTurn = UNTURNED) -> Scoring:
        suspect = self._suspect
        if not turn.is_none:
            kernels = {name: shape[CHANNEL_AXES:] for name, shape in self._shapes[1].items()}
            blocks = [member for stream in streams for member in stream.suspect if member.block > 1]
            suspect = turned(suspect, turn, kernels, blocks)
        return Scoring(self._kinds, suspect, streams, self._budget)

    def _state(
        self, scoring: Scoring, places: Sequence[Place], *, may_flip: bool = False, table: Table = ASSUMED
    ) -> State:
        return State(
            places=tuple(places),
            tables=dict.fromkeys(scoring.kinds, table),
            flips=scoring.unknown_flips() if may_flip else {},
            may_flip=may_flip,
        )

    def _found(self, scoring: Scoring, turn: KernelTurn, state: State) -> Found:
        self._budget.spend(STEPS_A_LOOK * len(scoring.kinds))
        sure = made_up(scoring, state)
        judgement = judged(self._starts, scoring, sure)
        return Found(scoring=scoring, turn=turn, state=sure, unsure=state, judgement=judgement)

    def _unknown(self, scoring: Scoring) -> list[Place]:
        """Return what is known of a suspect at first: axes of their own, inputs and classes, are where they were."""
        return [
            in_place(stream) if left_out or len(stream.reference) == 1 else None
            for stream, left_out in zip(scoring.streams, scoring.is_left_out, strict=True)
        ]

    def _from_ends(self, scoring: Scoring) -> State:
        """Match streams once each, those that know most of their other ends first."""
        return placed_once(scoring, self._state(scoring, self._unknown(scoring)))

    def _settled(self, scoring: Scoring, turn: KernelTurn, state: State) -> Found:
        """Go on from a start outright, while there is anything to follow."""
        best = self._found(scoring, turn, state)
        if best.likeness.is_clear:
            return best
        for passes in (2, PASSES):
            found = self._found(scoring, turn, converged(scoring, best.state, passes))
            if found.rank <= best.rank:
                break
            best = found
            if best.likeness.is_clear or not self._has_trace(best):
                break
        return best

    def _ends(self, scoring: Scoring) -> list[int]:
        """Return streams that mostly are where they were: axes of their own, as inputs and classes."""
        return [index for index, stream in enumerate(scoring.streams) if len(stream.reference) == 1]

    def _annealed(
        self,
        scoring: Scoring,
        turn: KernelTurn,
        ends: Sequence[int],
        *,
        may_flip: bool = False,
        table: Table = ASSUMED,
    ) -> Found:
        """Match with growing certainty, and no further than half where that shows nothing.

        Args:
            scoring: What is compared.
            turn: How the kernels were turned before.
            ends: Streams that are where they were, until most of the rest is placed.
            may_flip: Whether outputs may be flipped.
            table: What is assumed that edges say. Without signs it is too little to put the ends in order by as well.
        """
        places: list[Place] = [
            in_place(stream) if left_out or index in ends else _anywhere(stream)
            for index, (stream, left_out) in enumerate(zip(scoring.streams, scoring.is_left_out, strict=True))
        ]
        state = self._state(scoring, places, may_flip=may_flip, table=table)
        state = annealed(scoring, state, np.geomspace(LEAST_CERTAIN, SETTLED, FIRST_SWEEPS).tolist(), fixed=ends)
        found = self._found(scoring, turn, state)
        if not self._has_trace(found):
            return found
        fixed, certainties = ends if table is PRESENCE else (), np.geomspace(SETTLED, SURE, LAST_SWEEPS).tolist()
        return self._found(scoring, turn, annealed(scoring, state, certainties, fixed=fixed))

    def _continued(self, start: Placed) -> Found:
        """Go on from what was found in some layers."""
        reference, suspect = ({name: shapes[name] for name in start.layers} for shapes in self._shapes)
        was_bound = self._bound and start.streams == bound_streams(self._groups, reference, suspect)
        scoring = self._scoring(self._bound if was_bound else self._loose, start.turn)
        places = [
            unknown if known is None else known
            for unknown, known in zip(
                self._unknown(scoring),
                (read_off(stream, start, *self._shapes) for stream in scoring.streams),
                strict=True,
            )
        ]
        return self._settled(scoring, start.turn, placed_once(scoring, self._state(scoring, places)))

    def _has_trace(self, found: Found) -> bool:
        return found.likeness.deviations >= (PART_DEVIATIONS if self._is_part else TRACE_DEVIATIONS)


def _anywhere(stream: Stream) -> Matrix:
    """Return that each channel is as likely as each other."""
    shape = (stream.channels, stream.suspect_channels)
    return np.full(shape, 1 / max(shape), dtype=np.float32)


def _guessed(stream: Stream, guess: int) -> Matrix:
    """Return that the first channel is the suspect's channel *guess*, and of the others nothing."""
    place = _anywhere(stream)
    place[0], place[:, guess], place[0, guess] = 0, 0, 1
    return place
