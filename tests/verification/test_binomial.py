"""The tail of a count of fair coins: exact, and never below what integers give."""

from __future__ import annotations

import functools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verification.by_the_page import log10
from ticketguard.verification import binomial
from ticketguard.verification.binomial import log10_at_least


@functools.cache
def tails(votes: int) -> list[int]:
    """2^votes · P(X ≥ k), for every k."""
    ways, summed = math.comb(votes, votes), [0]
    for k in range(votes, -1, -1):
        summed.append(summed[-1] + ways)
        ways = ways * k // (votes - k + 1) if k else 0
    return summed[:0:-1]


def exactly(agreements: int, votes: int) -> Decimal:
    below = Fraction(tails(votes)[votes - agreements + 1], 2**votes) if agreements else Fraction(0)
    if below > Fraction(1, 10**20):
        return log10(1 - below)
    # log(1 - b) = -b - b²/2 - ...: sixty digits of 1 - b would not show it.
    rest = below + below**2 / 2
    with localcontext() as context:
        context.prec = 60
        return -Decimal(rest.numerator) / Decimal(rest.denominator) / Decimal(10).ln()


def check(agreements: int, votes: int) -> None:
    exact, found = exactly(agreements, votes), Decimal(log10_at_least(agreements, votes))
    assert exact <= found <= 0
    assert found - exact <= Decimal("1e-9") * -exact + Decimal("1e-300")


@pytest.mark.parametrize("votes", [0, 1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 64, 101])
def test_every_tail_of_few_coins_is_exact(votes: int) -> None:
    for agreements in range(votes + 1):
        check(agreements, votes)


@pytest.mark.parametrize("votes", [500, 999, 2048, 5000])
def test_tails_of_many_coins_are_exact(votes: int) -> None:
    for agreements in {*range(0, votes + 1, votes // 40), *range(votes // 2 - 6, votes // 2 + 7), votes - 1, votes}:
        check(agreements, votes)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_tail_is_exact(data: st.DataObject) -> None:
    votes = data.draw(st.integers(1, 700))
    check(data.draw(st.integers(0, votes)), votes)


def test_few_terms_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [log10_at_least(agreements, 900) for agreements in range(450, 900, 9)]
    monkeypatch.setattr(binomial, "TERMS_AT_ONCE", 7)
    for agreements, expected in zip(range(450, 900, 9), before, strict=True):
        assert log10_at_least(agreements, 900) == pytest.approx(expected, rel=1e-11, abs=1e-11)
        check(agreements, 900)


def entropy_bounds(agreements: int, votes: int) -> tuple[Decimal, Decimal]:
    """Bounds of log10 P(X = k), by Robbins' bounds of Stirling's formula, "A remark on Stirling's formula", 1955."""
    with localcontext() as context:
        context.prec = 50
        n, k = Decimal(votes), Decimal(agreements)
        pi = Decimal("3.14159265358979323846264338327950288419716939937510")

        def log_factorial(m: Decimal) -> Decimal:
            return m * m.ln() - m + (2 * pi * m).ln() / 2

        middle = log_factorial(n) - log_factorial(k) - log_factorial(n - k) - n * Decimal(2).ln()
        low = middle + 1 / (12 * n + 1) - 1 / (12 * k) - 1 / (12 * (n - k))
        high = middle + 1 / (12 * n) - 1 / (12 * k + 1) - 1 / (12 * (n - k) + 1)
        return low / Decimal(10).ln(), high / Decimal(10).ln()


@pytest.mark.parametrize("share", [0.501, 0.51, 0.6, 0.75, 0.9, 0.999999])
@pytest.mark.parametrize("votes", [10**6, 10**9 + 7])
def test_tails_of_a_billion_coins_lie_between_a_geometric_series_and_its_first_terms(votes: int, share: float) -> None:
    agreements = round(share * votes)
    low, high = (float(bound) for bound in entropy_bounds(agreements, votes))
    # Ratios of neighbours fall: the sum is below the geometric series of the first ratio.
    ratio = (votes - agreements) / (agreements + 1)
    found = log10_at_least(agreements, votes)
    assert low - 1e-9 <= found <= high - math.log10(1 - ratio) + 1e-6 * max(1.0, -found)
    terms = 1 + ratio + ratio * (votes - agreements - 1) / (agreements + 2)
    assert found >= low + math.log10(terms) - 1e-6 * max(1.0, -found)


@pytest.mark.parametrize("deviations", [-3.0, -1.0, 0.0, 0.5, 1.0, 3.0, 5.0])
def test_tails_of_a_billion_coins_near_the_middle_are_the_normal_ones(deviations: float) -> None:
    votes = 10**9
    agreements = round(votes / 2 + deviations * math.sqrt(votes) / 2)
    exactly = (agreements - 0.5 - votes / 2) / (math.sqrt(votes) / 2)
    expected = math.log10(math.erfc(exactly / math.sqrt(2)) / 2)
    assert log10_at_least(agreements, votes) == pytest.approx(expected, abs=1e-6)


def test_all_and_none_of_the_coins() -> None:
    for votes in (0, 1, 7, 10**9):
        assert log10_at_least(0, votes) == 0.0
        assert log10_at_least(votes, votes) == pytest.approx(-votes * math.log10(2), rel=1e-12, abs=1e-12)


def test_more_agreements_are_never_likelier() -> None:
    for votes in (10, 101, 1500):
        found = [log10_at_least(agreements, votes) for agreements in range(votes + 1)]
        assert (np.diff(found) <= 1e-12).all()


@pytest.mark.parametrize(("agreements", "votes"), [(-1, 5), (6, 5), (1, 0), (0, -1)])
def test_counts_out_of_range_are_refused(agreements: int, votes: int) -> None:
    with pytest.raises(ValueError, match=f"agreements is {agreements}, expected 0 to {votes}"):
        log10_at_least(agreements, votes)
