from __future__ import annotations

import itertools
import json
import math
import random
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from tests.verification import by_the_page
from ticketguard.verification.statistics import (
    EProcess,
    HitSigns,
    LayerCount,
    log10_upper_tail,
    log10_with_signs,
)


@st.composite
def layers(draw: st.DrawFn, largest: int = 400) -> LayerCount:
    size = draw(st.integers(1, largest))
    kept, secret = draw(st.integers(0, size)), draw(st.integers(0, size))
    hits = draw(st.integers(max(0, kept + secret - size), min(kept, secret)))
    return LayerCount(size=size, kept=kept, secret=secret, hits=hits)


def brute_force_tail(counted: list[LayerCount], observed: int) -> float:
    total = np.array([1.0])
    offset = 0
    for layer in counted:
        x = np.arange(layer.lowest, layer.highest + 1)
        total = np.convolve(total, hypergeom.pmf(x, layer.size, layer.kept, layer.secret))
        offset += layer.lowest
    return float(total[max(0, observed - offset) :].sum())


@given(layers())
def test_one_layer_is_the_hypergeometric_tail(layer: LayerCount) -> None:
    expected = hypergeom.logsf(layer.hits - 1, layer.size, layer.kept, layer.secret) / math.log(10)
    if expected < -250:
        return  # scipy's own tail underflows there
    assert log10_upper_tail([layer]) == pytest.approx(min(0.0, expected), abs=1e-6)


@given(st.lists(layers(largest=60), min_size=2, max_size=4))
def test_several_layers_are_their_convolution(counted: list[LayerCount]) -> None:
    observed = sum(layer.hits for layer in counted)
    expected = brute_force_tail(counted, observed)
    if expected > 1e-12:
        assert log10_upper_tail(counted) == pytest.approx(min(0.0, math.log10(expected)), abs=1e-6)


def small_layers(generator: random.Random) -> list[LayerCount]:
    layers = []
    for _ in range(generator.randint(1, 4)):
        size = generator.randint(1, 120)
        layers.append(LayerCount(size=size, kept=generator.randint(0, size), secret=generator.randint(0, size), hits=0))
    return layers


def test_a_tail_is_never_smaller_than_exact_rational_arithmetic_gives() -> None:
    """Not by a single ulp: both sides are compared exactly."""
    generator = random.Random(11)
    for _ in range(400):
        counted = small_layers(generator)
        lowest, highest = sum(layer.lowest for layer in counted), sum(layer.highest for layer in counted)
        hits = generator.randint(lowest, max(lowest, highest - 1))
        exact = by_the_page.log10(by_the_page.exact_tail(counted, hits))
        ours = Decimal(log10_upper_tail(counted, hits))
        assert exact <= ours <= exact + Decimal("1e-10")


def test_a_tail_of_one_term_is_never_smaller_than_exact_rational_arithmetic_gives() -> None:
    generator = random.Random(12)
    for _ in range(400):
        counted = small_layers(generator)
        highest = sum(layer.highest for layer in counted)
        exact = by_the_page.log10(by_the_page.exact_tail(counted, highest))
        assert exact <= Decimal(log10_upper_tail(counted, highest)) <= exact + Decimal("1e-10")


def test_a_tail_of_a_large_layer_is_never_smaller_than_exact_rational_arithmetic_gives() -> None:
    layer = LayerCount(size=2000, kept=100, secret=150, hits=0)
    for hits in range(100):
        exact = by_the_page.log10(by_the_page.exact_tail([layer], hits))
        assert exact <= Decimal(log10_upper_tail([layer], hits)) <= exact + Decimal("1e-9")


def test_a_layer_says_what_it_can_count_and_what_it_counts_by_chance() -> None:
    layer = LayerCount(size=10, kept=8, secret=7, hits=6)
    assert (layer.lowest, layer.highest, layer.expected) == (5, 7, 5.6)
    assert LayerCount(size=10, kept=2, secret=3, hits=0).lowest == 0
    assert LayerCount(size=0, kept=0, secret=0, hits=0).expected == 0.0


def test_no_bound_on_rounding_lifts_a_tail_above_one() -> None:
    assert log10_upper_tail([LayerCount(size=2000, kept=1000, secret=200, hits=1)]) == 0.0


@given(st.lists(layers(), min_size=1, max_size=3))
def test_more_hits_are_never_more_probable(counted: list[LayerCount]) -> None:
    lowest, highest = sum(layer.lowest for layer in counted), sum(layer.highest for layer in counted)
    steps = np.unique(np.linspace(lowest, highest + 1, 12).astype(int))
    tails = [log10_upper_tail(counted, int(step)) for step in steps]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(tails))
    assert tails[0] == 0.0
    assert tails[-1] == -math.inf


def test_wrong_keys_have_uniform_or_larger_p_values() -> None:
    generator = np.random.default_rng(0)
    sizes = [(30_000, 3000, 900), (5000, 600, 250), (1200, 1000, 120)]
    draws = sum(generator.hypergeometric(kept, size - kept, secret, size=400_000) for size, kept, secret in sizes)
    counted = [LayerCount(size=size, kept=kept, secret=secret, hits=0) for size, kept, secret in sizes]
    values, counts = np.unique(draws, return_counts=True)
    p = np.repeat([10 ** log10_upper_tail(counted, int(value)) for value in values], counts)
    for level in (0.5, 0.1, 0.01, 0.001):
        share = float(np.mean(p <= level))
        assert share <= level + 4 * math.sqrt(level * (1 - level) / len(p))
        # The same test must see p-values that are half of what they should be.
        assert np.mean(p / 2 <= level) > level + 4 * math.sqrt(level * (1 - level) / len(p))


