"""Which code survives what: how likely one is read where some of a copy's edges are left and others were added.

A pair reads right, wrong or not at all, and a module as the sum of its pairs. Without soft decoding a block may have
half as many wrong bytes as it has error correction codewords. With it, the surest modules that determine a block may
have two wrong bits at most (`ticketguard.verification.soft_decoding`); how many they have is taken to be Poisson.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from ticketguard.embedding.qr_symbol import BLOCKS, LEVELS, VERSIONS, Symbol

MOST_PAIRS = 8
# Of a copy that is permuted as well as pruned some channels are not found again: it shows as much as one that has lost
# this many times more. (A perceptron whose half was pruned showed 10^-57 permuted and 10^-91 as it was.)
ALIGNING = 1.5
# Bits that are looked at beyond a block's data, as a share of the block: the surest ones are not all independent, and
# now and then more of them are gone. It agrees with 40 trials of each of seven codes (decision 0086).
SPARE = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Code:
    """A symbol of a version and level, and how many pairs carry each of its modules.

    Attributes:
        symbol: Which symbol.
        pairs: Pairs a module.
    """

    symbol: Symbol
    pairs: int

    @property
    def edges(self) -> int:
        """Edges that it takes: one a pair."""
        return self.symbol.bits * self.pairs

    @property
    def least_left(self) -> float:
        """Share of the edges that has to be left for soft decoding, where none were added."""
        unread: float = (1 - min(1.0, self.symbol.rate + SPARE)) ** (1 / self.pairs)
        return 1 - unread

    def soft_probability(self, left: float, noise: float = 0.0) -> float:
        """Return how likely soft decoding restores it.

        Args:
            left: Share of the edges that is left.
            noise: Share of the positions outside the reference that has edges.
        """
        right, wrong = _sums(left, noise, self.pairs)
        return math.prod(
            _at_most(2, self._wrong_among_the_surest(right, wrong, data, bits)) for data, bits in self._blocks()
        )

    def raw_probability(self, left: float, noise: float = 0.0) -> float:
        """Return how likely any reader of QR codes reads it as it is.

        Args:
            left: Share of the edges that is left.
            noise: Share of the positions outside the reference that has edges.
        """
        wrong = 1 - (1 - sum(_sums(left, noise, self.pairs)[1])) ** 8
        found = 1.0
        for data, bits in self._blocks():
            size, most = bits // 8, (bits - data) // 16
            found *= math.fsum(
                math.comb(size, number) * wrong**number * (1 - wrong) ** (size - number) for number in range(most + 1)
            )
        return found

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Yield each block's data bits, and all of its bits."""
        corrections, short, data, longer = BLOCKS[self.symbol.version, self.symbol.correction]
        for size in [data] * short + [data + 1] * longer:
            yield 8 * size, 8 * (size + corrections)

    def _wrong_among_the_surest(self, right: Sequence[float], wrong: Sequence[float], data: int, bits: int) -> float:
        """Return how many of the surest bits that determine a block are wrong, in the mean."""
        needed, found = data + SPARE * bits, 0.0
        for good, bad in zip(reversed(right), reversed(wrong), strict=True):
            taken = min(needed, bits * (good + bad))
            found += taken * bad / (good + bad) if good + bad else 0.0
            needed -= taken
        return found


def codes() -> Iterator[Code]:
    """Yield every code there is."""
    for version, correction, pairs in itertools.product(VERSIONS, LEVELS, range(1, MOST_PAIRS + 1)):
        yield Code(symbol=Symbol(version=version, correction=correction), pairs=pairs)


def one_pair(left: float, noise: float) -> tuple[float, float]:
    """Return how likely a pair reads right, and how likely wrong.

    Args:
        left: Share of the edges that is left.
        noise: Share of the positions outside the reference that has edges.
    """
    return (left + (1 - left) * noise) * (1 - noise), (1 - left) * noise * (1 - noise)


def _sums(left: float, noise: float, pairs: int) -> tuple[list[float], list[float]]:
    """Return how likely a module's pairs add up to each number of votes for the right value, and for the wrong one.

    The first entry is of no votes: such a module is right in half of the cases.
    """
    right, wrong = one_pair(left, noise)
    sums = [1.0]  # from −pairs to pairs
    for _ in range(pairs):
        sums = [
            wrong * up + (1 - right - wrong) * same + right * down
            for up, same, down in zip([*sums, 0.0, 0.0], [0.0, *sums, 0.0], [0.0, 0.0, *sums], strict=True)
        ]
    return [sums[pairs] / 2, *sums[pairs + 1 :]], [sums[pairs] / 2, *sums[:pairs][::-1]]


def _at_most(number: int, mean: float) -> float:
    """Return the probability that a Poisson count is at most *number*."""
    return math.exp(-mean) * math.fsum(mean**count / math.factorial(count) for count in range(number + 1))
