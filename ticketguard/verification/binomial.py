"""The upper tail of a count of fair coins, in log space.

P(X ≥ k) = P(X = k)·Σ_j Π_{i<j} (n−k−i)/(k+1+i): a probability that is compared with Stirling's formula, so that its
error does not grow with n, times a series whose ratios only fall.
"""

from __future__ import annotations

import math

import numpy as np

from ticketguard.verification.hypergeometric import EPSILON, Doubles, stirling_remainder

LN10 = math.log(10.0)
# Terms of the series that are computed at a time, and the share of the sum below which what is left does not count.
TERMS_AT_ONCE, NEGLIGIBLE = 2**14, 2.0**-60


def log10_at_least(agreements: int, votes: int) -> float:
    """Return log10 P(X ≥ agreements) for X ~ Binomial(votes, ½).

    Rounding and truncation are bounded and added, so the result is exact to about nine digits and never too small.

    Args:
        agreements: The observed count, from 0 to *votes*.
        votes: The number of fair, independent coins.

    Raises:
        ValueError: The count is out of range.
    """
    if not 0 <= agreements <= votes:
        raise ValueError(f"agreements is {agreements}, expected 0 to {votes}")
    if 2 * agreements <= votes:
        # Half or more: by symmetry the rest of a smaller tail, P(X ≥ k) = 1 − P(X ≥ n − k + 1).
        below = math.exp(_log_tail(votes - agreements + 1, votes, sign=-1.0)) if agreements else 0.0
        return min(0.0, math.log1p(-below) / LN10)
    return min(0.0, _log_tail(agreements, votes, sign=1.0) / LN10)


def _log_tail(agreements: int, votes: int, *, sign: float) -> float:
    """Return ln P(X ≥ agreements) with its error added, or taken off for *sign* −1, for more than half of the votes."""
    log, error = _log_probability(agreements, votes)
    total, roundings = _series(agreements, votes)
    return log + math.log(total) + sign * (error + EPSILON * roundings)


def _log_probability(agreements: int, votes: int) -> tuple[float, float]:
    """Return ln C(n, k)·2^−n and a bound on its error (Loader, "Fast and accurate computation of binomial", 2000)."""
    remainders = stirling_remainder(np.array([votes, agreements, votes - agreements], dtype=np.float64))
    apart = agreements - votes / 2  # exact: a multiple of a half
    share = 2 * apart / votes
    deviance = agreements * math.log1p(share)
    if agreements < votes:
        deviance += (votes - agreements) * math.log1p(-share)
    error = EPSILON * (16.0 * (abs(deviance) + 4.0 * abs(apart)) + 256.0)
    return float(remainders[0] - remainders[1] - remainders[2]) - deviance, error


def _series(agreements: int, votes: int) -> tuple[float, float]:
    """Return Σ_j Π_{i<j} (n−k−i)/(k+1+i), what is left out added, and how many roundings it has."""
    total, last, done = 1.0, 1.0, 0
    while done < votes - agreements:
        i = np.arange(done, min(done + TERMS_AT_ONCE, votes - agreements), dtype=np.float64)
        ratios: Doubles = (votes - agreements - i) / (agreements + 1.0 + i)
        terms = last * np.cumprod(ratios)
        total += float(terms.sum())
        last, done = float(terms[-1]), done + len(i)
        ratio = float(ratios[-1])
        rest = last * ratio / (1.0 - ratio)  # the ratios fall, and are below one from the start
        if rest <= NEGLIGIBLE * total:
            total += rest
            break
    return total, 8.0 * (done + 1.0)
