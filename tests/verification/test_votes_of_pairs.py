"""What pairs' votes weigh and show, told from made-up layers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.verification.claims import evidence
from tests.verification.coded import (
    PARAMETERS,
    TICKET,
    binding_of,
    code_credential,
    code_mark,
    coded_weights,
    pruned,
    regrown,
)
from ticketguard.embedding.pairs import PairedLayers, Pairs
from ticketguard.embedding.qr_code import CodeParameters
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.decoys import decoy_bindings
from ticketguard.verification.pairs import LayerVotes, PairReading, ReadLayers, votes_of
from ticketguard.verification.qr_code.examination import DECOY_PAIRS
from ticketguard.verification.readings import READINGS
from ticketguard.verification.weighted_coins import log10_at_least_weighted


def layer(sides: list[int], *, weight: float, first: int = 0, copy: tuple[float, float] = (0.0, 0.0)) -> LayerVotes:
    positions = np.arange(2 * len(sides)).reshape(-1, 2)
    pairs = Pairs(positions=positions, coins=np.zeros(len(sides), np.uint8), first=first)
    return LayerVotes(pairs=pairs, sides=np.array(sides, np.int8), weight=weight, votes_of_copy=copy)


def reading(*layers: LayerVotes) -> PairReading:
    return PairReading(reading=READINGS[0], layers=layers)


def test_weights_are_eighths_of_the_heaviest_layer_that_votes() -> None:
    found = reading(
        layer([1, 1, -1, 0], weight=4.0), layer([1, -1], weight=2.0), layer([0, 0], weight=90.0), layer([1], weight=0.2)
    ).agreement(np.zeros(4, np.uint8))
    assert {weight: count for weight, count in found.coins.items() if count} == {8: 3, 4: 2}
    # What weighs next to nothing is a vote, and weighs nothing.
    assert (found.votes, found.right, found.observed) == (6, 4, 2 * 8 + 4)
    assert found.log10_p == log10_at_least_weighted(20, {8: 3, 4: 2})
    silent = reading(layer([0, 0], weight=3.0)).agreement(np.zeros(4, np.uint8))
    assert (silent.votes, silent.observed, silent.log10_p) == (0, 0, 0.0)


def test_coins_and_bits_say_which_side_is_right() -> None:
    pairs = Pairs(positions=np.arange(8).reshape(4, 2), coins=np.array([0, 1, 0, 1], np.uint8), first=2)
    votes = LayerVotes(pairs=pairs, sides=np.array([1, 1, -1, -1], np.int8), weight=1.5, votes_of_copy=(0, 0))
    # Pairs carry the bits 2, 0, 1 and 2, and say 0, 1, 1 and 0 of them.
    assert reading(votes).evidence(3).tolist() == [-1.5, -1.5, 3.0]
    for bits, right in (([1, 1, 0], 4), ([0, 0, 1], 0), ([1, 1, 1], 2)):
        assert reading(votes).agreement(np.array(bits, np.uint8)).right == right


@pytest.mark.parametrize(
    ("each", "expected"),
    [([(10.4, 9.9)], (10, 9)), ([(10.4, 10.4)], (10, 10)), ([(0.3, 0.3)] * 4, (1, 1)), ([(2.6, 2.6)], (3, 2))],
)
def test_of_a_copy_no_more_is_right_than_is_sure(each: list[tuple[float, float]], expected: tuple[int, int]) -> None:
    assert reading(*(layer([1], weight=1.0, copy=votes) for votes in each)).of_copy == expected


def test_what_a_copy_would_show_follows_from_how_many_weights_are_left() -> None:
    """Of fewer than the reference has, the share; of more, the others lie anywhere, and spoil pairs that were right."""
    generator = np.random.default_rng(0)
    mask = Mask(layers={"fc": np.arange(2000).reshape(40, 50) < 400})
    reference = Reference(mask=mask, kept_weights={"fc": np.ones(400, np.float32)})
    drawn = PairedLayers(mask).draw(binding_of(code_mark()), 100)
    for alive, right, wrong in ((400, 100.0, 0.0), (100, 25.0, 0.0), (1200, 50.0, 0.0), (0, 0.0, 0.0)):
        suspect = np.zeros(2000, np.float32)
        suspect[generator.permutation(2000)[:alive]] = 1.0
        (votes,) = votes_of(ReadLayers.of({"fc": suspect.reshape(40, 50)}, reference), drawn)[0].layers
        assert votes.votes_of_copy == pytest.approx((right + wrong, right))


def test_a_layers_weight_follows_from_what_is_left_and_what_was_added_beside_the_pairs() -> None:
    mask = Mask(layers={"fc": np.arange(2000).reshape(40, 50) < 400})
    reference = Reference(mask=mask, kept_weights={"fc": np.ones(400, np.float32)})
    drawn = PairedLayers(mask).draw(binding_of(code_mark()), 100)
    pairs = drawn["fc"].positions
    beside = np.setdiff1d(np.arange(400, 2000), pairs.reshape(-1))
    suspect = np.zeros(2000, np.float32)
    suspect[:300] = 1.0
    suspect[beside[:90]] = 1.0
    suspect[pairs[:70, 0]] = 1.0
    (votes,) = votes_of(ReadLayers.of({"fc": suspect.reshape(40, 50)}, reference), drawn)[0].layers
    survival, noise = 300.5 / 401, 90.5 / 1401  # of 1,400 empty positions beside the pairs
    assert votes.weight == pytest.approx(math.log1p(survival / ((1 - survival) * noise)), rel=1e-12)
    assert votes.sides.tolist() == [1] * 70 + [0] * 30


def test_decoys_show_the_reading_of_theirs_that_stands_out() -> None:
    """Else chance would look smaller beside the owner's key, which shows the strongest of as many readings."""
    made = code_mark({**PARAMETERS, "text": "NO-5"})
    suspect = regrown(pruned(coded_weights(made), 0.5), 0.5, np.random.default_rng(0))
    found = evidence(suspect, code_credential(made))
    code = CodeParameters.from_json({**PARAMETERS, "text": "NO-5"})
    read, layers = ReadLayers.of(suspect, TICKET.reference()), PairedLayers(TICKET.mask)
    bits = code.code.symbol.encode(code.payload(made.commitment))
    shown = []
    for decoy in decoy_bindings(made.commitment, positions=code.code.edges, most_positions=DECOY_PAIRS):
        agreements = [each.agreement(bits) for each in votes_of(read, layers.draw(decoy, code.code.edges))]
        shown.append(max(agreements, key=lambda each: each.surprise).log10_p)
    assert found.details["decoy_keys"] == len(shown)
    assert found.details["decoy_log10_p"] == min(0.0, min(shown) + 1)
    assert min(shown) < -1.1
