"""How far a matching is right, judged by positions of the start that it did not see.

Of an unrelated suspect each sign agrees with an anchor's by chance, one in two, and edges are where the start was large
as often as where it was small, however the rest was fitted.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from ticketguard.graph.by_signs.coded import StartSigns
from ticketguard.graph.by_signs.scoring import EDGES, SIGNS, Matrix, Scoring
from ticketguard.graph.by_signs.sweeping import State
from ticketguard.graph.likeness import Likeness

# What is divided by is more than this.
LEAST = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What positions that a matching did not see say of it.

    Attributes:
        signs: How many of the signs there are those of the start.
        edges: How many of the edges there are where the start was large.
    """

    signs: Likeness
    edges: Likeness

    @functools.cached_property
    def ways(self) -> tuple[Likeness, ...]:
        """By signs, by edges, by both: of a network that was trained from others the signs say nothing."""
        return self.signs, self.edges, Likeness.together([self.signs, self.edges])

    @functools.cached_property
    def likeness(self) -> Likeness:
        """The first way that is clear, or what says most: what is found, if anything is."""
        return next((way for way in self.ways if way.is_clear), max(self.ways, key=_rank))

    @functools.cached_property
    def rank(self) -> tuple[bool, float]:
        """What solutions are compared by: whether one is found, and how far beyond chance."""
        return max(map(_rank, self.ways))


def _rank(way: Likeness) -> tuple[bool, float]:
    return way.is_found, way.deviations


def judged(starts: Mapping[str, StartSigns], scoring: Scoring, state: State) -> Judgement:
    """Return what held-out positions say of an aligned suspect.

    Args:
        starts: The start's layers.
        scoring: The suspect's.
        state: Where its channels lie, made up; channels that are left out are not counted.
    """
    signs, edges = [], []
    for name, start in starts.items():
        aligned = scoring.aligned(name, state.places, state.flips)
        signs.append(agreeing(name, start, aligned[..., SIGNS]))
        edges.append(where_large(name, start, aligned[..., EDGES]))
    return Judgement(signs=Likeness.together(signs), edges=Likeness.together(edges))


def agreeing(name: str, start: StartSigns, signs: Matrix) -> Likeness:
    """Return how many of the edges at held-out anchors have their sign.

    Args:
        name: The layer.
        start: The start's.
        signs: The aligned suspect's, 0 where it has no edge, shape (out, in, places).
    """
    anchors, wanted = start.anchors
    found = signs.reshape(-1)[anchors]
    there = float(np.count_nonzero(found))
    return Likeness(
        found={name: int(np.count_nonzero(found * wanted > 0))},
        expected={name: there / 2},
        variance=there / 4,
        most={name: there},
    )


def where_large(name: str, start: StartSigns, edges: Matrix) -> Likeness:
    """Return how many of the edges at held-out positions are where the start was large.

    Rows, columns and places that are full may be so in any network. And a matching may prefer what it does not see:
    where the edges there are is compared, not how many. The variance is that of a start whose sizes are drawn anew.

    Args:
        name: The layer.
        start: The start's.
        edges: Where the aligned suspect has edges, 0 elsewhere, shape (out, in, places).
    """
    rows, columns, places = (edges.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1)))
    likely = (rows[:, None, None] * columns[:, None] * places).reshape(-1)[start.held_out].astype(np.float64)
    there = edges.reshape(-1)[start.held_out].astype(np.float64)
    likely *= there.sum() / max(LEAST, likely.sum())
    large = start.is_large
    share = float(np.count_nonzero(large)) / max(1, len(large))
    return Likeness(
        found={name: int(there[large].sum())},
        expected={name: float(likely[large].sum())},
        variance=share * (1 - share) * float(np.square(there - likely).sum()),
        most={name: float(min(there.sum(), np.count_nonzero(large)))},
    )
