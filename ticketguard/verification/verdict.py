"""Evidence and verdict: what a verification says, and with which numbers and assumptions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

Status: TypeAlias = Literal["supported", "not_supported", "inconclusive"]

VERDICT_VERSION = "ticketguard.verdict/1"
# Evidence stronger than one in a million but weaker than the claim's level is worth another look, not a verdict.
GREY_LOG10_P = -6.0


def level_log10(level_bits: int) -> float:
    """Return log10 of the p-value a claim of *level_bits* asks for: log10(2^-level_bits)."""
    return -level_bits * math.log10(2.0)


def decide(log10_p: float, *, level_bits: int, attainable_log10_p: float) -> Status:
    """Turn a p-value into one of the three states.

    Args:
        log10_p: After every correction.
        level_bits: The claim's level.
        attainable_log10_p: What an untouched copy would have given on what was there to read: the test's power.
    """
    threshold = level_log10(level_bits)
    if log10_p <= threshold:
        return "supported"
    if attainable_log10_p > threshold or log10_p <= GREY_LOG10_P:
        return "inconclusive"
    return "not_supported"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """One test's outcome.

    Attributes:
        mark: Scheme of the mark that was tested.
        status: What this test alone says.
        statistic: What was counted, in words.
        observed: The count.
        expected: Its mean if the suspect does not derive from the marked ticket.
        log10_p: log10 of the p-value (or of 1/e), after every correction.
        threshold_log10_p: What the claim's level asks for.
        details: Numbers behind the test: readings, factors, decoys, queries.
        assumptions: What the p-value rests on.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known about a suspect and a claim.

    Attributes:
        status: "supported" if a test reached the claim's level, "not_supported" if none did though it could have,
            "inconclusive" otherwise.
        suspect: What was examined, as it was given.
        owner_name: Who claims the ticket.
        owner_public_key: The claim's Ed25519 key, hex.
        evidence: Every test that was made.
    """

    status: Status
    suspect: str
    owner_name: str
    owner_public_key: str
    evidence: tuple[Evidence, ...]

    @property
    def log10_p(self) -> float:
        """log10 p of the strongest piece of evidence."""
        return min((item.log10_p for item in self.evidence), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as the document that ``docs/schema/verdict.json`` describes."""
        return {"version": VERDICT_VERSION, **dataclasses.asdict(self)}
