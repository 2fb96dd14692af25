"""What the passes over a suspect say together for one key, in numbers and in words; marks in the weights share it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ticketguard.graph.alignment import Alignment
from ticketguard.verification.doubts import doubts_about
from ticketguard.verification.networks import Network
from ticketguard.verification.passes import Passes, how_it_lay
from ticketguard.verification.pictures import Shades
from ticketguard.verification.verdict import Evidence, decide


class Counted(Protocol):
    """What one pass shows of a mark, in the strongest of its readings."""

    @property
    def log10_p(self) -> float:
        """log10 of its p-value, before correction."""
        ...

    @property
    def attainable_log10_p(self) -> float:
        """What the most powerful reading would show of an untouched copy, before correction."""
        ...


Seen = TypeVar("Seen")
Count = TypeVar("Count", bound=Counted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Count]):
    """What a suspect shows of a mark; the strongest pass pays for every look that could have been taken.

    Attributes:
        best: What the strongest pass shows.
        network: Of which network.
        alignment: How the suspect was aligned for it; None if it was read as stored.
        alignments: All that were tried; none if what was read as stored was enough.
        attainable_log10_p: Of the most powerful pass, were it of an untouched copy; before correction.
        looks: Readings in all passes that the rule allows, made or not.
        threshold_log10_p: What a supported claim needs.
    """

    best: Count
    network: Network
    alignment: Alignment | None
    alignments: Sequence[Alignment]
    attainable_log10_p: float
    looks: int
    threshold_log10_p: float

    @classmethod
    def of(
        cls, passes: Passes[Seen], count: Callable[[Seen], Count], *, looks: int, threshold_log10_p: float
    ) -> Outcome[Count]:
        """Count as stored and, if that is not enough or the strongest evidence is wanted, aligned.

        Both are paid for, so whether the second is made changes p, and never what a verdict says: more readings only
        make the smallest p smaller.

        Args:
            passes: The suspect.
            count: Counts what a pass sees for one key.
            looks: Readings in all passes that the rule allows, made or not.
            threshold_log10_p: What the verdict asks for.
        """
        made = [(count(seen), network, alignment) for seen, network, alignment in passes.stored]
        smallest = min((counted.log10_p for counted, *_ in made), default=0.0)
        alignments: Sequence[Alignment] = ()
        # Where nothing is of the reference's shapes, nothing is enough.
        if passes.thorough or smallest + math.log10(looks) > threshold_log10_p:
            alignments = passes.alignments
            made += [(count(seen), network, alignment) for seen, network, alignment in passes.aligned]
        best, network, alignment = min(made, key=lambda each: each[0].log10_p)
        return cls(
            best=best,
            network=network,
            alignment=alignment,
            alignments=alignments,
            attainable_log10_p=min(counted.attainable_log10_p for counted, *_ in made),
            looks=looks,
            threshold_log10_p=threshold_log10_p,
        )

    def corrected(self, log10_p: float) -> float:
        """Return a pass's p-value, corrected for all looks."""
        return min(0.0, log10_p + math.log10(self.looks))

    def evidence(
        self,
        *,
        mark: str,
        reading: Mapping[str, Any],
        statistic: str,
        observed: int,
        expected: float,
        details: Mapping[str, Any],
        assumptions: tuple[str, ...],
        pictures: Mapping[str, Shades] | None = None,
    ) -> Evidence:
        """Say what it means.

        Args:
            mark: The scheme.
            reading: The strongest pass's, by name as "reading", and what belongs to it.
            statistic: What was counted in it, in words.
            observed: The count.
            expected: Its mean, were the suspect not derived from the marked ticket.
            details: What else there is to say: what was read of the network, with "missing_layers",
                "unreadable_layers", "values_not_finite" and "unreadable_networks", among it.
            assumptions: What the test rests on.
            pictures: What a person can look at, as `Evidence` has it.
        """
        log10_p, attainable = self.corrected(self.best.log10_p), self.corrected(self.attainable_log10_p)
        status = decide(log10_p, threshold_log10_p=self.threshold_log10_p, attainable_log10_p=attainable)
        doubts: list[str] = []
        if status != "supported":
            is_short = attainable > self.threshold_log10_p
            doubts = doubts_about(status, self.alignments, is_short=is_short, details=details)
            status = "inconclusive" if doubts else status
        return Evidence(
            mark=mark,
            status=status,
            statistic=statistic,
            observed=observed,
            expected=expected,
            log10_p=log10_p,
            threshold_log10_p=self.threshold_log10_p,
            details={
                **({"why": doubts} if doubts else {}),
                **reading,
                "aligned": self.alignment is not None,
                "read_to_the_end": bool(self.alignments) and not any(tried.is_part for tried in self.alignments),
                **how_it_lay(self.alignment, self.alignments),
                "looks": self.looks,
                "log10_p_uncorrected": self.best.log10_p,
                "attainable_log10_p": attainable,
                **details,
            },
            assumptions=assumptions,
            pictures=pictures or {},
        )
