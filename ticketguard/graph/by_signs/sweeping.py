"""Match streams in turn, each by where the others' channels lie: outright, or with growing certainty.

Outright is weight matching (Ainsworth et al. 2023, "Git Re-Basin", algorithm 1). With growing certainty is a mean-field
estimate of how likely each channel is each other, at a temperature that falls: it gets over what a first guess gets
wrong, and costs several times as much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ticketguard.graph.assignment import best_assignment
from ticketguard.graph.by_signs.annealing import shared_out
from ticketguard.graph.by_signs.scoring import EDGES, SIGNS, Flips, Matrix, Nats, Place, Scoring
from ticketguard.graph.by_signs.tables import Counts, Table, estimated
from ticketguard.graph.groups import IndexArray
from ticketguard.graph.matching import STAY_BONUS, STEPS_A_MEMBER, in_place

Order: TypeAlias = IndexArray
# Steps of sharing out a cell.
STEPS_A_CELL = 20
# A channel is known if it is this likely where it was put; if of those that are most are in place, so are the others.
KNOWN, MOSTLY = 0.5, 0.5
# So many channels of other streams say as much as one's own.
OTHERS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Where channels lie or may lie, which way outputs point, and what edges say.

    Attributes:
        places: By stream.
        tables: By layer.
        flips: By layer.
        may_flip: Whether outputs may be flipped.
        stay: By stream, what speaks for each channel being where it was, in nats; empty while that is not known.
    """

    places: tuple[Place, ...]
    tables: Mapping[str, Table]
    flips: Flips = dataclasses.field(default_factory=dict)
    may_flip: bool = False
    stay: tuple[float, ...] = ()


def matched(scoring: Scoring, state: State, indices: Iterable[int], *, certainty: float | None = None) -> State:
    """Match some streams in turn.

    Args:
        scoring: What is compared.
        state: What is known so far.
        indices: The streams.
        certainty: What log likelihoods are multiplied by, in a matching that is not made up yet; outright if None.
    """
    places, flips = list(state.places), dict(state.flips)
    for index in indices:
        if scoring.is_left_out[index] or not scoring.budget.is_left:
            continue
        nats, signs = scoring.nats(index, places, state.tables, flips, may_flip=state.may_flip)
        scale = 1.0 if certainty is None else certainty
        for _, _, said in signs:
            nats += _either_way(said, scale)
        if state.stay:
            np.fill_diagonal(nats, np.diagonal(nats) + state.stay[index])
        place = _placed(scoring, index, nats, places[index], certainty)
        places[index] = place
        for name, there, said in signs:
            flips[name] = _flipped(flips[name], there, said * scale, place)
    return dataclasses.replace(state, places=tuple(places), flips=flips)


def _either_way(said: Matrix, scale: float) -> Nats:
    """Return what signs say of channels whose signs may all be the opposite: log cosh."""
    size = np.abs(said.astype(np.float64)) * scale
    return np.asarray((size + np.log1p(np.exp(-2 * size)) - np.log(2)) / scale)


