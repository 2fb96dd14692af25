"""The upper tail of a sum of independent hypergeometric counts.

The distributions are tilted by e^{λx} so that the observed sum becomes the mean, where the tail is not rare, and tilted
back (exponential tilting: Keich, "sFFT: a faster accurate computation of the p-value of the entropy score", J. Comput.
Biol. 12(4), 2005). The tail of the tilted sum is read off its characteristic function, at the few frequencies at which
that is not negligible: a product over the kinds of counts, which costs each kind what its own window is wide.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ticketguard.verification.hypergeometric import EPSILON, REACH, Counts, Doubles, Windows, bernstein

Complexes: TypeAlias = npt.NDArray[np.complex128]

MOST_TILT, LEAST_TILT_STEP = 64.0, 1e-9
# How near the mean the observed sum must be, in standard deviations.
NEAR = 0.1
# A variance is computed from windows, and its last digits are not to be relied on.
SLACK = 1.01
# Roundings of one factor of the characteristic function beside those of its sum: angles, sines, a power, a product.
FACTOR_ROUNDINGS = 32.0
# Turns by so many counts are computed each, those in between are products of two.
TURNS_APART = 32


def log_upper_tail(counts: Counts, observed: int) -> float:
    """Return ln P(sum ≥ observed), with every rounding and truncation bounded and added.

    Args:
        counts: The kinds.
        observed: From the fewest to the most possible, both included.
    """
    if observed == int(counts.highest @ counts.times):
        logs, errors = counts.log_probability(counts.highest)
        return math.fsum(counts.times * (logs + errors))
    return _tilted_tail(counts, observed, _tilted_to(counts, observed))


class _Moments(Protocol):
    @property
    def tilt(self) -> float: ...
    @property
    def mean(self) -> float: ...
    @property
    def variance(self) -> float: ...


_M = TypeVar("_M", bound=_Moments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Estimate:
    """Moments by rule of thumb."""

    tilt: float
    mean: float
    variance: float

    @classmethod
    def of(cls, counts: Counts, tilt: float) -> _Estimate:
        """Take each mean half below where neighbours balance, and the variance of four cells with given margins.

        (Levin, "Simple improvements on Cornfield's approximation to the mean of a noncentral hypergeometric random
        variable", Biometrika 71(3), 1984.)
        """
        mean = np.clip(counts.balance(tilt) - 0.5, counts.lowest, counts.highest)
        cells = (mean, counts.kept - mean, counts.secret - mean, counts.neither + mean)
        with np.errstate(divide="ignore"):
            variance = 1.0 / sum((1.0 / np.maximum(cell, 0.0) for cell in cells), start=np.zeros(len(counts)))
        return cls(tilt=tilt, mean=float(mean @ counts.times), variance=float(variance @ counts.times))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Tilted:
    """The tilted distributions, computed."""

    tilt: float
    windows: tuple[Windows, ...]

    @classmethod
    def of(cls, counts: Counts, tilt: float) -> _Tilted:
        return cls(tilt=tilt, windows=tuple(counts.windows(tilt)))

    @functools.cached_property
    def _moments(self) -> tuple[float, float]:
        moments = [(some.times, *some.moments()) for some in self.windows]
        return (
            math.fsum(float(times @ means) for times, means, _ in moments),
            math.fsum(float(times @ variances) for times, _, variances in moments),
        )

    @property
    def mean(self) -> float:
        return self._moments[0]

    @property
    def variance(self) -> float:
        return self._moments[1]


def _tilted_to(counts: Counts, observed: int) -> _Tilted:
    """Tilt by λ ≥ 0 that makes *observed* about the mean of the sum; by 0 where it is below the mean already."""
    if observed <= counts.mean():
        return _Tilted.of(counts, 0.0)
    near = _solve(lambda tilt: _Estimate.of(counts, tilt), observed, start=0.0)
    return _solve(lambda tilt: _Tilted.of(counts, tilt), observed, start=near.tilt)


def _solve(moments: Callable[[float], _M], observed: int, *, start: float) -> _M:
    """Find a tilt under which *observed* is about the mean.

    The mean grows with λ, and its slope is the variance: Newton's method on its logarithm, which is nearly straight
    (a Poisson sum's is straight), and bisection where a step leaves the bracket.
    Any λ gives a valid tail; a count within a tenth of a standard deviation of the mean is central enough.
    """
    low, high, found = 0.0, MOST_TILT, moments(start)
    while high - low > LEAST_TILT_STEP and abs(missing := observed - found.mean) >= NEAR * math.sqrt(found.variance):
        low, high = (found.tilt, high) if missing > 0.0 else (low, found.tilt)
        newton = math.inf
        if found.variance > 0.0 and found.mean > 0.0:
            newton = found.tilt + found.mean / found.variance * math.log(observed / found.mean)
        found = moments(newton if low < newton < high else (low + high) / 2)
    return found


def _tilted_tail(counts: Counts, observed: int, tilted: _Tilted) -> float:
    """Tilt back: ln of Π P(anchor) times the tail of the tilted sum, each term of which shrinks by e^(−λ·excess)."""
    anchors = np.empty(len(counts))
    for some in tilted.windows:
        anchors[some.places] = some.anchor
    logs, errors = counts.log_probability(anchors)
    totals = [float(some.times @ (some.log_total + some.error)) for some in tilted.windows]
    # Whole numbers, so that a large λ is multiplied with what is left of their difference.
    back = tilted.tilt * (math.fsum(anchors * counts.times) - observed)
    log_normaliser = math.fsum([*(counts.times * (logs + errors)), *totals, back, EPSILON * abs(back)])
    return log_normaliser + math.log(_tail_above(tilted, observed))


def _tail_above(tilted: _Tilted, observed: int) -> float:
    """Return Σ_{c ≥ observed} P(sum = c)·e^(−λ(c − observed)) under the tilted measure, its error bounded and added.

    With N counts in the sum's window, P(c) = (1/N)·Σ_k F(θ_k)·e^(−iθ_k·c), where θ_k = 2πk/N and F is the
    characteristic function, but for what lies outside of the window, which is folded onto it. Summed over c first, each
    frequency has a geometric series.
    """
    lowest = int(math.fsum(float(some.first @ some.times) for some in tilted.windows))
    width = math.fsum(float(some.times.sum()) * (some.shares.shape[1] - 1) for some in tilted.windows)
    reach = math.ceil(float(bernstein(SLACK * tilted.variance))) + 1
    first, last = lowest, lowest + int(width)
    if 2 * reach < width:
        first = max(first, round(tilted.mean) - reach)
        last = first + 2 * reach
    counts = (last - first + 1) // 2 * 2 + 1  # odd, so that each frequency but 0 has its opposite
    k = np.arange(_frequencies(counts, tilted.variance))
    start = max(first, observed)
    steps = max(0, first + counts - start)
    series, largest = _geometric(k, counts, steps, tilted.tilt)
    spectrum, roundings = _spectrum(tilted.windows, k, counts)
    spectrum *= _turns(k * ((lowest - start) % counts), counts)
    weights = np.where(k == 0, 1.0, 2.0) / counts
    shrunk = math.exp(-tilted.tilt * (start - observed))
    outside = math.expm1(math.fsum(float(some.times @ some.left_out) for some in tilted.windows))
    # Each term is at most N / (2k): what a cut adds to every frequency adds a logarithm of their number.
    neglected = (outside + 2.0 * math.exp(-REACH)) * (2.0 + math.log(counts))
    rounding = EPSILON * (roundings + 64.0) * float(weights @ largest)
    return max(0.0, float(weights @ (spectrum * series).real)) * shrunk + rounding + neglected


def _frequencies(counts: int, variance: float) -> int:
    """Return how many frequencies there are, up to half of all, before the function is surely below e^-REACH."""
    least_cosine = 1.0 - SLACK * REACH / max(variance, 1.0)
    share = math.acos(least_cosine) / (2.0 * math.pi) if least_cosine > -1.0 else 0.5
    return min(counts // 2, math.ceil(share * counts)) + 1


def _turns(whole: npt.NDArray[np.int64], counts: int) -> Complexes:
    """Return e^(2πi·whole/counts); whole turns are left out exactly."""
    return np.asarray(np.exp(2j * math.pi / counts * ((whole + counts // 2) % counts - counts // 2)))


def _geometric(k: npt.NDArray[np.int64], counts: int, steps: int, tilt: float) -> tuple[Complexes, Doubles]:
    """Return Σ_{j < steps} e^(−(λ + iθ_k)·j), and for each k what no such sum of any length exceeds."""
    apart = np.empty(len(k), dtype=np.complex128)
    apart[1:] = -np.expm1(-tilt - 2j * math.pi / counts * k[1:])
    apart[0] = -math.expm1(-tilt) or 1.0
    sums = (1.0 - math.exp(-tilt * steps) * _turns(-k * steps, counts)) / apart
    sums[0] = steps if tilt == 0.0 else math.expm1(-tilt * steps) / math.expm1(-tilt)
    largest = 2.0 / np.abs(apart)
    largest[0] = sums[0].real
    return sums, largest


def _spectrum(windows: tuple[Windows, ...], k: npt.NDArray[np.int64], counts: int) -> tuple[Complexes, float]:
    """Return the product of E e^(iθ_k·(X − first)) over all counts X, and how many roundings of 2^-52 it has."""
    product, roundings = np.ones(len(k), dtype=np.complex128), 0.0
    near = _turns(np.outer(np.arange(TURNS_APART), k), counts)
    for some in windows:
        width = some.shares.shape[1]
        far = _turns(np.outer(np.arange(0, width, TURNS_APART), k), counts)
        turns = (far[:, np.newaxis] * near).reshape(-1, len(k))[:width]
        factors = some.shares @ turns.view(np.float64)
        powers = factors.view(np.complex128) ** some.times[:, np.newaxis]
        product *= powers.prod(axis=0)
        roundings += float(some.times.sum()) * (width + FACTOR_ROUNDINGS)
    return product, roundings
