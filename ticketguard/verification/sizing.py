"""What a scheme says of its marks before one is made: in which sizes, at what cost, and what a thief would leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ticketguard.embedding.interface import Mark
from ticketguard.ticket import Ticket
from ticketguard.verification.hypergeometric import Doubles
from ticketguard.verification.interface import Scheme
from ticketguard.verification.thefts import Theft

# One copy in twenty shows less than at so many standard deviations below the mean.
ONE_IN_TWENTY = 1.6448536269514722


@dataclasses.dataclass(frozen=True, kw_only=True)
class Foresight:
    """What a copy will show after a theft.

    Attributes:
        theft: Which.
        log10_p: Of an ordinary copy, corrected for the verifier's looks.
        unlucky_log10_p: What nineteen copies in twenty show at least.
        decoded: How likely the picture that the mark shows is decoded; None for a mark that shows none.
    """

    theft: Theft
    log10_p: float
    unlucky_log10_p: float
    decoded: float | None = None


def auc_of_layers(moved: Doubles, others: Doubles) -> float:
    """Return the AUC of naming first the edges of the layers with the highest share of moved edges; ties count half.

    Args:
        moved: Edges of a mark, a layer each.
        others: The others.
    """
    order = np.argsort(-moved / np.maximum(moved + others, 1.0), kind="stable")
    after_it = others.sum() - np.cumsum(others[order])
    right = float(moved[order] @ (after_it + others[order] / 2))
    pairs = float(moved.sum() * others.sum())
    return max(0.5, right / pairs) if pairs else 0.5


class Size(Protocol):
    """A mark of one size."""

    @property
    def mark(self) -> Mark:
        """The mark, to embed."""
        ...

    @property
    def settings(self) -> Mapping[str, float]:
        """The settings that make its size."""
        ...

    @property
    def moved_edges(self) -> int:
        """Edges of the ticket that it takes the place of: what the network may lose by."""
        ...

    @property
    def layers_auc(self) -> float:
        """AUC of telling its edges from the others by their layer alone: 0.5 where every layer has its share."""
        ...

    def foresee(self, theft: Theft) -> Foresight:
        """Say what a copy will show after a theft."""
        ...


@runtime_checkable
class SizedScheme(Scheme, Protocol):
    """A scheme whose marks can be small or large."""

    @property
    def measured(self) -> Sequence[str]:
        """What trained marks of some size cost in accuracy and showed to a classifier, in words."""
        ...

    def looks(self, mark: Mark, ticket: Ticket) -> int:
        """Return how many looks at one network the test of *mark* in a ticket pays for, whatever its size."""
        ...

    @property
    def room_factor(self) -> float:
        """The evidence that `require_room` wants of an untouched copy, as a multiple of the level's."""
        ...

    def sizes(self, mark: Mark, ticket: Ticket) -> Sequence[Size]:
        """Return marks with the settings of *mark* in sizes that fit a ticket, the smallest first."""
        ...


@runtime_checkable
class ForeseenScheme(Scheme, Protocol):
    """A scheme whose marks come with the start of a training: nothing of them is to be chosen."""

    def foresee(self, mark: Mark, ticket: Ticket, theft: Theft) -> Foresight:
        """Say what a copy of a ticket like this one will show after a theft, if it was found with *mark*."""
        ...
