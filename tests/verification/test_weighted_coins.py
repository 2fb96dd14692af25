from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verification.by_the_page import log10
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.weighted_coins import log10_at_least_weighted


def exact_tails(coins: dict[int, int]) -> list[Fraction]:
    """P(T ≥ t) for every t, T the weight of the heads."""
    ways = [1]
    for weight, count in coins.items():
        for _ in range(count):
            ways = [a + b for a, b in zip([*ways, *[0] * weight], [*[0] * weight, *ways], strict=True)]
    return [Fraction(sum(ways[observed:]), 2 ** sum(coins.values())) for observed in range(len(ways))]


@given(st.dictionaries(st.integers(1, 8), st.integers(0, 12), max_size=4), st.data())
def test_any_tail_is_exact_and_never_too_small(coins: dict[int, int], data: st.DataObject) -> None:
    tails = exact_tails(coins)
    observed = data.draw(st.integers(0, len(tails) - 1))
    found, expected = log10_at_least_weighted(observed, coins), log10(tails[observed])
    assert found >= float(expected) - 1e-15 * abs(float(expected))
    assert found == pytest.approx(float(expected), abs=1e-10)


def test_p_is_as_rare_as_it_says_over_all_outcomes() -> None:
    """Summed over every outcome of the coins: P(p ≤ x) is at most x, and x itself where an outcome has it."""
    coins = {1: 3, 5: 8, 8: 6}
    tails = exact_tails(coins)
    values = [10 ** log10_at_least_weighted(observed, coins) for observed in range(len(tails))]
    for level in values:
        first = next(observed for observed, value in enumerate(values) if value <= level)
        assert float(tails[first]) <= level


@pytest.mark.parametrize("observed", [0, 500, 1100, 1436])
def test_coins_of_one_weight_are_binomial(observed: int) -> None:
    found = log10_at_least_weighted(4 * observed, {4: 1436})
    assert found == pytest.approx(log10_at_least(observed, 1436), abs=1e-8)


def test_tails_too_small_for_a_float_and_sums_of_thousands_are_computed() -> None:
    coins = dict.fromkeys(range(1, 9), 1400)
    assert log10_at_least_weighted(36 * 1400, coins) == pytest.approx(-11200 * math.log10(2), abs=1e-6)
    # Far from the mean a tail is near its first terms, and near it that of a normal deviate.
    deviation = math.sqrt(sum(weight**2 * 1400 for weight in coins) / 4)
    near = log10_at_least_weighted(18 * 1400 + round(3 * deviation), coins)
    assert near == pytest.approx(math.log10(math.erfc(3 / math.sqrt(2)) / 2), abs=0.02)


def test_no_coins_say_nothing() -> None:
    assert log10_at_least_weighted(0, {}) == 0.0
    assert log10_at_least_weighted(0, {3: 0}) == 0.0


@pytest.mark.parametrize("observed", [-1, 7])
def test_weights_that_cannot_be_are_refused(observed: int) -> None:
    with pytest.raises(ValueError, match=f"observed is {observed}, expected 0 to 6"):
        log10_at_least_weighted(observed, {3: 2})
