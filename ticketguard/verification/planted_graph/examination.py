"""White-box verification: is the owner's planted graph in the suspect's weights?

1. Draw the secret edges S from (secret, C); C binds the unmarked reference, so S is fixed by it.
2. Read the suspect's mask in a few ways: as stored, and its largest weights at a few densities.
3. Count the mask's edges inside S where the reference has none; the tail of the hypergeometric sum is the p-value.
4. If that is not enough, align the suspect's channels to the reference, which never sees S, and read again.
5. Multiply by the number of readings (Bonferroni); show decoy keys through the same steps.

Nothing here runs a model or needs torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.embedding import planted_graph
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.errors import UnverifiableError
from ticketguard.graph import ChannelGroup, align
from ticketguard.graph.alignment import Alignment
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.networks import Network, blocks_of, find_networks
from ticketguard.verification.planted_graph.counting import copy_of, count_hits, edges_to_read
from ticketguard.verification.readings import READINGS, Layers, Reading
from ticketguard.verification.statistics import LayerCount, log10_upper_tail
from ticketguard.verification.verdict import Evidence, decide

DECOYS = 20
DECOY_DOMAIN = b"ticketguard/decoy/v1\0"
ASSUMPTIONS = (
    "the owner's key was drawn at random and the claim's commitment binds it to the reference",
    "the suspect was not made with knowledge of this key, unless it derives from the marked ticket",
    "the weights are the accused model's own: their origin is for the auditor to establish",
    "a claimant who tries 2^k keys buys a factor of 2^k, which the level allows for",
)


def decoy_bindings(commitment: bytes, count: int = DECOYS) -> list[Binding]:
    """Return keys that are nobody's, derived from the commitment alone, to run beside the owner's."""
    return [
        Binding(
            secret=hashlib.sha256(DECOY_DOMAIN + commitment + index.to_bytes(4, "little")).digest(),
            commitment=commitment,
        )
        for index in range(count)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
    """One pass over the suspect's layers: aligned or as stored.

    Attributes:
        alignment: How channels were aligned to the reference first; None if they were taken as stored.
        reading: The reading with the smallest p.
        counts: The owner's counts in that reading, one a layer.
        log10_p: Of that reading, before correction.
        readings_log10_p: Of every reading, in the order of `READINGS`, before correction.
        attainable_log10_p: Of the most powerful reading, if as many edges were planted as in an untouched copy.
        decoy_log10_p: Smallest p of any decoy key in any reading, before correction.
    """

    alignment: Alignment | None
    reading: Reading
    counts: tuple[LayerCount, ...]
    log10_p: float
    readings_log10_p: tuple[float, ...]
    attainable_log10_p: float
    decoy_log10_p: float


def examine(suspect: Layers, reference: Mask, binding: Binding, parameters: PlantedParameters) -> Passage:
    """Read the suspect in every way, and keep the reading with the strongest result."""
    bindings = [binding, *decoy_bindings(binding.commitment)]
    edges = edges_to_read(suspect, reference, parameters)
    results: list[tuple[float, Reading, tuple[LayerCount, ...]]] = []
    attainable_log10_p = decoy_log10_p = 0.0
    for counted in count_hits(suspect, reference, bindings, parameters=parameters, edges=edges):
        own, *decoys = counted.keys
        results.append((log10_upper_tail(own), counted.reading, own))
        copy = copy_of(counted, parameters, reference, edges)
        attainable_log10_p = min(attainable_log10_p, log10_upper_tail(copy))
        decoy_log10_p = min(decoy_log10_p, log10_upper_tail(max(decoys, key=_surprise)))
    log10_p, reading, layers = min(results, key=lambda result: result[0])
    return Passage(
        alignment=suspect.alignment,
        reading=reading,
        counts=layers,
        log10_p=log10_p,
        readings_log10_p=tuple(result for result, _, _ in results),
        attainable_log10_p=attainable_log10_p,
        decoy_log10_p=decoy_log10_p,
    )


def _surprise(layers: Sequence[LayerCount]) -> float:
    """Return how many standard deviations a count is above its mean: of many decoys the tail of one is computed."""
    above = sum(layer.hits - layer.expected for layer in layers)
    return above / math.sqrt(max(sum(layer.variance for layer in layers), 1e-9))


def to_evidence(
    passages: Sequence[Passage],
    *,
    threshold_log10_p: float,
    looks: int,
    missing: Sequence[str],
    paired_by_order: Sequence[str] = (),
) -> Evidence:
    """Correct the strongest passage for every reading that could have been taken, and say what it means.

    Args:
        passages: The passes that were made.
        threshold_log10_p: What a supported claim needs.
        looks: Readings in all passes that the rule allows, made or not.
        missing: Reference layers that the suspect lacks.
        paired_by_order: Reference layers whose names the suspect does not have, paired by shape and order.
    """
    best = min(passages, key=lambda passage: passage.log10_p)
    correction = math.log10(looks)
    log10_p = min(0.0, best.log10_p + correction)
    attainable = min(0.0, min(passage.attainable_log10_p for passage in passages) + correction)
    status = decide(log10_p, threshold_log10_p=threshold_log10_p, attainable_log10_p=attainable)
    if status == "not_supported" and any(not passage.alignment.complete for passage in passages if passage.alignment):
        status = "inconclusive"  # A copy's channels might be out of place, and were not looked for to the end.
    return Evidence(
        mark=planted_graph.SCHEME,
        status=status,
        statistic="edges that the reference does not have, inside the owner's secret edge set",
        observed=sum(layer.hits for layer in best.counts),
        expected=sum(layer.expected for layer in best.counts),
        log10_p=log10_p,
        threshold_log10_p=threshold_log10_p,
        details={
            "reading": best.reading.name,
            "aligned": best.alignment is not None,
            "channels_out_of_place": 0 if best.alignment is None else best.alignment.moved,
            "looks": looks,
            "log10_p_uncorrected": best.log10_p,
            "attainable_log10_p": attainable,
            "decoy_keys": DECOYS,
            "decoy_log10_p": min(0.0, min(passage.decoy_log10_p for passage in passages) + correction),
            "edges": sum(layer.kept for layer in best.counts),
            "positions": sum(layer.size for layer in best.counts),
            "layers": len(best.counts),
            "missing_layers": list(missing),
            "layers_paired_by_order": list(paired_by_order),
        },
        assumptions=ASSUMPTIONS,
    )


def examine_networks(
    suspect: Checkpoint,
    reference: Reference,
    binding: Binding,
    parameters: PlantedParameters,
    *,
    groups: Sequence[ChannelGroup],
    threshold_log10_p: float,
) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Which networks and layers are read follows from the suspect and the reference alone, never from the secret.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        binding: The owner's key.
        parameters: Of the claim's planted graph.
        groups: Channel groups of the reference's layers that the commitment binds; none to take channels as stored.
        threshold_log10_p: What the verdict asks for.

    Raises:
        UnverifiableError: They share no layer that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """
    found = find_networks(suspect, reference, blocks=blocks_of(groups))
    networks = [network for network in found.readable if network.as_stored]
    if not networks:
        other, name = next(iter(found.readable[0].names.items()))
        raise UnverifiableError(
            f"'{suspect.label}' has the reference's layers with other numbers of channels: expected '{other}' "
            f"{reference.mask[other].shape}, got {suspect.shape(name)}: verify from its answers instead"
        )
    looks = len(READINGS) * (2 if groups else 1) * len(networks)
    passages: list[tuple[Passage, Network]] = []
    for aligned in (False, True) if groups else (False,):
        if passages and min(seen.log10_p for seen, _ in passages) + math.log10(looks) <= threshold_log10_p:
            break
        for network in networks:
            layers = Layers(read=suspect.read, names=network.as_stored, layouts=network.conventions[0])
            if aligned:
                alignment = align(layers, reference, groups)
                layers = Layers(
                    read=suspect.read, names=network.as_stored, layouts=network.conventions[0], alignment=alignment
                )
            present = Mask(layers={name: reference.mask[name] for name in network.as_stored})
            passages.append((examine(layers, present, binding, parameters), network))
    best = min(passages, key=lambda passage: passage[0].log10_p)[1]
    evidence = to_evidence(
        [seen for seen, _ in passages],
        threshold_log10_p=threshold_log10_p,
        looks=looks,
        missing=[name for name in reference.mask if name not in best.as_stored and name not in best.unreadable],
        paired_by_order=best.match.by_order,
    )
    if evidence.status == "not_supported" and (found.unreadable or best.match.by_content):
        # A copy might be what could not be read, or lie elsewhere than where layers were looked for.
        evidence = dataclasses.replace(evidence, status="inconclusive")
    what_was_read = {
        "network": (suspect.network or "") + best.match.network,
        "networks": len(networks),
        "unreadable_networks": [(suspect.network or "") + network.match.network for network in found.unreadable],
        "layers_paired_by_content": list(best.match.by_content),
        "unreadable_layers": [{"layer": layer, "reason": reason} for layer, reason in best.unreadable.items()],
    }
    return dataclasses.replace(evidence, details={**evidence.details, **what_was_read})
