"""Evidence and verdict: what a verification says, and with which numbers and assumptions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from ticketguard.verification.pictures import Shades

Status: TypeAlias = Literal["supported", "not_supported", "inconclusive"]

# Version 1 left the smallest p to its readers, who would miss the factor for several tests.
VERDICT_VERSION = "ticketguard.verdict/2"
DEFAULT_LEVEL_BITS = 64
# Evidence stronger than one in a million but weaker than the claim's level calls for more tests, not a verdict.
GREY_LOG10_P = -6.0


def level_log10(level_bits: int, *, tests: int = 1) -> float:
    """Return log10 of the p-value that one of *tests* tests must reach: log10(2^-level_bits / tests) (Bonferroni).

    Args:
        level_bits: The claim's level.
        tests: How many tests of the suspect are planned, whether or not all of them can be made.
    """
    return -level_bits * math.log10(2.0) - math.log10(tests)


def decide(log10_p: float, *, threshold_log10_p: float, attainable_log10_p: float) -> Status:
    """Turn a p-value into one of the three states.

    Args:
        log10_p: After every correction but the one for several tests, which the threshold makes.
        threshold_log10_p: What a supported claim needs: `level_log10`.
        attainable_log10_p: What an untouched copy would have given on what was there to read: the test's power.
    """
    if log10_p <= threshold_log10_p:
        return "supported"
    if attainable_log10_p > threshold_log10_p or log10_p <= GREY_LOG10_P:
        return "inconclusive"
    return "not_supported"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """One test's outcome.

    Attributes:
        mark: Scheme of the mark that was tested.
        status: What this test says at its threshold.
        statistic: What was counted, in words.
        observed: The count.
        expected: Its mean if the suspect does not derive from the marked ticket.
        log10_p: log10 of the p-value (or of 1/e), after every correction but the one for several tests.
        threshold_log10_p: What this test had to reach: the claim's level, divided by the number of planned tests.
        details: Numbers behind the test: readings, factors, decoys, queries.
        assumptions: What the p-value rests on.
        pictures: What a person can look at, by name: modules, shape (rows, columns), from 0 for black to 255 for white.
            What they decode to is in the details, as "decoded".
    """

    mark: str
    status: Status
    statistic: str
    observed: int
    expected: float
    log10_p: float
    threshold_log10_p: float
    details: Mapping[str, Any]
    assumptions: tuple[str, ...]
    pictures: Mapping[str, Shades] = dataclasses.field(default_factory=dict, compare=False, repr=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unchecked:
    """A planned test that could not be made; it is paid for like the others.

    Attributes:
        mark: Scheme of the mark that was to be tested.
        reason: Why it was not.
    """

    mark: str
    reason: str


def conclude(evidence: Sequence[Evidence], unchecked: Sequence[Unchecked]) -> Status:
    """Say what several tests say together: "not supported" only if every planned one was made and says so."""
    statuses = {item.status for item in evidence}
    if "supported" in statuses:
        return "supported"
    return "inconclusive" if unchecked or "inconclusive" in statuses else "not_supported"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known about a suspect and a claim.

    Attributes:
        status: "supported" if a test reached its share of the claim's level, "not_supported" if none did though each
            could have, "inconclusive" otherwise.
        suspect: What was examined, as it was given.
        owner_name: Who claims the ticket.
        owner_public_key: The claim's Ed25519 key, hex.
        evidence: Every test that was made.
        unchecked: Every test that was planned and could not be made.
    """

    status: Status
    suspect: str
    owner_name: str
    owner_public_key: str
    evidence: tuple[Evidence, ...]
    unchecked: tuple[Unchecked, ...] = ()

    @property
    def tests(self) -> int:
        """Number of planned tests, made or not: the factor that the smallest p is multiplied by."""
        return len(self.evidence) + len(self.unchecked)

    @property
    def log10_p(self) -> float:
        """log10 of the smallest p times the number of planned tests: to be compared with the claim's level."""
        smallest = min((item.log10_p for item in self.evidence), default=0.0)
        return min(0.0, smallest + math.log10(max(1, self.tests)))

    @property
    def was_cut_short(self) -> bool:
        """Whether a test that was begun ended before it was through, so that a later run may continue it."""
        return any(item.details.get("stopped") for item in self.evidence)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as the document that ``docs/schema/verdict.json`` describes; it has no pictures."""
        fields = dataclasses.asdict(self)
        for item in fields["evidence"]:
            del item["pictures"]
        return {
            "version": VERDICT_VERSION,
            **fields,
            "tests": self.tests,
            "log10_p": self.log10_p,
        }
