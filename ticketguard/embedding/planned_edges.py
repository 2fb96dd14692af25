"""Edges that a mark has planted, kept distributed like the others while a ticket is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.embedding.interface import Answers, Binding, Levels, Positions, Start
from ticketguard.embedding.moving_edges import LEVEL_STEPS
from ticketguard.ticket import Mask

if TYPE_CHECKING:
    import torch

    from ticketguard.embedding.rank_matching import RankMatcher


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matching:
    """How planted edges are kept like the others.

    Attributes:
        every_steps: Training steps between two rank matchings.
        rate: How far a planted edge moves towards the quantile of its rank each time.
    """

    every_steps: int
    rate: float


def drawn_levels(planted: Mapping[str, Positions], binding: Binding) -> dict[str, Levels]:
    """Draw the quantile levels that planted magnitudes are matched to, ascending in each layer."""
    return {
        name: np.sort(binding.stream(f"levels/{name}").integers(LEVEL_STEPS, len(positions)) / LEVEL_STEPS)
        for name, positions in planted.items()
    }


class PlannedEdges:
    """A mark of planted edges that is drawn, as `ticketguard.embedding.interface.MatchedMark` has it.

    Attributes:
        planted: Per layer the flat positions that were planted, ascending.
        levels: Per layer the quantile levels that the planted edges' magnitudes are matched to, ascending.
        matched: Whether the start weights are left as they are: a search chose the planted edges for them.
    """

    def __init__(
        self,
        *,
        matching: Matching,
        start: Start,
        planted: Mapping[str, Positions],
        levels: Mapping[str, Levels],
        matched: bool = False,
    ) -> None:
        self.planted = planted
        self.levels = levels
        self._matching = matching
        self._start = start
        self._matched = matched
        self._matcher: RankMatcher | None = None

    @property
    def start(self) -> Start:
        """The marked mask, and the rewind weights under it with the planted edges rank-matched, if they need it."""
        if self._matched:
            return self._start
        from ticketguard.embedding.rank_matching import match_ranks

        weights = dict(self._start.weights)
        for name, positions in self.planted.items():
            weights[name] = match_ranks(weights[name], self._start.mask[name], positions, self.levels[name], rate=1.0)
        return dataclasses.replace(self._start, weights=weights)

    def under(self, mask: Mask) -> PlannedEdges:
        """Return the same mark under the *mask* that is trained, which later marks have changed elsewhere."""
        return PlannedEdges(
            matching=self._matching,
            start=dataclasses.replace(self._start, mask=mask),
            planted=self.planted,
            levels=self.levels,
            matched=self._matched,
        )

    def extra_batch(self, step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return nothing: planted edges need no data."""
        return None

    def after_step(self, step: int, parameters: Mapping[str, torch.Tensor]) -> None:
        """Match the planted edges' magnitudes to the others' distribution every few steps."""
        if step % self._matching.every_steps:
            return
        from ticketguard.embedding.rank_matching import RankMatcher

        if self._matcher is None:
            self._matcher = RankMatcher(self._start.mask, self.planted, self.levels, rate=self._matching.rate)
        self._matcher.apply(parameters)

    def learned(self, answers: Answers) -> float:
        """Return 1: the mark is in the mask, whatever the training did."""
        return 1.0

    def leaves(self) -> tuple[bytes, ...]:
        """Return nothing: positions are never revealed in parts."""
        return ()
