"""Hypergeometric counts under exponential tilting, each computed only where its probability is not negligible.

A count x of a layer with n positions, K kept and s secret has P(x) = C(K, x)·C(n−K, s−x) / C(n, s). Tilted by e^{λx} it
has P(x)·e^{λx} over their sum. Its generating polynomial has only real roots, tilted or not, so it is distributed like
a sum of independent indicators (Pitman, "Probabilistic bounds on the coefficients of polynomials with only real zeros",
J. Combin. Theory A 77(2), 1997): Bernstein's inequality says how wide a window around its mode must be, and its
characteristic function is at most exp(−variance · (1 − cos θ)). The ratio of neighbouring probabilities falls with x,
so that what lies outside of a window is at most a geometric series, which is computed and told.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Doubles: TypeAlias = npt.NDArray[np.float64]

EPSILON = float(np.finfo(np.float64).eps)
# A tail beyond a window of this reach has a probability of e^-44 < 10^-19: no digit of a double shows it.
REACH = 44.0
# Values in memory at a time: of ten thousand wide kinds, a few hundred. So few are computed faster than sorted apart.
VALUES_AT_ONCE, FEW_VALUES = 2**20, 2**13
# From here on Stirling's series with five terms is exact to 2·10^-16 (its error is below the first term left out).
STIRLING_FROM = 16


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Kinds of independent counts, each of which leaves a choice: fewest < most.

    Attributes:
        size: Positions (n), whole numbers (kinds).
        kept: Positions that are kept (K).
        secret: Positions that are secret (s).
        times: How many independent counts are of each kind.
    """

    size: Doubles
    kept: Doubles
    secret: Doubles
    times: Doubles

    @classmethod
    def of(cls, kinds: Sequence[tuple[int, int, int, int]]) -> Counts:
        """Take kinds as (size, kept, secret, times); those that leave no choice are not to be among them."""
        size, kept, secret, times = np.array(kinds, dtype=np.float64).reshape(-1, 4).T
        return cls(size=size, kept=kept, secret=secret, times=times)

    def __len__(self) -> int:
        return len(self.size)

    @functools.cached_property
    def neither(self) -> Doubles:
        """Positions that are neither kept nor secret, less x: n − K − s, which may be negative."""
        return self.size - self.kept - self.secret

    @functools.cached_property
    def lowest(self) -> Doubles:
        """Fewest hits."""
        return np.maximum(0.0, -self.neither)

    @functools.cached_property
    def highest(self) -> Doubles:
        """Most hits."""
        return np.minimum(self.kept, self.secret)

    def mean(self) -> float:
        """Return the mean of their sum, not tilted."""
        return math.fsum(self.times * self.secret * self.kept / self.size)

    def take(self, places: npt.NDArray[np.intp]) -> Counts:
        """Return some of the kinds."""
        return Counts(
            size=self.size[places], kept=self.kept[places], secret=self.secret[places], times=self.times[places]
        )

    def balance(self, tilt: float) -> Doubles:
        """Return, per kind, where the tilted probability of x is that of x − 1: up to one above the mode, no integer.

        It is the root of e^λ·(K−x+1)·(s−x+1) = x·(n−K−s+x), written without the difference of large numbers.
        """
        odds = math.exp(tilt)
        k, s, d = self.kept, self.secret, self.neither
        both = (k + 1.0) * (s + 1.0)
        linear = odds * (k + s + 2.0) + d
        root = np.sqrt(np.maximum(0.0, (odds * (k - s)) ** 2 + 2.0 * odds * (d * (k + s + 2.0) + 2.0 * both) + d**2))
        return np.asarray(2.0 * odds * both / (linear + root))

    def log_probability(self, hits: Doubles) -> tuple[Doubles, Doubles]:
        """Return ln P of one count a kind, and a bound on its error.

        Factorials are compared with Stirling's formula rather than with each other (Loader, "Fast and accurate
        computation of binomial probabilities", 2000): ln m! = m·ln m − m + R(m), and what the large terms leave is the
        deviance of the four cells from their expectation, e·φ(δ/e) with φ(t) = (1+t)·ln(1+t) − t, each at least zero.
        Its error is a few roundings of itself and of δ, however many positions there are.
        """
        k, s, n = self.kept, self.secret, self.size
        # Exact: of large layers both products are beyond a double's digits, and their difference is what counts.
        apart = np.array(
            [(int(x) * int(n) - int(k) * int(s)) / int(n) for x, n, k, s in zip(hits, n, k, s, strict=True)]
        )
        cells = (hits, k - hits, s - hits, self.neither + hits)
        expected = (k * s / n, k * (n - s) / n, (n - k) * s / n, (n - k) * (n - s) / n)
        deviance = np.zeros(len(hits))
        for sign, cell, mean in zip((1.0, -1.0, -1.0, 1.0), cells, expected, strict=True):
            # Bounded away from -1, where the cell is empty and its logarithm does not count.
            logs = np.log1p(np.maximum(sign * apart / mean, -1.0 + 2.0**-53))
            deviance += cell * logs - sign * apart
        margins = (
            stirling_remainder(k)
            + stirling_remainder(n - k)
            + stirling_remainder(s)
            + stirling_remainder(n - s)
            - stirling_remainder(n)
        )
        inner = sum((stirling_remainder(cell) for cell in cells), start=np.zeros(len(hits)))
        error = EPSILON * (16.0 * (np.abs(deviance) + 4.0 * np.abs(apart)) + 256.0)
        return margins - inner - deviance, error

    def windows(self, tilt: float) -> Iterator[Windows]:
        """Compute the tilted distributions, kinds whose windows are about as wide together."""
        # Any anchor is right; near the mode, least is left out.
        mode = np.clip(np.floor(self.balance(tilt)), self.lowest, self.highest)
        cells = (mode, self.kept - mode, self.secret - mode, self.neither + mode)
        variance = 1.0 / sum((1.0 / (cell + 1.0) for cell in cells), start=np.zeros(len(self)))
        reach = np.ceil(bernstein(variance))
        first, last = np.maximum(self.lowest, mode - reach), np.minimum(self.highest, mode + reach)
        widths = np.frexp(last - first)[1]
        if len(self) << int(widths.max()) <= FEW_VALUES:
            widths[:] = widths.max()
        for exponent in np.unique(widths):
            places = np.flatnonzero(widths == exponent)
            rows = max(1, VALUES_AT_ONCE >> int(exponent))
            for start in range(0, len(places), rows):
                some = places[start : start + rows]
                yield Windows.of(
                    self.take(some), places=some, tilt=tilt, anchor=mode[some], first=first[some], last=last[some]
                )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Tilted distributions of some kinds, between a first and a last count.

    Attributes:
        kinds: The kinds.
        places: Where each stands among all kinds (kinds).
        tilt: λ.
        anchor: The count that probabilities are computed relative to (kinds).
        first: The window's first count (kinds).
        last: Its last count (kinds).
        shares: Probabilities in the window, normalised in it, from the first count on (kinds × counts).
        log_total: ln of the window's sum of tilted probabilities relative to the anchor's (kinds).
        travelled: How far ln of the probability rises and falls from the first count to the last (kinds).
    """

    kinds: Counts
    places: npt.NDArray[np.intp]
    tilt: float
    anchor: Doubles
    first: Doubles
    last: Doubles
    shares: Doubles
    log_total: Doubles
    travelled: Doubles

    @classmethod
    def of(
        cls,
        kinds: Counts,
        *,
        places: npt.NDArray[np.intp],
        tilt: float,
        anchor: Doubles,
        first: Doubles,
        last: Doubles,
    ) -> Windows:
        """Compute the distributions between *first* and *last*, from the ratios of neighbouring probabilities."""
        rows, width = np.arange(len(places)), int((last - first).max()) + 1
        x = first[:, np.newaxis] + np.arange(width - 1)
        with np.errstate(divide="ignore"):
            steps = np.log(np.where(x < last[:, np.newaxis], _ratio(kinds, x), 0.0)) + tilt
        logs = np.zeros((len(places), width))
        np.cumsum(steps, axis=1, out=logs[:, 1:])
        logs -= logs[rows, (anchor - first).astype(np.intp)][:, np.newaxis]
        ends = logs[:, 0] + logs[rows, (last - first).astype(np.intp)]
        travelled = 2.0 * logs.max(axis=1) - ends
        shares = np.exp(logs, out=logs)
        totals = shares.sum(axis=1)
        shares /= totals[:, np.newaxis]
        return cls(
            kinds=kinds,
            places=places,
            tilt=tilt,
            anchor=anchor,
            first=first,
            last=last,
            shares=shares,
            log_total=np.log(totals),
            travelled=travelled,
        )

    @property
    def times(self) -> Doubles:
        """How many counts are of each kind (kinds)."""
        return self.kinds.times

    @property
    def error(self) -> Doubles:
        """Bound on the error of ln of any tilted probability that is relative to the anchor's (kinds).

        A step is the logarithm, exact to four units, of a ratio of three roundings, and a sum of steps rounds at each.
        """
        width = self.last - self.first + 1.0
        return EPSILON * (width * (2.0 + 4.0 * self.tilt + self.travelled) + 5.0 * self.travelled + 32.0)

    @property
    def left_out(self) -> Doubles:
        """Bound on the probability outside of the window, relative to that in it (kinds).

        Ratios of neighbours only fall away from the mode: beyond an end there is less than a geometric series.
        """
        odds, rows = math.exp(self.tilt), np.arange(len(self.first))
        total = np.zeros(len(self.first))
        for is_cut, neighbour, end, inward in (
            (self.first > self.kinds.lowest, self.first - 1.0, self.first, -1.0),
            (self.last < self.kinds.highest, self.last, self.last, 1.0),
        ):
            # Where nothing is cut, any count that can occur stands in.
            ratio = _ratio(self.kinds, np.where(is_cut, neighbour, self.kinds.lowest)[:, np.newaxis])[:, 0] * odds
            ratio **= inward
            with np.errstate(divide="ignore", invalid="ignore"):
                series = np.where(ratio < 1.0, ratio / (1.0 - ratio), np.inf)
            edge = np.maximum(self.shares[rows, (end - self.first).astype(np.intp)], np.finfo(np.float64).tiny)
            total += edge * np.where(is_cut, series, 0.0)
        return np.asarray(2.0 * total)  # twice, for the roundings of all this

    def moments(self) -> tuple[Doubles, Doubles]:
        """Return each kind's mean and variance."""
        x = np.arange(self.shares.shape[1], dtype=np.float64)
        mean = self.shares @ x
        return self.first + mean, np.maximum(0.0, self.shares @ x**2 - mean**2)


