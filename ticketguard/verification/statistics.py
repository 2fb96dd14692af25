"""Exact statistics of a verdict, in log space.

White-box: the hits of a suspect's mask in the secret edge set are a sum of independent hypergeometric counts,
one a layer. Black-box: the matches on the trigger set feed an anytime-valid e-process. Neither needs null
models; both hold for any suspect that does not derive from the marked ticket.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp

Doubles: TypeAlias = npt.NDArray[np.float64]

LN10 = math.log(10.0)
# Tilted probabilities below this are left out of the convolution; their total is added back as an error bound.
NEGLIGIBLE = 1e-30
# Bound on the convolution's relative rounding error, far above the few ulps a forward and an inverse FFT make.
ROUNDING = 1e-12
FACTORS_IN_ROUNDING = 100
# Kinds of layers whose spectra are multiplied in one go; the deepest networks have fewer.
FACTORS_AT_ONCE = 256
MOST_TILT, LEAST_TILT_STEP = 64.0, 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerCount:
    """One layer's share of the count.

    Attributes:
        size: Positions in the layer (n).
        kept: Positions the suspect keeps (K).
        secret: Positions that are secret (s).
        hits: Positions that are both (x).
    """

    size: int
    kept: int
    secret: int
    hits: int

    @property
    def expected(self) -> float:
        """Mean hits of a suspect that does not derive from the marked ticket: s·K/n."""
        return self.secret * self.kept / self.size if self.size else 0.0

    @property
    def variance(self) -> float:
        """Variance of the same: s·(K/n)·(1 − K/n)·(n − s)/(n − 1)."""
        kept = self.kept / max(1, self.size)
        return self.secret * kept * (1 - kept) * (self.size - self.secret) / max(1, self.size - 1)

    @property
    def lowest(self) -> int:
        """Fewest possible hits."""
        return max(0, self.secret + self.kept - self.size)

    @property
    def highest(self) -> int:
        """Most possible hits."""
        return min(self.secret, self.kept)


def log10_upper_tail(layers: Sequence[LayerCount], hits: int | None = None) -> float:
    """Return log10 P(ΣX ≥ hits) for independent hypergeometric X, one a layer.

    The distributions are tilted by e^{λx} so that the observed count becomes the mean, convolved by FFT in the
    tilted measure, where the tail is not rare, and tilted back (exponential tilting: Keich, "sFFT: a faster accurate
    computation of the p-value of the entropy score", J. Comput. Biol. 12(4), 2005). Rounding and truncation are
    bounded and added, so the result is exact to about nine digits and never too small.

    Args:
        layers: Sizes, and hits where *hits* is None.
        hits: The observed total; by default the layers' own.
    """
    observed = sum(layer.hits for layer in layers) if hits is None else hits
    lowest, highest = sum(layer.lowest for layer in layers), sum(layer.highest for layer in layers)
    if observed <= lowest:
        return 0.0
    if observed > highest:
        return -math.inf
    # Layers alike have one distribution: a reference of thousands of tiny layers costs what its few kinds cost.
    times = Counter(dataclasses.replace(layer, hits=0) for layer in layers)
    kinds = _Kinds.of(list(times.items()))
    if observed == highest:
        log_tail = _sum(_in_order([block.times * block.log_pmf[:, -1] for block in kinds], kinds))
    else:
        log_tail = _tilted_tail(kinds, observed, _find_tilt(kinds, observed))
    # ln Γ is accurate to a few ulps of its value, which for millions of positions is the largest error left.
    gamma_error = 8 * np.finfo(np.float64).eps * sum(n * float(gammaln(kind.size + 1.0)) for kind, n in times.items())
    return min(0.0, float(log_tail + gamma_error) / LN10)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Kinds:
    """Kinds of layers that may have as many counts as each other: thousands are computed in one go, a row each.

    Attributes:
        places: Where each kind stands among all kinds (kinds).
        times: How many layers each has (kinds).
        support: Counts they may have (kinds × counts).
        log_pmf: ln of their probabilities (kinds × counts).
    """

    places: npt.NDArray[np.intp]
    times: npt.NDArray[np.int64]
    support: Doubles
    log_pmf: Doubles

    @classmethod
    def of(cls, kinds: Sequence[tuple[LayerCount, int]]) -> list[_Kinds]:
        """Put kinds that have as many counts together."""
        by_counts: dict[int, list[int]] = {}
        for place, (kind, _) in enumerate(kinds):
            by_counts.setdefault(kind.highest - kind.lowest + 1, []).append(place)
        return [cls._alike([kinds[place] for place in places], places, count) for count, places in by_counts.items()]

    @classmethod
    def _alike(cls, kinds: Sequence[tuple[LayerCount, int]], places: Sequence[int], counts: int) -> _Kinds:
        """Hypergeometric: P(X = x) = C(K, x)·C(n−K, s−x) / C(n, s)."""
        columns = [(kind.size, kind.kept, kind.secret, kind.lowest) for kind, _ in kinds]
        n, k, s, lowest = np.array(columns, dtype=np.float64).T[:, :, np.newaxis]
        x = lowest + np.arange(counts)
        return cls(
            places=np.array(places),
            times=np.array([times for _, times in kinds]),
            support=x,
            log_pmf=_log_choose(k, x) + _log_choose(n - k, s - x) - _log_choose(n, s),
        )

    def tilted(self, tilt: float) -> Doubles:
        """Return ln of the probabilities times e^(tilt · count), not normalised (kinds × counts)."""
        return self.log_pmf + tilt * self.support


def _log_choose(n: Doubles, k: Doubles) -> Doubles:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), dtype=np.float64)


def _in_order(values: Sequence[Doubles], kinds: Sequence[_Kinds]) -> Doubles:
    """Return one value a kind, in the order of all kinds."""
    ordered = np.empty(sum(len(block.places) for block in kinds))
    for value, block in zip(values, kinds, strict=True):
        ordered[block.places] = value
    return ordered


def _sum(values: Doubles) -> float:
    """Add values up from first to last: the same sum whatever block they were computed in."""
    return float(np.cumsum(values)[-1])


def _find_tilt(kinds: Sequence[_Kinds], observed: int) -> float:
    """Return λ ≥ 0 that makes *observed* about the mean of the tilted sum; 0 where it is below the mean already.

    The mean grows with λ, and its slope is the variance: Newton's method on its logarithm, which is nearly straight
    (a Poisson sum's is straight), and bisection where a step leaves the bracket.
    Any λ gives a valid tail; a count within a tenth of a standard deviation of the mean is central enough.
    """
    low, high, tilt = 0.0, MOST_TILT, 0.0
    while high - low > LEAST_TILT_STEP:
        mean, variance = _tilted_moments(kinds, tilt)
        missing = observed - mean
        if missing <= 0.0 and tilt == 0.0:
            return 0.0
        if abs(missing) < 0.1 * math.sqrt(variance):
            return tilt
        low, high = (tilt, high) if missing > 0.0 else (low, tilt)
        newton = tilt + mean / variance * math.log(observed / mean) if variance > 0.0 else math.inf
        tilt = newton if low < newton < high else (low + high) / 2
    return tilt


def _tilted_moments(kinds: Sequence[_Kinds], tilt: float) -> tuple[float, float]:
    """Return mean and variance of the sum under the tilted measure."""
    means: list[Doubles] = []
    variances: list[Doubles] = []
    for block in kinds:
        log_weights = block.tilted(tilt)
        weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        mean = _dot(weights, block.support)
        means.append(block.times * mean)
        variances.append(block.times * _dot(weights, (block.support - mean[:, np.newaxis]) ** 2))
    return _sum(_in_order(means, kinds)), _sum(_in_order(variances, kinds))


def _dot(left: Doubles, right: Doubles) -> Doubles:
    """Return the dot products of rows."""
    return np.asarray(left[:, np.newaxis, :] @ right[:, :, np.newaxis], dtype=np.float64)[:, 0, 0]


def _tilted_tail(kinds: Sequence[_Kinds], observed: int, tilt: float) -> float:
    log_normalisers: list[Doubles] = []
    pieces: dict[int, _Piece] = {}
    offset, neglected = 0, 0.0
    for block in kinds:
        log_weights = block.tilted(tilt)
        log_totals = np.asarray(logsumexp(log_weights, axis=1))
        log_normalisers.append(block.times * log_totals)
        for row, probabilities in enumerate(np.exp(log_weights - log_totals[:, np.newaxis])):
            inside = np.flatnonzero(probabilities > NEGLIGIBLE)
            first, last = int(inside[0]), int(inside[-1]) + 1
            times = int(block.times[row])
            neglected += times * (len(probabilities) - (last - first)) * NEGLIGIBLE
            offset += times * (int(block.support[row, 0]) + first)
            pieces[int(block.places[row])] = (probabilities[first:last], times)
    log_normaliser = _sum(_in_order(log_normalisers, kinds))
    total = _convolve([pieces[place] for place in range(len(pieces))])
    counts = np.arange(offset, offset + len(total), dtype=np.float64)
    above = counts >= observed
    tail = float(total[above] @ np.exp(-tilt * (counts[above] - observed)))
    # Every factor of the convolution rounds once more, whatever it is multiplied with first.
    rounding = ROUNDING * max(1.0, sum(times for _, times in pieces.values()) / FACTORS_IN_ROUNDING)
    return log_normaliser - tilt * observed + math.log(tail + neglected + rounding)


# A distribution, and how many independent counts have it.
_Piece: TypeAlias = tuple[Doubles, int]


def _convolve(pieces: Sequence[_Piece]) -> Doubles:
    """Return the distribution of the sum."""
    # A spectrum is as long as the whole sum: of thousands of kinds they would cost the square of their number.
    if len(pieces) > FACTORS_AT_ONCE:
        while len(pieces) > 1:
            pieces = _in_pairs(pieces)
        return pieces[0][0]
    padded = _fast_length(_length(pieces))
    spectrum = np.ones(padded // 2 + 1, dtype=np.complex128)
    for piece, times in pieces:
        # A layer that leaves no choice only shifts the sum.
        if len(piece) > 1:
            spectrum *= np.fft.rfft(piece, padded) ** times
    return np.asarray(np.clip(np.fft.irfft(spectrum, padded)[: _length(pieces)], 0.0, None), dtype=np.float64)


def _length(pieces: Sequence[_Piece]) -> int:
    return sum(times * (len(piece) - 1) for piece, times in pieces) + 1


def _fast_length(least: int) -> int:
    """Return the smallest number from *least* on with no prime factor above 5, which transforms are fast for."""
    best = 1 << (least - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            best = min(best, three << (-(-least // three) - 1).bit_length())
            three *= 3
        five *= 5
    return best


def _in_pairs(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Convolve each piece with one about as long; pairs whose spectra have one length are transformed in one go."""
    ordered = sorted(pieces, key=lambda piece: _length([piece]))
    done = [ordered.pop()] if len(ordered) % 2 else []
    by_length: dict[int, list[tuple[_Piece, _Piece]]] = {}
    for pair in zip(ordered[::2], ordered[1::2], strict=True):
        by_length.setdefault(_fast_length(_length(pair)), []).append(pair)
    for padded, pairs in by_length.items():
        spectra = np.ones((len(pairs), padded // 2 + 1), dtype=np.complex128)
        for side in zip(*pairs, strict=True):
            rows = np.zeros((len(pairs), padded))
            for row, (piece, _) in zip(rows, side, strict=True):
                row[: len(piece)] = piece
            spectra *= np.fft.rfft(rows, padded) ** np.array([times for _, times in side])[:, np.newaxis]
        sums = np.clip(np.fft.irfft(spectra, padded), 0.0, None)
        done += [(row[: _length(pair)], 1) for row, pair in zip(sums, pairs, strict=True)]
    return done


@dataclasses.dataclass(frozen=True, kw_only=True)
class EProcess:
    """An anytime-valid test of "each answer matches with probability p0" against "more often".

    A mixture over match rates q of likelihood ratios Π (q/p0)^x ((1−q)/(1−p0))^(1−x): a non-negative martingale of
    mean 1 under the null, so P(it ever reaches 1/α) ≤ α (Ville's inequality; Ramdas, Grünwald, Vovk, Shafer,
    "Game-theoretic statistics and safe anytime-valid inference", Statist. Sci. 38(4), 2023). Under any adaptive
    suspect the matches stay independent with probability p0, because the labels are.

    Attributes:
        chance: p0, the probability that an unrelated model matches: 1 / classes.
        queries: Answers seen.
        matches: Answers that matched.
    """

    chance: float
    queries: int = 0
    matches: int = 0

    def observe(self, matched: bool) -> EProcess:
        """Return the process after one more answer."""
        return dataclasses.replace(self, queries=self.queries + 1, matches=self.matches + matched)

    @property
    def log10_e(self) -> float:
        """log10 of the e-value now: evidence against the null, to be compared with log10(1/α)."""
        rates = self.chance + (1.0 - self.chance) * RATE_GRID
        gains = self.matches * np.log(rates / self.chance) + (self.queries - self.matches) * np.log(
            (1.0 - rates) / (1.0 - self.chance)
        )
        return float(logsumexp(gains) - math.log(len(RATE_GRID))) / LN10


# Where between chance and certainty the mixture bets, in equal parts; dense near 1, where an intact mark answers.
RATE_GRID: Doubles = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999])
