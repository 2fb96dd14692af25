"""Soundness: hostile claims and hostile suspects against fresh secrets, through the functions of `verify`.

Whatever a claimant publishes before the secret is drawn, and whatever the suspect is, p must be as rare as it says:
P(p ≤ t) ≤ t for every reading of every pass, for the corrected minimum, and for the answers' e-process. And a claimant
who grinds 2^k secrets must not get below 2^-k by more than luck.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy.stats import binom

from benchmarks.shared.hostile_claims import ANSWERERS, CLAIMS, Answering, Claim
from benchmarks.shared.results import Bar, write_result
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.trigger_set import draw_triggers
from ticketguard.graph import align
from ticketguard.keyed import commit
from ticketguard.predictors.patience import Patience
from ticketguard.verification import statistics, trigger_set
from ticketguard.verification.journal import Journal
from ticketguard.verification.planted_graph.counting import Counted, ReadSuspect, count_hits, looks_at_one
from ticketguard.verification.readings import Layers

LEVELS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
# Stated before anything is drawn: the probability that any of all comparisons fails although every p is exact.
FAMILY_LEVEL = 0.01
GROUND_SECRETS = 2**16
GROUND = "shapes: one row and one column"
# Evidence is gathered to the end: a verdict would stop at its level.
NEVER = -math.inf

Doubles = npt.NDArray[np.float64]


def binding_of(name: str, index: int, *, digest: bytes, scheme: str, parameters: str) -> Binding:
    """Return a fresh secret and its commitment: what a claimant gets who publishes this claim once more."""
    secret = hashlib.sha256(f"soundness/{name}/{index}".encode()).digest()
    commitment = commit(
        secret=secret,
        owner_public_key=bytes(32),
        reference_digest=digest,
        scheme=scheme,
        version=1,
        level_bits=64,
        parameters=parameters.encode(),
    )
    return Binding(secret=secret, commitment=commitment)


def weights_p_values(claim: Claim, secrets: int) -> Doubles:
    """Return log10 p of every reading of every pass and, last, of the corrected minimum; shape (secrets, readings)."""
    digest = claim.reference.digest()
    stored = Layers(read=claim.suspect.__getitem__, names={name: name for name in claim.suspect})
    # The alignment sees the reference and the suspect, no secret: it is the same for all.
    alignment = align(stored, claim.reference, claim.groups)
    aligned = {name: alignment.apply(name, layer) for name, layer in stored.items()}
    passes = [stored, Layers(read=aligned.__getitem__, names={name: name for name in aligned})]
    reads = [ReadSuspect.of(layers, claim.reference, claim.parameters) for layers in passes]
    correction = math.log10(looks_at_one(is_signed=claim.parameters.is_signed))
    rows = []
    for index in range(secrets):
        binding = binding_of(
            claim.name, index, digest=digest, scheme="planted-graph", parameters=repr(claim.parameters)
        )
        counts = [counted for read in reads for counted in count_hits(read, binding, claim.parameters)]
        row = [log10_p for counted in counts for log10_p in results_of(counted)]
        rows.append([*row, min(0.0, min(row) + correction)])
    return np.array(rows)


def results_of(counted: Counted) -> tuple[float, ...]:
    """Return what `Counted.results` does: hits alone and, where edges were planted with signs, hits with theirs."""
    alone = memoised_tail(counted.layers)
    if counted.signs is None:
        return (alone,)
    return alone, statistics.log10_with_signs(alone, counted.signs, hits=counted.hits)


def answers_p_values(answering: Answering, secrets: int) -> Doubles:
    """Return log10 p of a suspect's answers, shape (secrets, 1)."""
    rows = []
    for index in range(secrets):
        binding = binding_of(
            answering.name, index, digest=bytes(32), scheme="trigger-set", parameters=str(answering.recipe.to_json())
        )
        triggers = draw_triggers(binding, answering.recipe)
        witness = trigger_set.Witness(
            predictor=answering.predictor(), classes=answering.recipe.classes, patience=Patience(0)
        )
        evidence = trigger_set.interrogate(witness, triggers, Journal(), threshold_log10_p=NEVER, controls=None)
        rows.append([evidence.log10_p])
    return np.array(rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparisons:
    """How many p-values are at most a level, in every column of p-values and at every level.

    Attributes:
        found: How many are, shape (columns, levels).
        secrets: Of how many.
    """

    found: npt.NDArray[np.int64]
    secrets: int

    @classmethod
    def of(cls, log10_p: Doubles) -> Comparisons:
        """Count, in the columns of *log10_p*."""
        # A p-value that is a level (1/2, of two classes) is at most that level, whatever its logarithm's last bit.
        limits = np.log10(LEVELS) + 1e-9
        return cls(found=(log10_p.T[:, :, None] <= limits).sum(axis=1), secrets=len(log10_p))

    def chances(self) -> Doubles:
        """Return the probability of finding as many or more, were every P(p ≤ t) as large as it may be, t."""
        return np.asarray(binom.sf(self.found - 1, self.secrets, np.array(LEVELS)))


def log10_p_values(name: str, secrets: int) -> Doubles:
    """Return log10 p of what is tried under this name, shape (secrets, p-values)."""
    without_repetition()
    tried = next(each for each in (*CLAIMS, *ANSWERERS) if each.name == name)
    return weights_p_values(tried, secrets) if isinstance(tried, Claim) else answers_p_values(tried, secrets)


def ground(name: str) -> float:
    """Return the smallest corrected log10 p that a claimant finds who tries `GROUND_SECRETS` secrets."""
    return float(log10_p_values(name, GROUND_SECRETS)[:, -1].min())


def memoised_tail(layers: Sequence[statistics.LayerCount]) -> float:
    """Compute `log10_upper_tail` once for every count that comes up: it is a function of sizes and total hits."""
    hits = sum(layer.hits for layer in layers)
    return _tail(tuple((layer.size, layer.kept, layer.secret) for layer in layers), hits)


@functools.lru_cache(maxsize=200_000)
def _tail(layers: tuple[tuple[int, int, int], ...], hits: int) -> float:
    counts = [statistics.LayerCount(size=size, kept=kept, secret=secret, hits=0) for size, kept, secret in layers]
    return statistics.log10_upper_tail(counts, hits)


@functools.cache
def without_repetition() -> None:
    """Leave out repeated computations of one e-value."""
    log10_e: Callable[[float, int, int], float] = functools.lru_cache(maxsize=200_000)(
        lambda chance, queries, matches: _log10_e(statistics.EProcess(chance=chance, queries=queries, matches=matches))
    )
    statistics.EProcess.log10_e = property(lambda self: log10_e(self.chance, self.queries, self.matches))  # type: ignore[method-assign,assignment]


_log10_e = statistics.EProcess.log10_e.fget  # type: ignore[attr-defined]


def judged(p_values: Mapping[str, Doubles]) -> dict[str, Any]:
    """Hold every claim's p-values against every level."""
    comparisons = sum(log10_p.shape[1] * len(LEVELS) for log10_p in p_values.values())
    limit = FAMILY_LEVEL / comparisons
    chances = {name: Comparisons.of(log10_p).chances() for name, log10_p in p_values.items()}
    halved = {name: Comparisons.of(log10_p - math.log10(2)).chances() for name, log10_p in p_values.items()}
    return {
        "p_values": int(sum(log10_p.size for log10_p in p_values.values())),
        "comparisons": comparisons,
        "limit": limit,
        "violations": int(sum((chance < limit).sum() for chance in chances.values())),
        "least_chance": float(min(chance.min() for chance in chances.values())),
        "claims that fail if every p were half as large": int(sum((c < limit).any() for c in halved.values())),
        "claims": {
            name: {
                "smallest log10 p of any reading": float(log10_p.min()),
                "smallest corrected log10 p": float(log10_p[:, -1].min()),
                "share of corrected p at most t": {
                    str(level): float((log10_p[:, -1] <= math.log10(level) + 1e-9).mean()) for level in LEVELS
                },
                "least chance": float(chances[name].min()),
            }
            for name, log10_p in p_values.items()
        },
    }


def main() -> None:
    """Measure and write results/soundness.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secrets", type=int, default=2000)
    secrets = parser.parse_args().secrets
    # The longest first.
    tried = [*reversed(ANSWERERS), *reversed(CLAIMS)]
    smallest, *found = Parallel(n_jobs=2)(
        [delayed(ground)(GROUND), *(delayed(log10_p_values)(each.name, secrets) for each in tried)]
    )
    p_values = {each.name: log10_p for each, log10_p in zip(tried, found, strict=True)}
    raw = judged(p_values)
    # P(the smallest of N is at most t) ≤ N·t, so this product is below 0.001 with probability 0.001 at most.
    excess = GROUND_SECRETS * 10**smallest
    bars = {
        "hostile claims": Bar(value=len(p_values), bound=40, at_most=False),
        "secrets for each": Bar(value=secrets, bound=2000, at_most=False),
        "violations of P(p <= t) <= t": Bar(value=raw["violations"], bound=0, at_most=True),
        "claims where p-values half as large are seen": Bar(
            value=raw["claims that fail if every p were half as large"], bound=10, at_most=False
        ),
        "smallest p of 2^16 ground secrets, times 2^16": Bar(value=excess, bound=0.001, at_most=False),
    }
    setting = {"secrets": secrets, "levels": LEVELS, "family_level": FAMILY_LEVEL, "ground_secrets": GROUND_SECRETS}
    write_result("soundness", setting=setting, seeds=[0], raw={**raw, "ground": {GROUND: smallest}}, bars=bars)


if __name__ == "__main__":
    # Other processes find the functions by the module's name.
    from benchmarks import soundness

    soundness.main()
