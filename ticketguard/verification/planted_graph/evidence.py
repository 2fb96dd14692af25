"""What the strongest pass over a suspect says of a planted graph, in numbers and in words."""

from __future__ import annotations

from typing import Any

from ticketguard.embedding import planted_graph
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.verification.decoys import decoy_bindings
from ticketguard.verification.doubts import ASSUMPTIONS
from ticketguard.verification.outcome import Outcome
from ticketguard.verification.planted_graph.counting import count_hits
from ticketguard.verification.planted_graph.passages import Passage
from ticketguard.verification.verdict import Evidence

# Secret positions that are drawn for decoys: they cost more than signs.
DECOY_POSITIONS = 4_000_000


def evidence_of(
    outcome: Outcome[Passage], binding: Binding, parameters: PlantedParameters, *, details: dict[str, Any]
) -> Evidence:
    """Say what the strongest passage means.

    Args:
        outcome: What the passes show.
        binding: The owner's key; decoys go through the strongest passage.
        parameters: Of the claim.
        details: What was read of the strongest passage's network, with "missing_layers", "unreadable_layers",
            "values_not_finite" and "unreadable_networks".
    """
    best = outcome.best
    layers, decoys = best.counted.layers, _decoys(best, binding, parameters)
    return outcome.evidence(
        mark=planted_graph.SCHEME,
        reading={"reading": best.counted.reading.name, **_signs(best)},
        statistic=_statistic(best),
        observed=best.counted.hits,
        expected=sum(layer.expected for layer in layers),
        details={
            **({} if outcome.alignment is None else {"layout": best.layout}),
            "decoy_keys": len(decoys),
            "decoy_log10_p": outcome.corrected(min(decoys)),
            "edges": sum(layer.kept for layer in layers),
            "positions": sum(layer.size for layer in layers),
            "layers": len(layers),
            **details,
        },
        assumptions=ASSUMPTIONS,
    )


def _statistic(passage: Passage) -> str:
    is_all = sum(layer.size for layer in passage.counted.layers) == passage.read.reference.size
    others = " and the claim's other marks do" if passage.read.decided else " does"
    where = "edges" if is_all else f"edges that the reference{others} not have,"
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
    secret = sum(layer.secret for layer in best.counted.layers)
    decoys = decoy_bindings(binding.commitment, positions=secret, most_positions=DECOY_POSITIONS)
    found = [count_hits(best.read, decoy, parameters) for decoy in decoys]
    # Of many decoys the tails of one reading each are computed: of the count that stands out most.
    return [min(max(counts, key=lambda counted: counted.surprise).results) for counts in found]
