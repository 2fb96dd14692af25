"""Tails of sums against exact and uncut computations, in the corners: huge, tiny and thousands of layers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from tests.verification import by_the_page
from ticketguard.verification import hypergeometric, tail_of_sum
from ticketguard.verification.hypergeometric import Counts, Windows
from ticketguard.verification.statistics import LayerCount, log10_upper_tail


def kind(size: int, kept: int, secret: int) -> LayerCount:
    return LayerCount(size=size, kept=kept, secret=secret, hits=0)


@st.composite
def kinds(draw: st.DrawFn) -> LayerCount:
    """Layers of all sizes and shapes: full, empty, nearly so, or as tickets have them."""
    size = draw(st.integers(1, 40) | st.integers(1, 20_000))
    shares = st.sampled_from([0.0, 1e-4, 0.01, 0.05, 0.5, 0.95, 1.0]) | st.floats(0.0, 1.0)
    return kind(size, round(draw(shares) * size), round(draw(shares) * size))


@st.composite
def sums(draw: st.DrawFn) -> tuple[list[LayerCount], int]:
    """Layers, some many times, and a total that they can have; the ends of what they can have more often."""
    counted = [
        layer for layer in draw(st.lists(kinds(), min_size=1, max_size=6)) for _ in range(draw(st.integers(1, 9)))
    ]
    lowest, highest = sum(layer.lowest for layer in counted), sum(layer.highest for layer in counted)
    expected = round(sum(layer.expected for layer in counted))
    near = st.integers(0, 400).map(lambda more: min(highest, expected + more))
    return counted, draw(st.integers(lowest, highest) | near | st.sampled_from([max(lowest, highest - 1), highest]))


def uncut_tail(counted: Sequence[LayerCount], hits: int) -> float:
    """The tail with every count of every layer, and every frequency; what was bounded for rounding is not in it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (hypergeometric, tail_of_sum):
            patch.setattr(module, "REACH", 1e9)
            patch.setattr(module, "EPSILON", 0.0)
        return log10_upper_tail(counted, hits)


@settings(max_examples=40, deadline=None)
@given(sums())
def test_what_is_cut_away_shows_in_no_digit(total: tuple[list[LayerCount], int]) -> None:
    # Of a hundred thousand counts in a window, what is bounded for rounding is some 10^-9.
    assert log10_upper_tail(*total) == pytest.approx(uncut_tail(*total), abs=2e-9, rel=1e-11)


