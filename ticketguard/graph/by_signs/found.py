"""What a search by signs found, and how it is gone on from where it is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ticketguard.graph.by_signs.coded import StartSigns
from ticketguard.graph.by_signs.judging import Judgement
from ticketguard.graph.by_signs.scoring import Place, Scoring
from ticketguard.graph.by_signs.sweeping import (
    Order,
    State,
    annealed,
    converged,
    made_up,
    relearned,
    settled_in,
    weighed,
)
from ticketguard.graph.groups import IndexArray
from ticketguard.graph.likeness import Likeness
from ticketguard.graph.matching import Budget
from ticketguard.graph.streams import Stream
from ticketguard.graph.turns import KernelTurn

# Sweeps after what edges say was learned from what is aligned; at the end with all positions. A mean field is too sure;
# that much more so is what leaves the most when channels are left out by it.
SURE, LAST_SURE = 1.0, 1.5
LEARNING_SWEEPS = 3
# Channels that are less likely than this where they were put are not recognised.
RECOGNISED = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """One solution.

    Attributes:
        scoring: What was compared.
        turn: How the kernels were turned before.
        state: What was found, made up.
        judgement: What the positions that the matching did not see say of it.
        unsure: The same, not made up yet.
    """

    scoring: Scoring
    turn: KernelTurn
    state: State
    judgement: Judgement
    unsure: State

    @property
    def likeness(self) -> Likeness:
        """How much of what the matching did not see agrees."""
        return self.judgement.likeness

    @property
    def rank(self) -> tuple[bool, float]:
        """What solutions are compared by."""
        return self.judgement.rank

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The axes that were matched together."""
        return self.scoring.streams

    @property
    def orders(self) -> list[Order]:
        """Where the channels lie."""
        return [np.asarray(place, dtype=np.int64) for place in self.state.places]

    def recognised(self) -> list[Order]:
        """Return the orders without the channels that are not likely where they were put."""
        return [_recognised(order, place) for order, place in zip(self.orders, self.unsure.places, strict=True)]


def learned(scoring: Scoring, state: State) -> State:
    """Return how likely channels are each other's, by what edges say where they lie."""
    state = relearned(scoring, state)
    return annealed(scoring, state, [SURE] * LEARNING_SWEEPS) if scoring.is_small else converged(scoring, state, 1)


def completed(found: Found, starts: Mapping[str, StartSigns], budget: Budget) -> Found:
    """Match again by all positions, after it was learned what edges say from what is aligned.

    Args:
        found: What was found without those that are held out.
        starts: The start's layers.
        budget: Work that may be done for it; what was found stays as it is if that is too little.
    """
    kinds = {name: start.whole() for name, start in starts.items()}
    scoring = Scoring(kinds, found.scoring.suspect, found.scoring.streams, budget)
    state = learned(scoring, found.state)
    if scoring.is_small:
        state = settled_in(relearned(scoring, state), made_up(scoring, state))
        state = annealed(scoring, state, [SURE] * LEARNING_SWEEPS + [LAST_SURE] * LEARNING_SWEEPS)
    else:
        # Of so many edges hardly a channel is in doubt, and each sweep takes seconds.
        state = weighed(scoring, settled_in(state, state), LAST_SURE)
    sure = made_up(scoring, state)
    return dataclasses.replace(found, scoring=scoring, state=sure, unsure=state) if budget.is_left else found


def _recognised(order: IndexArray, place: Place) -> IndexArray:
    """Return an order without channels that are not likely where they were put."""
    if place is None or place.ndim == 1:
        return order
    known = np.flatnonzero(order >= 0)
    result = np.full_like(order, -1)
    likely = known[place[known, order[known]] >= RECOGNISED]
    result[likely] = order[likely]
    return result
