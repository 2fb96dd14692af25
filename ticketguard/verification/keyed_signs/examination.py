"""White-box verification: do the suspect's weights have the signs that the owner's key gave the start weights?

1. Draw the votes' signs from (secret, C); C binds the start weights but for these signs.
2. Read the suspect's weights in a few ways: as stored, and its largest weights at a few densities.
3. Count the votes whose sign is the key's; the tail of the binomial distribution is the p-value.
4. If that is not enough, or the strongest evidence is wanted, align the suspect by the anchors, and read again.
5. Multiply by the number of readings (Bonferroni); show decoy keys through the same steps.

Nothing here runs a model or needs torch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import SCHEME, SignParameters
from ticketguard.ticket import AnyReference, StartReference
from ticketguard.verification.decoys import decoy_bindings
from ticketguard.verification.doubts import ASSUMPTIONS
from ticketguard.verification.keyed_signs.counting import ReadVotes, SignCount, count_agreements
from ticketguard.verification.memory import Memory
from ticketguard.verification.outcome import Outcome
from ticketguard.verification.passes import Passes
from ticketguard.verification.readings import READINGS, Layers
from ticketguard.verification.verdict import Evidence
from ticketguard.verification.ways import Way

# Signs that are drawn for decoys.
DECOY_POSITIONS = 40_000_000
OWN_ASSUMPTIONS = (
    *ASSUMPTIONS,
    "it shows that the weights were trained from the owner's start weights: so were the owner's dense network, and "
    "every other network that was trained from them",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sight:
    """What one pass over a suspect's layers sees, before any key.

    Attributes:
        read: What was read.
        reference: The layers that it was read beside.
    """

    read: ReadVotes
    reference: StartReference

    def counted(self, binding: Binding, memory: Memory | None = None) -> Counted:
        """Count in every reading for one key."""
        return Counted(sight=self, counts=count_agreements(self.read, self.reference, binding, memory))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """One pass, counted for one key.

    Attributes:
        sight: What was seen.
        counts: One a reading.
    """

    sight: Sight
    counts: Sequence[SignCount]

    @functools.cached_property
    def best(self) -> SignCount:
        """The reading with the smallest p."""
        return min(self.counts, key=lambda count: count.log10_p)

    @property
    def log10_p(self) -> float:
        """Of that reading."""
        return self.best.log10_p

    @functools.cached_property
    def attainable_log10_p(self) -> float:
        """Of the most powerful reading, were it of an untouched copy."""
        return min(count.attainable_log10_p for count in self.counts)


def examine_signs(
    way: Way,
    binding: Binding,
    parameters: SignParameters,
    *,
    threshold_log10_p: float,
    memory: Memory | None = None,
) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Args:
        way: The suspect, and the start weights beside which it is read.
        binding: The owner's key.
        parameters: Of the claim's keyed signs.
        threshold_log10_p: What the verdict asks for.
        memory: Keeps the votes' signs for the next suspect.

    Raises:
        FileError: The file is gone or has changed.
    """

    def see(layers: Layers, present: AnyReference) -> Sight:
        assert isinstance(present, StartReference)
        return Sight(read=ReadVotes.of(layers, present, parameters), reference=present)

    passes = Passes(way, see=see)
    outcome = Outcome.of(
        passes,
        lambda sight: sight.counted(binding, memory),
        looks=len(READINGS) * passes.passes,
        threshold_log10_p=threshold_log10_p,
    )
    best, sight = outcome.best.best, outcome.best.sight
    return outcome.evidence(
        mark=SCHEME,
        reading={"reading": best.reading.name},
        statistic="weights with the sign that the owner's key gave the start weights",
        observed=best.agreements,
        expected=best.votes / 2,
        details={
            "attainable_is_bound": True,  # untouched copies keep more than three in four signs
            **_decoys(outcome, binding),
            "votes": best.votes,
            "positions": sight.read.size,
            "layers": len(sight.reference.layers),
            **passes.what_was_read(outcome.network, outcome.network.names),
            "channel_groups": len(way.groups),
        },
        assumptions=OWN_ASSUMPTIONS,
    )


def _decoys(outcome: Outcome[Counted], binding: Binding) -> dict[str, Any]:
    """Return what decoy keys show in the strongest pass."""
    sight = outcome.best.sight
    decoys = decoy_bindings(binding.commitment, positions=sight.read.size, most_positions=DECOY_POSITIONS)
    found = [sight.counted(decoy).log10_p for decoy in decoys]
    return {"decoy_keys": len(found), "decoy_log10_p": outcome.corrected(min(found))}