@pytest.mark.parametrize("reach", [0.05, 1.0, 4.0, 12.0])
def test_a_window_that_is_too_narrow_makes_p_larger_and_never_smaller(
    reach: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (hypergeometric, tail_of_sum):
        monkeypatch.setattr(module, "REACH", reach)
    generator = random.Random(5)
    for _ in range(60):
        counted = [
            kind(size, generator.randint(0, size), generator.randint(0, size))
            for size in (generator.randint(1, 300) for _ in range(generator.randint(1, 3)))
        ]
        lowest, highest = sum(layer.lowest for layer in counted), sum(layer.highest for layer in counted)
        hits = generator.randint(lowest, highest)
        exact = by_the_page.log10(by_the_page.exact_tail(counted, hits))
        assert exact <= Decimal(log10_upper_tail(counted, hits))


@pytest.mark.parametrize("reach", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("tilt", [0.0, 1.0, 6.0])
def test_what_lies_outside_of_a_window_is_at_most_what_is_said(
    tilt: float, reach: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypergeometric, "REACH", reach)
    counts = Counts.of([(5000, 400, 700, 1), (900, 450, 450, 1), (60_000, 3000, 600, 1), (40, 39, 20, 1)])
    for some in counts.windows(tilt):
        for row, place in enumerate(some.places):
            n, k, s = (int(column[place]) for column in (counts.size, counts.kept, counts.secret))
            first, last = int(some.first[row]), int(some.last[row])
            with localcontext() as context:
                context.prec = 40
                weights = {
                    x: math.comb(k, x) * math.comb(n - k, s - x) * Decimal(tilt * x).exp()
                    for x in range(max(0, s + k - n), min(s, k) + 1)
                }
            inside = sum(weight for x, weight in weights.items() if first <= x <= last)
            outside = sum(weights.values()) - inside
            assert outside / inside <= Decimal(float(some.left_out[row]))
            assert (some.left_out[row] == 0.0) == (len(weights) == last - first + 1)


@pytest.fixture(scope="module")
def thousand_kinds() -> tuple[list[LayerCount], np.ndarray]:
    """Layers that all differ, and the exact distribution of their sum."""
    counted = [kind(50 + place, 20 + place % 13, 3 + place % 5) for place in range(1000)]
    total = np.array([1.0])
    for layer in counted:
        n, k, s = layer.size, layer.kept, layer.secret
        ways = [math.comb(k, x) * math.comb(n - k, s - x) for x in range(layer.lowest, layer.highest + 1)]
        total = np.convolve(total, [way / math.comb(n, s) for way in ways])
    return counted, total


@pytest.mark.parametrize("above", [-60, 0, 10, 60, 120, 400])
def test_a_thousand_kinds_are_read_at_few_frequencies(
    above: int, thousand_kinds: tuple[list[LayerCount], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, total = thousand_kinds
    hits = round(sum(layer.expected for layer in counted)) + above
    read: list[int] = []
    spectrum = tail_of_sum._spectrum

    def watched(windows: tuple[Windows, ...], k: np.ndarray, counts: int) -> tuple[np.ndarray, float]:
        read.append(len(k))
        return spectrum(windows, k, counts)

    monkeypatch.setattr(tail_of_sum, "_spectrum", watched)
    exact = math.log10(total[hits:].sum())
    assert log10_upper_tail(counted, hits) == pytest.approx(exact, abs=1e-9)
    # Were there as many as the sum has counts, thousands of kinds would cost the square of their number.
    assert len(total) > 4000
    assert max(read) < 80


def test_layers_of_one_kind_cost_what_one_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    of = Windows.of.__func__  # type: ignore[attr-defined]

    def counting(cls: type[Windows], kinds: Counts, **more: object) -> Windows:
        computed.append(len(kinds))
        return of(cls, kinds, **more)  # type: ignore[no-any-return]

    monkeypatch.setattr(Windows, "of", classmethod(counting))
    layers = [LayerCount(size=2, kept=1, secret=1, hits=index % 3 == 0) for index in range(9_000)]
    layers += [LayerCount(size=1, kept=index % 2, secret=1, hits=index % 2) for index in range(1_000)]
    hits = sum(layer.hits for layer in layers)
    found = log10_upper_tail(layers, hits + 1600)
    assert 0 < sum(computed) < 10
    # Those of two positions are fair coins.
    assert found == pytest.approx(binom.logsf(hits + 1600 - 500 - 1, 9_000, 0.5) / math.log(10), abs=1e-6)


def log_factorial(count: int) -> Decimal:
    """By Stirling's series where it has forty digits, and by multiplication below."""
    if count < 400:
        return Decimal(math.factorial(count)).ln()
    z = Decimal(count + 1)
    bernoulli = ((1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867, 798))
    series = sum(
        Decimal(top) / Decimal(bottom) / (2 * j * (2 * j - 1)) / z ** (2 * j - 1)
        for j, (top, bottom) in enumerate(bernoulli, start=1)
    )
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
    return (z - Decimal("0.5")) * z.ln() - z + (2 * pi).ln() / 2 + series


def log_probability(size: int, kept: int, secret: int, hits: int) -> Decimal:
    above = (kept, size - kept, secret, size - secret)
    below = (size, hits, kept - hits, secret - hits, size - kept - secret + hits)
    return sum(map(log_factorial, above), start=Decimal(0)) - sum(map(log_factorial, below), start=Decimal(0))


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_the_error_of_a_probability_is_at_most_what_is_said(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 60) | st.integers(2, 10**6) | st.integers(2, 10**12))
    kept, secret = data.draw(st.integers(1, size - 1)), data.draw(st.integers(1, size - 1))
    lowest, highest = max(0, kept + secret - size), min(kept, secret)
    near = st.integers(-3, 3).map(lambda more: min(highest, max(lowest, kept * secret // size + more)))
    hits = data.draw(st.integers(lowest, highest) | near | st.sampled_from([lowest, highest]))
    (found,), (error,) = Counts.of([(size, kept, secret, 1)]).log_probability(np.array([float(hits)]))
    with localcontext() as context:
        context.prec = 60
        exact = log_probability(size, kept, secret, hits)
        assert abs(exact - Decimal(float(found))) <= Decimal(float(error))
        assert float(error) <= 1e-12 + 1e-13 * float(abs(exact)) + 1e-13 * abs(hits - kept * secret / size)


@pytest.mark.parametrize("size", [10**5, 10**7, 10**9])
@pytest.mark.parametrize("deviations", [0.3, 5.0, 40.0])
def test_a_huge_layer_has_the_tail_that_fifty_digits_give(size: int, deviations: float) -> None:
    layer = kind(size, size // 20, size // 100)
    deviation = math.sqrt(layer.expected * 0.95 * 0.99)
    hits = min(layer.highest - 1, round(layer.expected + deviations * deviation))
    with localcontext() as context:
        context.prec = 50
        term, total, x = Decimal(1), Decimal(0), hits
        while term > Decimal("1e-16") * total:
            total += term
            free = layer.size - layer.kept - layer.secret
            term *= Decimal((layer.kept - x) * (layer.secret - x)) / ((x + 1) * (free + x + 1))
            x += 1
        exact = (log_probability(layer.size, layer.kept, layer.secret, hits) + total.ln()) / Decimal(10).ln()
    ours = Decimal(log10_upper_tail([layer], hits))
    assert exact <= ours <= exact + Decimal("1e-9") * max(1, abs(exact))


def test_the_stated_rounding_of_a_sum_is_added() -> None:
    """A processor rounds as it likes, elsewhere more than here: the bound is there whether or not it is used."""
    counted = [kind(2, 1, 1)] * 3
    exact = by_the_page.log10(by_the_page.exact_tail(counted, 2))
    assert exact + Decimal("3e-14") <= Decimal(log10_upper_tail(counted, 2)) <= exact + Decimal("1e-11")


def test_ten_thousand_kinds_are_computed_some_at_a_time() -> None:
    counts = Counts.of([(100_000 + place, 50_000, 40_000, 1) for place in range(10_000)])
    assert max(some.shares.size for some in counts.windows(0.0)) <= 2**20