def bernstein(variance: Doubles | float) -> Doubles:
    """Return how far above its mean a sum of independent indicators of this *variance* lies with probability e^-REACH.

    P(S ≥ mean + t) ≤ exp(−t² / (2·(variance + t/3))), and the same below (Bernstein 1924).
    """
    return np.asarray(2.0 / 3.0 * REACH + np.sqrt(2.0 * REACH * np.asarray(variance)))


def _ratio(kinds: Counts, x: Doubles) -> Doubles:
    """Return P(x + 1) / P(x), a row a kind."""
    k, s, d = (column[:, np.newaxis] for column in (kinds.kept, kinds.secret, kinds.neither))
    return np.asarray((k - x) * (s - x) / ((x + 1.0) * (d + x + 1.0)))


def stirling_remainder(count: Doubles) -> Doubles:
    """Return ln m! − m·ln m + m, 0 of 0: what Stirling's formula leaves."""
    m = np.maximum(count, 1.0)
    series = 1.0 / m**2
    series = (
        1.0 / 12.0 - series * (1.0 / 360.0 - series * (1.0 / 1260.0 - series * (1.0 / 1680.0 - series / 1188.0)))
    ) / m
    small = np.array(_SMALL_REMAINDERS)[np.minimum(count, STIRLING_FROM - 1).astype(np.intp)]
    return np.where(count < STIRLING_FROM, small, 0.5 * np.log(2.0 * math.pi * m) + series)


_SMALL_REMAINDERS = (0.0, *(math.log(math.factorial(m) / m**m) + m for m in range(1, STIRLING_FROM)))
