"""Exact statistics of a verdict, in log space.

White-box: the hits of a suspect's mask in the secret edge set are a sum of independent hypergeometric counts, one a
layer, and the signs of hits agree with fair coins. Black-box: the matches on the trigger set feed an anytime-valid
e-process. Neither needs null models; both hold for any suspect that does not derive from the marked ticket.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ticketguard.verification.binomial import LN10, log10_at_least
from ticketguard.verification.hypergeometric import EPSILON, Counts, Doubles
from ticketguard.verification.tail_of_sum import log_upper_tail

LN2 = math.log(2.0)
# Roundings of a few sums, a product and a logarithm.
ROUNDINGS = 16.0


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

    Computed as `ticketguard.verification.tail_of_sum` says. Rounding and truncation are bounded and added, so the
    result is exact to about nine digits and never too small.

    Args:
        layers: Sizes, and hits where *hits* is None.
        hits: The observed total; by default the layers' own.
    """
    observed = sum(layer.hits for layer in layers) if hits is None else hits
    # Layers alike have one distribution: a reference of thousands of tiny layers costs what its few kinds cost.
    times = Counter((layer.size, layer.kept, layer.secret) for layer in layers)
    kinds = [(LayerCount(size=n, kept=k, secret=s, hits=0), count) for (n, k, s), count in times.items()]
    lowest = sum(count * kind.lowest for kind, count in kinds)
    highest = sum(count * kind.highest for kind, count in kinds)
    if observed <= lowest:
        return 0.0
    if observed > highest:
        return -math.inf
    fixed = sum(count * kind.lowest for kind, count in kinds if kind.lowest == kind.highest)
    counts = Counts.of(
        [(kind.size, kind.kept, kind.secret, count) for kind, count in kinds if kind.lowest < kind.highest]
    )
    return min(0.0, log_upper_tail(counts, observed - fixed) / LN10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HitSigns:
    """The hits whose sign is a coin's.

    Attributes:
        coins: Hits on positions that have a coin.
        agreeing: Those of them whose weight has the coin's sign.
    """

    coins: int
    agreeing: int

    @property
    def expected(self) -> float:
        """Mean number of agreeing hits of a suspect that does not derive from the marked ticket."""
        return self.coins / 2

    def log10_tail(self) -> float:
        """Return log10 P(B ≥ agreeing) for a binomial B: that many coins, each of them fair."""
        return log10_at_least(self.agreeing, self.coins)


def log10_with_signs(log10_p: float, signs: HitSigns, *, hits: int) -> float:
    """Return log10 p of a count of hits and of their signs, together.

    Given the secret positions and the suspect, coins are independent of both: P, the p-value of the hits, is a function
    of the positions, and Q, that of the signs, is a p-value given P. Then P·Q ≤ c has a probability of at most
    E min(1, c/P) ≤ c·(1 − ln c) (Fisher, "Statistical methods for research workers", 4th ed. 1932, section 21.1).
    As Q ≥ 2^-hits, P·Q ≤ c only where P ≤ c·2^hits. The smallest number of hits for which that is so is not above the
    observed one, and larger ones have a smaller P: only P ≤ c·2^observed count, and the probability is at most
    c·(1 + observed·ln 2) as well.

    Args:
        log10_p: Of the hits, in all layers.
        signs: Of the hits that have a coin.
        hits: The observed number, at least `HitSigns.coins`.
    """
    product = log10_p + signs.log10_tail()
    if product == -math.inf:
        return product
    factor = 1.0 + min(-product * LN10, hits * LN2)
    rounding = ROUNDINGS * EPSILON * (1.0 - product)
    return min(0.0, product + math.log10(factor) + rounding)


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
        return float(np.logaddexp.reduce(gains) - math.log(len(RATE_GRID))) / LN10


# Where between chance and certainty the mixture bets, in equal parts; dense near 1, where an intact mark answers.
RATE_GRID: Doubles = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999])