@pytest.mark.parametrize("chance", [0.5, 0.1, 0.01])
def test_the_e_process_has_mean_one_under_chance(chance: float) -> None:
    for queries in (1, 7, 40):
        matches = np.arange(queries + 1)
        values = [10 ** EProcess(chance=chance, queries=queries, matches=int(match)).log10_e for match in matches]
        assert float(binom.pmf(matches, queries, chance) @ values) == pytest.approx(1.0)


def test_chance_answers_cross_the_level_no_more_often_than_it_says() -> None:
    generator = np.random.default_rng(1)
    matches = np.cumsum(generator.random((20_000, 40)) < 0.1, axis=1)
    table = np.array(
        [
            [EProcess(chance=0.1, queries=q, matches=m).log10_e if m <= q else 0.0 for m in range(41)]
            for q in range(1, 41)
        ]
    )
    crossed = (table[np.arange(40), matches] >= 1.0).any(axis=1).mean()
    assert 0.01 < crossed <= 0.1


def test_an_intact_mark_is_proved_within_25_queries_for_10_classes() -> None:
    process = EProcess(chance=0.1)
    while process.log10_e < 64 * math.log10(2):
        process = process.observe(True)
    assert process.queries <= 25


def test_half_the_triggers_answered_still_prove_within_100_queries() -> None:
    assert EProcess(chance=0.1, queries=100, matches=50).log10_e >= 64 * math.log10(2)


# Hits and their signs


def test_a_count_of_hits_and_signs_is_what_can_be_worked_out_by_hand() -> None:
    """Three of three edges are hits, one way of 120, and all three agree, one way of 8: q = 1/960."""
    hits = log10_upper_tail([LayerCount(size=10, kept=3, secret=3, hits=3)])
    assert 10**hits == pytest.approx(1 / 120, rel=1e-9)
    agreeing = HitSigns(coins=3, agreeing=3)
    assert 10 ** agreeing.log10_tail() == pytest.approx(1 / 8, rel=1e-9)
    # ln 960 is 6.87, and 3·ln 2 is 2.08: no product of three hits' signs can be below an eighth of theirs.
    assert 10 ** log10_with_signs(hits, agreeing, hits=3) == pytest.approx((1 + 3 * math.log(2)) / 960, rel=1e-9)
    # Where the hits say nothing, −ln q is the smaller one: q = 1/8.
    assert 10 ** log10_with_signs(0.0, agreeing, hits=5) == pytest.approx((1 + math.log(8)) / 8, rel=1e-9)
    assert log10_with_signs(0.0, HitSigns(coins=0, agreeing=0), hits=0) == 0.0
    assert (agreeing.expected, HitSigns(coins=3, agreeing=0).log10_tail()) == (1.5, 0.0)


def test_counts_of_hits_and_signs_are_the_published_ones() -> None:
    path = Path(__file__).parents[2] / "signatures" / "vectors" / "planted-signs.json"
    for vector in json.loads(path.read_text())["counts"]:
        counted = [LayerCount(**layer) for layer in vector["layers"]]
        log10_p = log10_upper_tail(counted)
        assert log10_p == pytest.approx(float(vector["log10_p_of_hits"]), abs=1e-9)
        signs = HitSigns(coins=vector["coins"], agreeing=vector["agreeing"])
        found = log10_with_signs(log10_p, signs, hits=sum(layer.hits for layer in counted))
        assert found == pytest.approx(float(vector["log10_p"]), abs=1e-9)


@pytest.mark.parametrize("full", [None, (7, 4, 3), (6, 6, 2)])
@pytest.mark.parametrize(("size", "kept", "secret"), [(12, 4, 5), (30, 3, 3), (9, 6, 4), (40, 10, 2), (14, 14, 6)])
def test_hits_and_signs_together_are_as_rare_as_they_say_with_nothing_to_spare(
    size: int, kept: int, secret: int, full: tuple[int, int, int] | None
) -> None:
    """Over every outcome of the key, exactly: P(p ≤ t) ≤ t, for every t that comes up. A full layer has no coins."""
    outcomes: list[tuple[float, Fraction]] = []
    layers = [LayerCount(size=size, kept=kept, secret=secret, hits=0)]
    if full is not None:
        layers.append(LayerCount(size=full[0], kept=full[1], secret=full[2], hits=0))
    for hits in itertools.product(*(range(layer.lowest, layer.highest + 1) for layer in layers)):
        ways = Fraction(1)
        for layer, x in zip(layers, hits, strict=True):
            n, k, s = layer.size, layer.kept, layer.secret
            ways *= Fraction(math.comb(k, x) * math.comb(n - k, s - x), math.comb(n, s))
        log10_p = log10_upper_tail(layers, sum(hits))
        for agreeing in range(hits[0] + 1):
            signs = HitSigns(coins=hits[0], agreeing=agreeing)
            found = log10_with_signs(log10_p, signs, hits=sum(hits))
            outcomes.append((found, ways * math.comb(hits[0], agreeing) / 2 ** hits[0]))
    assert sum(share for _, share in outcomes) == 1
    for level, _ in outcomes:
        reached = sum(share for found, share in outcomes if found <= level)
        assert by_the_page.log10(reached) <= Decimal(level) + Decimal("1e-12")
