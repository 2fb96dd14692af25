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
import math
from collections.abc import Sequence
from typing import Any

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import SCHEME, SignParameters
from ticketguard.graph import ChannelGroup
from ticketguard.graph.alignment import Alignment
from ticketguard.ticket import AnyReference, StartReference
from ticketguard.verification.decoys import decoy_bindings
from ticketguard.verification.doubts import ASSUMPTIONS, doubts_about
from ticketguard.verification.keyed_signs.counting import ReadVotes, SignCount, count_agreements
from ticketguard.verification.memory import Memory
from ticketguard.verification.networks import Network
from ticketguard.verification.passes import Passes, how_it_lay
from ticketguard.verification.readings import READINGS, Layers
from ticketguard.verification.verdict import Evidence, decide

# Decoys are for the eye: of large references, whose signs cost the most, a few are shown.
MOST_DECOYS, LEAST_DECOYS, DECOY_POSITIONS = 20, 2, 40_000_000
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """One pass, counted for one key.

    Attributes:
        sight: What was seen.
        network: Of which network.
        alignment: How the suspect was aligned first; None if it was taken as stored.
        best: The reading with the smallest p.
        attainable_log10_p: Of the most powerful reading, were it of an untouched copy.
    """

    sight: Sight
    network: Network
    alignment: Alignment | None
    best: SignCount
    attainable_log10_p: float


def examine_signs(
    suspect: Checkpoint,
    reference: StartReference,
    binding: Binding,
    parameters: SignParameters,
    *,
    groups: Sequence[ChannelGroup],
    threshold_log10_p: float,
    thorough: bool = False,
    memory: Memory | None = None,
) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Args:
        suspect: The checkpoint.
        reference: The start weights.
        binding: The owner's key.
        parameters: Of the claim's keyed signs.
        groups: Channel groups of the reference's layers that the commitment binds.
        threshold_log10_p: What the verdict asks for.
        thorough: Read aligned even where what is stored is enough, and look for an order of channels in all layers even
            where a few of them show nothing of the reference.
        memory: Keeps the votes' signs for the next suspect.

    Raises:
        UnverifiableError: They share no layer that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """

    def see(layers: Layers, present: AnyReference) -> Sight:
        assert isinstance(present, StartReference)
        return Sight(read=ReadVotes.of(layers, present, parameters), reference=present)

    passes = Passes(suspect, reference, groups, see=see, thorough=thorough)
    correction = math.log10(len(READINGS) * passes.passes)
    counted = [_counted(*seen, binding, memory) for seen in passes.stored]
    smallest = min((each.best.log10_p for each in counted), default=0.0)
    alignments: list[Alignment] = []
    if thorough or smallest + correction > threshold_log10_p:
        alignments = passes.alignments
        counted += [_counted(*seen, binding, memory) for seen in passes.aligned]
    best = min(counted, key=lambda each: each.best.log10_p)
    log10_p = min(0.0, best.best.log10_p + correction)
    attainable = min(0.0, min(each.attainable_log10_p for each in counted) + correction)
    status = decide(log10_p, threshold_log10_p=threshold_log10_p, attainable_log10_p=attainable)
    details = {**passes.what_was_read(best.network, best.network.names), "channel_groups": len(groups)}
    doubts: list[str] = []
    if status != "supported":
        doubts = doubts_about(status, alignments, is_short=attainable > threshold_log10_p, details=details)
        status = "inconclusive" if doubts else status
    return Evidence(
        mark=SCHEME,
        status=status,
        statistic="weights with the sign that the owner's key gave the start weights",
        observed=best.best.agreements,
        expected=best.best.votes / 2,
        log10_p=log10_p,
        threshold_log10_p=threshold_log10_p,
        details={
            **({"why": doubts} if doubts else {}),
            "reading": best.best.reading.name,
            "aligned": best.alignment is not None,
            "read_to_the_end": bool(alignments) and not any(alignment.is_part for alignment in alignments),
            **how_it_lay(best.alignment, alignments),
            "looks": len(READINGS) * passes.passes,
            "log10_p_uncorrected": best.best.log10_p,
            "attainable_log10_p": attainable,
            **_decoys(best, binding, correction),
            "votes": best.best.votes,
            "positions": best.sight.read.size,
            "layers": len(best.sight.reference.layers),
            **details,
        },
        assumptions=OWN_ASSUMPTIONS,
    )


def _counted(
    sight: Sight, network: Network, alignment: Alignment | None, binding: Binding, memory: Memory | None
) -> Counted:
    counts = count_agreements(sight.read, sight.reference, binding, memory)
    return Counted(
        sight=sight,
        network=network,
        alignment=alignment,
        best=min(counts, key=lambda count: count.log10_p),
        attainable_log10_p=min(count.attainable_log10_p for count in counts),
    )


def _decoys(best: Counted, binding: Binding, correction: float) -> dict[str, Any]:
    """Return what decoy keys show in the strongest pass."""
    count = min(MOST_DECOYS, max(LEAST_DECOYS, DECOY_POSITIONS // max(1, best.sight.read.size)))
    found = [
        min(one.log10_p for one in count_agreements(best.sight.read, best.sight.reference, decoy))
        for decoy in decoy_bindings(binding.commitment, count)
    ]
    return {"decoy_keys": len(found), "decoy_log10_p": min(0.0, min(found) + correction)}