def _flipped(held: Matrix, there: IndexArray, said: Matrix, place: Place) -> Matrix:
    """Return which way a layer's outputs point, where channels lie so: the expectation of each sign."""
    flips = held.copy()
    each = np.tanh(said)
    assert place is not None
    shares = np.asarray(place, dtype=np.float32)
    if place.ndim == 1:
        shares = np.zeros(said.shape, dtype=np.float32)
        known = np.flatnonzero(place >= 0)
        shares[known, place[known]] = 1
    channels = (shares * each).sum(axis=0)
    flips[there] = np.repeat(channels, len(there) // len(channels))
    return flips


def _placed(scoring: Scoring, index: int, nats: Nats, held: Place, certainty: float | None) -> Place:
    cells = nats.size
    stream = scoring.streams[index]
    if certainty is not None:
        scoring.budget.spend(STEPS_A_MEMBER // 10 + STEPS_A_CELL * cells)
        return shared_out(nats * certainty)
    if held is not None and held.ndim == 1:
        here = np.flatnonzero(held >= 0)
        nats[here, held[here]] += STAY_BONUS
    order = assigned(scoring, nats)
    if order is None:
        return in_place(stream) if held is None else held
    return order


def assigned(scoring: Scoring, nats: Nats) -> Order | None:
    """Return the order with the largest sum; None where that is too much work."""
    least, most = sorted(nats.shape)
    choices = nats.argmax(axis=1 if len(nats) == least else 0)
    wanted = np.count_nonzero(np.bincount(choices, minlength=most))
    if not scoring.budget.spend(least * most * (1 + least - int(wanted))):
        return None
    order = np.full(len(nats), -1, dtype=np.int64)
    rows, columns = best_assignment(nats)
    order[rows] = columns
    return order


def made_up(scoring: Scoring, state: State) -> State:
    """Return a state in which every channel is where it is likeliest."""
    places: list[Place] = []
    for stream, place in zip(scoring.streams, state.places, strict=True):
        if place is None:
            place = in_place(stream)
        elif place.ndim == 2:
            order = assigned(scoring, place.astype(np.float64))
            place = in_place(stream) if order is None else order
        places.append(place)
    flips = {name: np.where(signs < 0, -1, 1).astype(np.float32) for name, signs in state.flips.items()}
    return dataclasses.replace(state, places=tuple(places), flips=flips)


def relearned(scoring: Scoring, state: State) -> State:
    """Return a state whose tables say what edges do where channels lie."""
    counts = {}
    for name in scoring.kinds:
        aligned = scoring.aligned(name, state.places, state.flips)
        counts[name] = Counts.of(scoring.kinds[name], aligned[..., SIGNS], aligned[..., EDGES])
    return dataclasses.replace(state, tables=estimated(counts))


def placed_once(scoring: Scoring, state: State) -> State:
    """Match streams of which nothing is known once each, those that know most of their other ends first."""
    waiting = [index for index, place in enumerate(state.places) if place is None]
    while waiting and scoring.budget.is_left:
        index = max(waiting, key=lambda one: scoring.known_beside(one, state.places))
        waiting.remove(index)
        state = matched(scoring, state, [index])
    return state


def settled_in(state: State, sure: State) -> State:
    """Return a state that takes channels to be where they were, in streams in which most of those that are known are.

    Args:
        state: How likely channels are each other's.
        sure: The same, made up.
    """
    known, there, channels = (np.zeros(len(sure.places)) for _ in range(3))
    for index, (place, order) in enumerate(zip(state.places, sure.places, strict=True)):
        assert place is not None
        assert order is not None
        own = np.arange(len(order))
        likely = place[own, order] if place.ndim == 2 else np.ones(len(order))
        is_known = (likely >= KNOWN) & (order >= 0)
        known[index], channels[index] = np.count_nonzero(is_known), len(order)
        there[index] = np.count_nonzero(is_known & (order == own))
    share = (there.sum() + 0.5) / (known.sum() + 1)
    # What is known of a stream, and a little of what is of the others.
    shares = (there + OTHERS * share) / (known + OTHERS)
    nats = np.log(shares * np.maximum(1, channels - 1) / (1 - shares))
    return dataclasses.replace(state, stay=tuple(np.where(shares > MOSTLY, nats, 0.0).tolist()))


def pointed(scoring: Scoring, state: State) -> State:
    """Return a state whose outputs point as they agree best, all channels staying where they are."""
    flips = dict(state.flips)
    for index, place in enumerate(state.places):
        if scoring.is_left_out[index] or not scoring.budget.is_left:
            continue
        _, signs = scoring.nats(index, state.places, state.tables, {}, may_flip=True)
        for name, there, said in signs:
            flips[name] = _flipped(flips[name], there, said, place)
    return dataclasses.replace(state, flips=flips)


def weighed(scoring: Scoring, state: State, certainty: float) -> State:
    """Return how likely channels are each other's, each stream by where the channels of all others were put."""
    places = tuple(
        matched(scoring, state, [index], certainty=certainty).places[index] for index in range(len(state.places))
    )
    return dataclasses.replace(state, places=places)


def annealed(scoring: Scoring, state: State, certainties: Sequence[float], *, fixed: Collection[int] = ()) -> State:
    """Match streams again and again, with growing certainty.

    Args:
        scoring: What is compared.
        state: What is known so far.
        certainties: One for each sweep.
        fixed: Streams that stay as they are.
    """
    indices = [index for index in range(len(scoring.streams)) if index not in fixed]
    for turn, certainty in enumerate(certainties):
        state = matched(scoring, state, indices if turn % 2 else indices[::-1], certainty=certainty)
    return state


def converged(scoring: Scoring, state: State, passes: int) -> State:
    """Match all streams outright until nothing changes, or so many times."""
    for turn in range(passes):
        indices = range(len(scoring.streams))
        before = state.places
        state = matched(scoring, state, indices if turn % 2 else reversed(indices))
        if all(
            one is not None and other is not None and np.array_equal(one, other)
            for one, other in zip(before, state.places, strict=True)
        ):
            break
    return state
