"""Wrong keys, and what they show of a suspect that was examined before."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from benchmarks.shared.quick_tickets import Quick
from ticketguard.credentials.canonical import canonical_json
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.keyed import commit
from ticketguard.verification.memory import Memory
from ticketguard.verification.planted_graph.counting import Counted, ReadSuspect, count_hits
from ticketguard.verification.planted_graph.examination import Examination
from ticketguard.verification.statistics import LayerCount, log10_upper_tail, log10_with_signs

# Tails are computed of counts that are so many standard deviations above their mean: below, p is more than 0.05, and
# after correction more than 0.5.
REMARKABLE = 1.2
# From here on p is what `verify` computes, and must be what the convolution gives, so exactly.
SMALL, SAME, NOTHING = -2.5, 1e-7, 1e-30
Doubles = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keys:
    """What a wrong key's commitment binds: all that the owner's binds, but the secret.

    Attributes:
        fields: Of `commit`.
        parameters: Of the planted graph.
    """

    fields: Mapping[str, Any]
    parameters: PlantedParameters

    @classmethod
    def of(cls, tickets: Quick) -> Keys:
        """Return the keys that are wrong for a ticket."""
        mark = tickets.credential.claim.marks[0]
        fields = {
            "owner_public_key": tickets.credential.claim.owner_public_key,
            "reference_digest": tickets.reference.digest(),
            "scheme": mark.scheme,
            "version": mark.version,
            "level_bits": mark.level_bits,
            "parameters": canonical_json(dict(mark.parameters)),
        }
        return cls(fields=fields, parameters=tickets.parameters)

    def binding(self, index: int) -> Binding:
        """Return one of them."""
        secret = hashlib.sha256(b"wrong key" + index.to_bytes(8, "little")).digest()
        return Binding(secret=secret, commitment=commit(secret=secret, **self.fields))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What is seen of one suspect, whatever the key.

    Attributes:
        reads: Its networks as stored, then aligned.
        looks: The factor that every p is multiplied by.
    """

    reads: tuple[ReadSuspect, ...]
    looks: int

    @classmethod
    def of(cls, examination: Examination) -> Seen:
        """Return what an examination sees."""
        return cls(reads=tuple(sighting.read for sighting in examination.seen), looks=examination.looks)


def readings_of_keys(first: int, count: int, keys: Keys, suspects: Mapping[str, Seen]) -> dict[str, Doubles]:
    """Return log10 p of *count* wrong keys, per suspect an array of shape (count, looks at all passes).

    A look is a reading's hits, or its hits with their signs. Counts that are not `REMARKABLE` have 0.
    """
    rows: dict[str, list[list[float]]] = {name: [] for name in suspects}
    for index in range(first, first + count):
        binding = keys.binding(index)
        drawn = Memory(limit_bytes=2**24)
        for name, seen in suspects.items():
            # A layer's secret edges are the same beside all suspects.
            counts = [counted for read in seen.reads for counted in count_hits(read, binding, keys.parameters, drawn)]
            rows[name].append([log10_p for counted in counts for log10_p in results_of(counted)])
    return {name: np.array(found) for name, found in rows.items()}


def results_of(counted: Counted) -> tuple[float, ...]:
    """Return log10 p of a reading's hits and, where edges were planted with signs, of hits with their signs."""
    alone, signs = log10_tail(counted.layers), counted.signs
    if signs is None:
        return (alone,)
    deviation = math.sqrt(max(1, signs.coins)) / 2
    if alone == 0.0 and signs.agreeing <= signs.expected + REMARKABLE * deviation:
        return alone, 0.0
    exact = alone or log10_tail(counted.layers, remarkable=-math.inf)
    return alone, log10_with_signs(exact, signs, hits=counted.hits)


def log10_tail(layers: Sequence[LayerCount], *, remarkable: float = REMARKABLE) -> float:
    """Return log10 p of a count, 0 if it is near its mean or below.

    The tail is that of the layers' distributions convolved. Where it is `SMALL`, it is what `verify` computes.

    Raises:
        ArithmeticError: The two are not the same.
    """
    hits = sum(layer.hits for layer in layers)
    expected = sum(layer.expected for layer in layers)
    if hits <= expected + remarkable * math.sqrt(sum(layer.variance for layer in layers)):
        return 0.0
    lowest, whole = 0, np.ones(1)
    for layer in layers:
        first, probabilities = distribution(layer.size, layer.kept, layer.secret)
        lowest, whole = lowest + first, np.convolve(whole, probabilities)
    log10_p = math.log10(whole[max(0, hits - lowest) :].sum())
    if log10_p > SMALL:
        return log10_p
    told = log10_upper_tail(layers)
    if abs(told - log10_p) > SAME:
        raise ArithmeticError(f"log10 p is {told}, expected {log10_p}: {layers}")
    return told


@functools.lru_cache(maxsize=100_000)
def distribution(size: int, kept: int, secret: int) -> tuple[int, Doubles]:
    """Return the fewest hits of one layer, and the probabilities of so many or more, as far as they matter."""
    lowest, highest = max(0, secret + kept - size), min(secret, kept)
    hits = np.arange(lowest, highest + 1)
    ways = log_choices(kept, hits) + log_choices(size - kept, secret - hits) - log_choices(size, secret)
    probabilities = np.exp(ways)
    matter = np.flatnonzero(probabilities > NOTHING)
    return lowest + int(matter[0]), probabilities[matter[0] : matter[-1] + 1]


def log_choices(among: int, chosen: Any) -> Any:
    """Return ln of the binomial coefficient."""
    return gammaln(among + 1.0) - gammaln(chosen + 1.0) - gammaln(among - chosen + 1.0)
