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
import scipy.fft
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
    def lowest(self) -> int:
        """Fewest possible hits."""
        return max(0, self.secret + self.kept - self.size)

    @property
    def highest(self) -> int:
        """Most possible hits."""
        return min(self.secret, self.kept)


def hypergeometric_log_pmf(layer: LayerCount) -> Doubles:
    """Return ln P(X = x) for x = lowest … highest, X hypergeometric: C(K, x)·C(n−K, s−x) / C(n, s)."""
    x = np.arange(layer.lowest, layer.highest + 1, dtype=np.float64)
    n, k, s = float(layer.size), float(layer.kept), float(layer.secret)
    return np.asarray(_log_choose(k, x) + _log_choose(n - k, s - x) - _log_choose(n, np.asarray(s)), dtype=np.float64)


def _log_choose(n: float, k: Doubles) -> Doubles:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), dtype=np.float64)


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
    kinds = Counter(dataclasses.replace(layer, hits=0) for layer in layers)
    terms = [
        _Term(
            support=np.arange(kind.lowest, kind.highest + 1, dtype=np.float64),
            log_pmf=hypergeometric_log_pmf(kind),
            times=times,
        )
        for kind, times in kinds.items()
    ]
    if observed == highest:
        return min(0.0, sum(term.times * float(term.log_pmf[-1]) for term in terms) / LN10)
    tilt = _find_tilt(terms, observed)
    # ln Γ is accurate to a few ulps of its value, which for millions of positions is the largest error left.
    gamma_error = 8 * np.finfo(np.float64).eps * sum(n * float(gammaln(kind.size + 1.0)) for kind, n in kinds.items())
    return min(0.0, float(_tilted_tail(terms, observed, tilt) + gamma_error) / LN10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Term:
    """Layers of one kind: counts they may have, ln of their probabilities, and how many layers there are."""

    support: Doubles
    log_pmf: Doubles
    times: int


def _find_tilt(terms: Sequence[_Term], observed: int) -> float:
    """Return λ ≥ 0 that makes *observed* about the mean of the tilted sum; 0 where it is below the mean already.

    The mean grows with λ, and its slope is the variance: Newton's method on its logarithm, which is nearly straight
    (a Poisson sum's is straight), and bisection where a step leaves the bracket.
    Any λ gives a valid tail; a count within a tenth of a standard deviation of the mean is central enough.
    """
    low, high, tilt = 0.0, MOST_TILT, 0.0
    while high - low > LEAST_TILT_STEP:
        mean, variance = _tilted_moments(terms, tilt)
        missing = observed - mean
        if missing <= 0.0 and tilt == 0.0:
            return 0.0
        if abs(missing) < 0.1 * math.sqrt(variance):
            return tilt
        low, high = (tilt, high) if missing > 0.0 else (low, tilt)
        newton = tilt + mean / variance * math.log(observed / mean) if variance > 0.0 else math.inf
        tilt = newton if low < newton < high else (low + high) / 2
    return tilt


def _tilted_moments(terms: Sequence[_Term], tilt: float) -> tuple[float, float]:
    """Return mean and variance of the sum under the tilted measure."""
    mean = variance = 0.0
    for term in terms:
        log_weights = term.log_pmf + tilt * term.support
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        layer_mean = float(weights @ term.support)
        mean += term.times * layer_mean
        variance += term.times * float(weights @ (term.support - layer_mean) ** 2)
    return mean, variance


def _tilted_tail(terms: Sequence[_Term], observed: int, tilt: float) -> float:
    log_normaliser = 0.0
    offset = 0
    neglected = 0.0
    pieces: list[tuple[Doubles, int]] = []
    for term in terms:
        log_weights = term.log_pmf + tilt * term.support
        log_total = float(logsumexp(log_weights))
        log_normaliser += term.times * log_total
        probabilities = np.exp(log_weights - log_total)
        inside = np.flatnonzero(probabilities > NEGLIGIBLE)
        first, last = int(inside[0]), int(inside[-1]) + 1
        neglected += term.times * (len(probabilities) - (last - first)) * NEGLIGIBLE
        offset += term.times * (int(term.support[0]) + first)
        pieces.append((probabilities[first:last], term.times))
    total = _convolve(pieces)
    counts = np.arange(offset, offset + len(total), dtype=np.float64)
    above = counts >= observed
    tail = float(total[above] @ np.exp(-tilt * (counts[above] - observed)))
    # Every factor of the convolution rounds once more, whatever it is multiplied with first.
    rounding = ROUNDING * max(1.0, sum(times for _, times in pieces) / FACTORS_IN_ROUNDING)
    return log_normaliser - tilt * observed + math.log(tail + neglected + rounding)


def _convolve(pieces: list[tuple[Doubles, int]]) -> Doubles:
    if len(pieces) > FACTORS_AT_ONCE:
        # A spectrum is as long as the whole sum: of thousands of kinds they would cost the square of their number.
        half = len(pieces) // 2
        return _convolve([(_convolve(pieces[:half]), 1), (_convolve(pieces[half:]), 1)])
    length = sum(times * (len(piece) - 1) for piece, times in pieces) + 1
    padded = scipy.fft.next_fast_len(length, real=True)
    spectrum = np.ones(padded // 2 + 1, dtype=np.complex128)
    for piece, times in pieces:
        # A layer that leaves no choice only shifts the sum.
        if len(piece) > 1:
            spectrum *= scipy.fft.rfft(piece, padded) ** times
    return np.asarray(np.clip(scipy.fft.irfft(spectrum, padded)[:length], 0.0, None), dtype=np.float64)


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
