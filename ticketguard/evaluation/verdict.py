"""When a ticket is a winning one, and the numbers that say so.

*Matching*: its mean accuracy is at most a point, or one standard deviation, below the dense network's. *Winning*:
matching, and better than its re-initialised and its shuffled control by more than two standard errors.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from ticketguard.evaluation.arms import DENSE, FRESH_ARMS, MASK_ARM, TICKET

CHECK_VERSION = "ticketguard.check-ticket/1"
# A ticket that matches may be so much worse than the dense network (a point), or one standard deviation.
POINT = 0.01
# A ticket that wins beats its controls by more than so many standard errors of the difference.
STANDARD_ERRORS = 2.0

Status: TypeAlias = Literal["winning", "matching", "neither", "inconclusive"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmResult:
    """What the runs of one arm reached.

    Attributes:
        name: One of `ARMS`.
        accuracies: Test accuracy in [0, 1], one per seed; only one of what was not trained.
        density: Kept share of the ticket's layers; 1 for the dense network.
        epochs: Epochs that each run took; 0 for what was not trained.
        start: What it was trained from.
    """

    name: str
    accuracies: tuple[float, ...]
    density: float
    epochs: float
    start: str

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float:
        """Standard deviation of a run's accuracy; 0 for a single number."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    @property
    def standard_error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(len(self.accuracies))

    def to_json(self) -> dict[str, Any]:
        """Return the fields and what follows from them as plain JSON values."""
        fields = {**dataclasses.asdict(self), "accuracies": list(self.accuracies)}
        return {**fields, "mean": self.mean, "standard_error": self.standard_error}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The ticket's mean accuracy less another arm's, and what it had to be.

    Attributes:
        arm: The other arm.
        difference: In accuracy.
        standard_error: Of the difference, the two arms' runs taken as independent.
        bound: What the difference had to reach (against the dense network) or exceed (against a control).
        holds: Whether it did.
    """

    arm: str
    difference: float
    standard_error: float
    bound: float
    holds: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class TicketCheck:
    """What a check found.

    Attributes:
        verdict: "winning", "matching" (as good as the dense network) or "neither"; "inconclusive" of a ticket that
            lacks the weights it is trained from.
        comparisons: The numbers that decided it: first against the dense network, then against the controls.
        arms: What was trained, in the order of `ARMS`.
        seeds: Each fixes the order of the data and what is drawn: fresh weights, another mask.
        training: The recipe of all arms.
        notes: What a reader must know besides.
    """

    verdict: Status
    comparisons: tuple[Comparison, ...]
    arms: tuple[ArmResult, ...]
    seeds: tuple[int, ...]
    training: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def arm(self, name: str) -> ArmResult:
        """Return one arm's result."""
        return next(arm for arm in self.arms if arm.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return the check as plain JSON values."""
        return {
            "version": CHECK_VERSION,
            "verdict": self.verdict,
            "comparisons": [dataclasses.asdict(comparison) for comparison in self.comparisons],
            "arms": [arm.to_json() for arm in self.arms],
            "seeds": list(self.seeds),
            "training": dict(self.training),
            "notes": list(self.notes),
        }


def judge(
    arms: Sequence[ArmResult], *, mask_matters: bool = True, has_start: bool = True
) -> tuple[Status, tuple[Comparison, ...]]:
    """Return the verdict on the ticket among *arms*, and the comparisons that decided it.

    A ticket that was not compared with a control that it must beat can match, but not win. Of one that was trained on
    from trained weights nothing can be told: they are a head start on the others.

    Args:
        arms: What was trained, dense and ticket among them.
        mask_matters: Whether the ticket's mask could be another one, so that shuffling it is a control.
        has_start: Whether the ticket was trained from the weights that it is to be trained from.
    """
    by_name = {arm.name: arm for arm in arms}
    ticket, dense = by_name[TICKET], by_name[DENSE]
    margin = max(POINT, dense.deviation)
    matching = _compare(ticket, dense, bound=lambda _: -margin, reaches=True)
    controls = [
        _compare(ticket, by_name[name], bound=lambda error: STANDARD_ERRORS * error, reaches=False)
        for name in _deciding_arms(arms)
    ]
    if not has_start:
        return "inconclusive", (matching, *controls)
    if not matching.holds:
        return "neither", (matching, *controls)
    wins = not missing_controls(arms, mask_matters=mask_matters) and all(comparison.holds for comparison in controls)
    return "winning" if wins else "matching", (matching, *controls)


def _deciding_arms(arms: Sequence[ArmResult]) -> list[str]:
    """Return the names of the controls among *arms* that a winning ticket must beat."""
    return [arm.name for arm in arms if arm.name in (*FRESH_ARMS, MASK_ARM)]


def missing_controls(arms: Sequence[ArmResult], *, mask_matters: bool) -> list[str]:
    """Return the names of controls without which *arms* cannot show a ticket to be winning."""
    compared = _deciding_arms(arms)
    fresh = [] if set(FRESH_ARMS) & set(compared) else [FRESH_ARMS[0]]
    return fresh + ([MASK_ARM] if mask_matters and MASK_ARM not in compared else [])


def _compare(ticket: ArmResult, other: ArmResult, *, bound: Callable[[float], float], reaches: bool) -> Comparison:
    difference = ticket.mean - other.mean
    error = math.hypot(ticket.standard_error, other.standard_error)
    limit = bound(error)
    # Accuracies are counts over the number of test examples: what is equal on paper must not differ by rounding.
    clear = difference - limit
    holds = clear >= -1e-12 if reaches else clear > 1e-12
    return Comparison(arm=other.name, difference=difference, standard_error=error, bound=limit, holds=holds)
