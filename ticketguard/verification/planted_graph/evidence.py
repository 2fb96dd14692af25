"""What the passes over a suspect say together, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ticketguard.embedding import planted_graph
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.graph.alignment import Alignment
from ticketguard.verification.decoys import MOST_DECOYS, decoy_bindings
from ticketguard.verification.doubts import ASSUMPTIONS, doubts_about
from ticketguard.verification.passes import how_it_lay
from ticketguard.verification.planted_graph.counting import count_hits
from ticketguard.verification.planted_graph.passages import Passage
from ticketguard.verification.verdict import Evidence, decide

# Decoys are for the eye: of large references, whose secret sets cost the most, a few are shown.
LEAST_DECOYS, DECOY_POSITIONS = 2, 4_000_000


def evidence_of(
    passages: Sequence[Passage],
    alignments: Sequence[Alignment],
    binding: Binding,
    parameters: PlantedParameters,
    *,
    threshold_log10_p: float,
    looks: int,
    details: dict[str, Any],
) -> Evidence:
    """Correct the strongest passage for every reading that could have been taken, and say what it means.

    Args:
        passages: The passes that were made.
        alignments: All that were tried; none if what was read as stored was enough.
        binding: The owner's key; decoys go through the strongest passage.
        parameters: Of the claim.
        threshold_log10_p: What a supported claim needs.
        looks: Readings in all passes that the rule allows, made or not.
        details: What was read of the strongest passage's network, with "missing_layers", "unreadable_layers",
            "values_not_finite" and "unreadable_networks".
    """
    best = min(passages, key=lambda passage: passage.log10_p)
    correction = math.log10(looks)
    log10_p = min(0.0, best.log10_p + correction)
    attainable = min(0.0, min(passage.attainable_log10_p for passage in passages) + correction)
    status = decide(log10_p, threshold_log10_p=threshold_log10_p, attainable_log10_p=attainable)
    doubts: list[str] = []
    if status != "supported":
        doubts = doubts_about(status, alignments, is_short=attainable > threshold_log10_p, details=details)
        status = "inconclusive" if doubts else status
    layers, decoys = best.counted.layers, _decoys(best, binding, parameters)
    return Evidence(
        mark=planted_graph.SCHEME,
        status=status,
        statistic=_statistic(best),
        observed=best.counted.hits,
        expected=sum(layer.expected for layer in layers),
        log10_p=log10_p,
        threshold_log10_p=threshold_log10_p,
        details={
            **({"why": doubts} if doubts else {}),
            "reading": best.counted.reading.name,
            **_signs(best),
            "aligned": best.alignment is not None,
            "read_to_the_end": bool(alignments) and not any(alignment.is_part for alignment in alignments),
            **how_it_lay(best.alignment, alignments),
            **({} if best.alignment is None else {"layout": best.layout}),
            "looks": looks,
            "log10_p_uncorrected": best.log10_p,
            "attainable_log10_p": attainable,
            "decoy_keys": len(decoys),
            "decoy_log10_p": min(0.0, min(decoys) + correction),
            "edges": sum(layer.kept for layer in layers),
            "positions": sum(layer.size for layer in layers),
            "layers": len(layers),
            **details,
        },
        assumptions=ASSUMPTIONS,
    )


def _statistic(passage: Passage) -> str:
    is_all = sum(layer.size for layer in passage.counted.layers) == passage.read.reference.size
    where = "edges" if is_all else "edges that the reference does not have,"
    words = f"{where} inside the owner's secret edge set"
    signs = passage.counted.signs
    if not passage.with_signs or signs is None:
        return words
    return f"{words} ({signs.agreeing} of {signs.coins} with the owner's sign)"


def _signs(passage: Passage) -> dict[str, Any]:
    """Return what the signs of hits say, where edges were planted with signs."""
    signs = passage.counted.signs
    if signs is None:
        return {}
    return {
        "signs": "agreeing" if passage.with_signs else "not looked at",
        "signs_agreeing": signs.agreeing,
        "signs_expected": signs.expected,
    }


def _decoys(best: Passage, binding: Binding, parameters: PlantedParameters) -> list[float]:
    """Return log10 p of decoy keys, the smallest of each one's readings."""
    secret = max(1, sum(layer.secret for layer in best.counted.layers))
    count = min(MOST_DECOYS, max(LEAST_DECOYS, DECOY_POSITIONS // secret))
    found = [count_hits(best.read, decoy, parameters) for decoy in decoy_bindings(binding.commitment, count)]
    # Of many decoys the tails of one reading each are computed: of the count that stands out most.
    return [min(max(counts, key=lambda counted: counted.surprise).results) for counts in found]
