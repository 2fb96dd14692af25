"""signatures/planted-graph.md and the e-process of trigger-set.md, once more: by their words, slowly and exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

from ticketguard.keyed import KeyedStream
from ticketguard.ticket import Mask
from ticketguard.verification.statistics import LayerCount

RATES = ("0.05", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "0.95", "0.99", "0.999")


def exact_tail(layers: list[LayerCount], hits: int) -> Fraction:
    """P(ΣX ≥ hits), X hypergeometric in every layer."""
    ways, lowest, all_ways = [1], 0, 1
    for layer in layers:
        first, last = max(0, layer.secret + layer.kept - layer.size), min(layer.secret, layer.kept)
        own = [
            math.comb(layer.kept, x) * math.comb(layer.size - layer.kept, layer.secret - x)
            for x in range(first, last + 1)
        ]
        summed = [0] * (len(ways) + len(own) - 1)
        for i, one in enumerate(ways):
            for j, other in enumerate(own):
                summed[i + j] += one * other
        ways, lowest, all_ways = summed, lowest + first, all_ways * math.comb(layer.size, layer.secret)
    return Fraction(sum(ways[max(0, hits - lowest) :]), all_ways)


def log10(exact: Fraction) -> Decimal:
    """Sixty digits: more than any float has to be compared with."""
    with localcontext() as context:
        context.prec = 60
        return (Decimal(exact.numerator) / Decimal(exact.denominator)).log10()


def with_signs(of_hits: Fraction, hits: int, coins: int, agreeing: int) -> Decimal:
    """log10 of q·(1 + min(−ln q, x·ln 2)), q = P(ΣX ≥ x)·P(B ≥ a), B binomial with m fair coins."""
    of_signs = Fraction(sum(math.comb(coins, heads) for heads in range(agreeing, coins + 1)), 2**coins)
    q = of_hits * of_signs
    with localcontext() as context:
        context.prec = 60
        exact = Decimal(q.numerator) / Decimal(q.denominator)
        return min(Decimal(0), (exact * (1 + min(-exact.ln(), hits * Decimal(2).ln()))).log10())


def e_value(chance: Fraction, queries: int, matches: int) -> Fraction:
    """The mean over rates of (q/p0)^m · ((1−q)/(1−p0))^(t−m)."""
    total = Fraction(0)
    for rate in map(Fraction, RATES):
        q = chance + (1 - chance) * rate
        total += (q / chance) ** matches * ((1 - q) / (1 - chance)) ** (queries - matches)
    return total / len(RATES)


def largest(magnitudes: list[float], count: int) -> set[int]:
    """The positions of the largest magnitudes; equal ones in order of position, zeros never."""
    order = sorted(range(len(magnitudes)), key=lambda position: (-magnitudes[position], position))
    return {position for position in order[:count] if magnitudes[position] > 0}


def finite(suspect: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """NaN and infinity count as zero."""
    found = {}
    for name, layer in suspect.items():
        values = [float(value) if math.isfinite(value) else 0.0 for value in layer.reshape(-1)]
        found[name] = np.array(values, np.float32).reshape(layer.shape)
    return found


def relative(layer: np.ndarray) -> list[float]:
    """Three times over: each output channel by its norm, then each input channel by its."""
    array = layer.astype(np.float64).reshape(*layer.shape[:2], -1)
    for _ in range(3):
        for axes in ((1, 2), (0, 2)):
            norms = np.sqrt((array**2).sum(axis=axes, keepdims=True))
            array = array / np.where(norms == 0, 1, norms)
    return [float(value) for value in np.abs(array).reshape(-1)]


def standing_out(magnitudes: list[float]) -> int:
    roots = sorted((math.sqrt(value) for value in magnitudes if value > 0), reverse=True)
    total = len(roots)
    if total < 2:
        return total
    scores = []
    for m in range(1, total):
        first, others = math.fsum(roots[:m]) / m, math.fsum(roots[m:]) / (total - m)
        scores.append(m * (total - m) * (first - others) ** 2)
    return 1 + max(range(len(scores)), key=lambda index: (scores[index], -index))


def coins_of(secret: bytes, commitment: bytes, name: str, positions: set[int]) -> dict[int, int]:
    """The sign of every secret position, in ascending order: 1 is plus, 0 minus."""
    stream = KeyedStream(secret=secret, commitment=commitment, label=f"coins/{name}")
    return {position: 2 * int(stream.integers(2, 1)[0]) - 1 for position in sorted(positions)}


def secret_positions(secret: bytes, commitment: bytes, name: str, positions: int, secret_ppm: int) -> set[int]:
    size = (positions * secret_ppm + 500_000) // 1_000_000
    stream = KeyedStream(secret=secret, commitment=commitment, label=f"edges/{name}")
    drawn: set[int] = set()
    while len(drawn) < size:
        drawn.add(int(stream.integers(positions, 1)[0]))
    return drawn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """One reading: its counts and how many edges a copy has, layer by layer; hits that have coins, and that agree."""

    layers: list[LayerCount]
    edges: list[int]
    kept: list[int]
    positions: list[int]
    coins: int
    agreeing: int

    @property
    def hits(self) -> int:
        return sum(layer.hits for layer in self.layers)

    @property
    def expected(self) -> Fraction:
        return sum((Fraction(layer.secret * layer.kept, layer.size) for layer in self.layers), Fraction(0))

    @property
    def log10_p(self) -> Decimal:
        return log10(exact_tail(self.layers, self.hits))

    @property
    def signed_log10_p(self) -> Decimal:
        return with_signs(exact_tail(self.layers, self.hits), self.hits, self.coins, self.agreeing)

    def attainable_log10_p(self, share_ppm: int, *, turned_ppm: int = 0) -> Decimal:
        """Of a copy whose planted edges are as likely as its others to be among those that are kept.

        Training turned some of their signs, where they have any.
        """
        copies, share, turned = [], Fraction(share_ppm, 10**6), Fraction(turned_ppm, 10**6)
        coins, agreeing = 0, Fraction(0)
        for layer, edges, kept, positions in zip(self.layers, self.edges, self.kept, self.positions, strict=True):
            if layer.size < positions:  # all that a copy has there is planted
                planted = there = min(Fraction(layer.secret), edges * share)
            else:
                planted = min(Fraction(layer.secret), edges * (share + Fraction(layer.secret, positions)))
                there = Fraction(edges)
            left = Fraction(min(kept, edges), max(1, edges))
            found, inside = planted * left, there * left
            if kept > edges:  # the rest is kept as if by chance
                found += (layer.secret - planted) * Fraction(kept - edges, positions - edges)
                inside += (layer.size - there) * Fraction(kept - edges, positions - edges)
            copies.append(
                LayerCount(
                    size=layer.size,
                    kept=round(inside),
                    secret=layer.secret,
                    hits=min(layer.secret, round(inside), round(found)),
                )
            )
            if layer.size < positions:
                there_still = min(planted * left, Fraction(copies[-1].hits))
                coins += copies[-1].hits
                agreeing += there_still * (1 - turned) + (copies[-1].hits - there_still) / 2
        hits = sum(copy.hits for copy in copies)
        tail = exact_tail(copies, hits)
        return min(log10(tail), with_signs(tail, hits, coins, int(agreeing))) if turned_ppm else log10(tail)


def readings(
    suspect: Mapping[str, np.ndarray],
    mask: Mask,
    parameters: Mapping[str, int],
    secret: bytes,
    commitment: bytes,
    is_negative: Mapping[str, np.ndarray] | None = None,
    decided: Mapping[str, set[int]] | None = None,
) -> list[Counted]:
    """Take every reading of a suspect.

    *is_negative* is what its rows' and columns' turns leave of its signs; *decided* are positions of other marks.
    """
    density = parameters.get("density_ppm", 0)
    everything = np.sort(np.concatenate([np.abs(suspect[name]).reshape(-1) for name in mask]))[::-1]
    threshold = everything[max(1, len(everything) * density // 1_000_000) - 1]
    found = []
    for reading in range(1, 6):
        layers, copies, everywhere, sizes = [], [], [], []
        coins = agreeing = 0
        for name in mask:
            magnitudes = [float(value) for value in np.abs(suspect[name]).reshape(-1)]
            alive = sum(value > 0 for value in magnitudes)
            edges = int(mask[name].sum())
            if edges == len(magnitudes):
                edges -= edges * parameters.get("holes_ppm", 0) // 1_000_000
            if density:
                edges = sum(value >= threshold and value > 0 for value in magnitudes)
            copies.append(edges)
            compared = relative(suspect[name]) if reading == 5 and (density or alive > edges) else magnitudes
            if reading == 5 and density:
                edges = standing_out(compared)
            wanted = {1: len(magnitudes), 2: edges, 3: round(edges / 2), 4: round(edges / 4), 5: edges}[reading]
            kept = largest(compared, wanted)
            drawn = secret_positions(secret, commitment, name, len(magnitudes), parameters["secret_ppm"])
            empty = {position for position, there in enumerate(mask[name].reshape(-1)) if not there}
            counted = (empty or set(range(len(magnitudes)))) - (decided or {}).get(name, set())
            hits = len(kept & drawn & counted)
            if is_negative is not None and empty:
                signs = coins_of(secret, commitment, name, drawn)
                flat = is_negative[name].reshape(-1)
                coins += hits
                agreeing += sum((signs[position] < 0) == bool(flat[position]) for position in kept & drawn & counted)
            layers.append(
                LayerCount(size=len(counted), kept=len(kept & counted), secret=len(drawn & counted), hits=hits)
            )
            everywhere.append(len(kept))
            sizes.append(len(magnitudes))
        found.append(
            Counted(layers=layers, edges=copies, kept=everywhere, positions=sizes, coins=coins, agreeing=agreeing)
        )
    return found
