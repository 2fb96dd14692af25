"""The upper tail of a weighted count of fair coins, in log space.

T = Σ w·B_w, where B_w counts the heads among the coins of weight w. The coins are tilted, so that the observed sum is
about their mean, where the tail is not rare, and the tail is tilted back: P(T ≥ t) = M(λ)·e^(−λt)·Σ_{x ≥ t}
P_λ(x)·e^(−λ(x − t)). Nothing is subtracted anywhere, so that every rounding is a share of what it rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ticketguard.verification.binomial import LN10
from ticketguard.verification.hypergeometric import EPSILON, Doubles

# Terms of a binomial distribution below this are not looked at one by one: what they are in all is added.
NEGLIGIBLE = 2.0**-120
# Tilts from here on make a tail's first term nearly all of it.
MOST_TILT, BISECTIONS = 64.0, 40


def log10_at_least_weighted(observed: int, coins: Mapping[int, int]) -> float:
    """Return log10 P(T ≥ observed), T the total weight of the heads among fair, independent coins.

    Rounding and truncation are bounded and added, so the result is exact to about nine digits and never too small.

    Args:
        observed: From 0 to the weight of all coins.
        coins: How many coins there are of each weight; weights are 1 or more.

    Raises:
        ValueError: The observed weight is out of range.
    """
    coins = {weight: count for weight, count in coins.items() if count}
    total = sum(weight * count for weight, count in coins.items())
    if not 0 <= observed <= total:
        raise ValueError(f"observed is {observed}, expected 0 to {total}")
    divisor = math.gcd(*coins)
    coins, observed = {weight // divisor: count for weight, count in coins.items()}, -(-observed // max(1, divisor))
    tilt = _tilt(observed, coins)
    distribution, left_out = _distribution(tilt, coins)
    above = distribution[observed:]
    terms = above * np.exp(-tilt * np.arange(len(above)))
    steps = sum(coins.values())
    # ln M(λ): heads count (e^(λw) + 1) / 2 each.
    back = math.fsum(count * (np.logaddexp(0.0, tilt * weight) - math.log(2.0)) for weight, count in coins.items())
    tail = float(terms.sum()) + left_out
    error = EPSILON * (16.0 * steps + 8.0 * len(above) * (1.0 + tilt) + 64.0 + 4.0 * (back + tilt * observed))
    return min(0.0, (back - tilt * observed + math.log(tail) + error) / LN10)


def _tilt(observed: int, coins: Mapping[int, int]) -> float:
    """Return λ ≥ 0 under which the mean is about *observed*, found by bisection: it grows with λ."""
    low, high = 0.0, MOST_TILT
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        mean = math.fsum(count * weight / (1.0 + math.exp(-middle * weight)) for weight, count in coins.items())
        low, high = (middle, high) if mean < observed else (low, middle)
    return low


def _distribution(tilt: float, coins: Mapping[int, int]) -> tuple[Doubles, float]:
    """Return the tilted distribution of the sum, from 0 on, and how much at most was left out of it."""
    found, left_out = np.ones(1), 0.0
    for weight, count in sorted(coins.items()):
        heads = _binomial(count, tilt * weight)
        seen = np.flatnonzero(heads >= NEGLIGIBLE)
        left_out += NEGLIGIBLE * (len(heads) - len(seen))
        wider = np.zeros(len(found) + weight * count)
        for number in seen.tolist():
            wider[weight * number : weight * number + len(found)] += heads[number] * found
        found = wider
    return found, left_out


def _binomial(count: int, log_odds: float) -> Doubles:
    """Return the distribution of heads among *count* coins of these log odds, one coin after the other."""
    head, tail = 1.0 / (1.0 + math.exp(-log_odds)), 1.0 / (1.0 + math.exp(log_odds))
    found = np.zeros(count + 1)
    found[0] = 1.0
    for number in range(1, count + 1):
        found[1 : number + 1] = tail * found[1 : number + 1] + head * found[:number]
        found[0] *= tail
    return found
