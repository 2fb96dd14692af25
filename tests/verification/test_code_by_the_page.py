"""The QR code against a second implementation of its page, slow and exact. The table is in test_rules.py."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.verification import by_the_page, code_by_the_page
from tests.verification.claims import SECRET, evidence
from tests.verification.coded import (
    PARAMETERS,
    TICKET,
    code_credential,
    code_mark,
    coded_weights,
    pruned,
    regrown,
)
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.pairs import PairedLayers, Pairs
from ticketguard.embedding.qr_code import CodeParameters
from ticketguard.embedding.qr_symbol import LEVELS, VERSIONS, Symbol
from ticketguard.ticket import Mask, Reference
from ticketguard.ticket.bits import unpack_bits
from ticketguard.verification.pairs import ReadLayers, votes_of
from ticketguard.verification.pictures import UNREAD

VECTORS = Path(__file__).parents[2] / "signatures" / "vectors"
MADE = code_mark()
COPY = coded_weights(MADE)


@functools.cache
def published() -> tuple[dict[str, Any], Mask, dict[str, np.ndarray]]:
    said = json.loads((VECTORS / "qr-code.json").read_text())
    shapes = {name: tuple(layer["shape"]) for name, layer in said["layers"].items()}
    mask = Mask(
        layers={
            name: unpack_bits(np.frombuffer(bytes.fromhex(layer["edges"]), np.uint8), shapes[name], name=name)
            for name, layer in said["layers"].items()
        }
    )
    suspect = {}
    for name, weights in said["suspect"].items():
        suspect[name] = np.zeros(math.prod(shapes[name]), np.float32)
        for position, value in weights:
            suspect[name][position] = value
        suspect[name] = suspect[name].reshape(shapes[name])
    return said, mask, suspect


def key_of(said: dict[str, Any]) -> tuple[bytes, bytes]:
    return bytes.fromhex(said["secret"]), bytes.fromhex(said["commitment"])


def listed(drawn: dict[str, Pairs]) -> list[list[Any]]:
    return [
        [name, *map(int, positions), int(coin)]
        for name, pairs in drawn.items()
        for positions, coin in zip(pairs.positions, pairs.coins, strict=True)
    ]


def test_pairs_are_the_published_ones() -> None:
    said, mask, _ = published()
    drawn = PairedLayers(mask).draw(Binding(secret=key_of(said)[0], commitment=key_of(said)[1]), 208)
    assert listed(drawn) == said["pairs"]
    assert [pairs.first for pairs in drawn.values()] == [0, 100, 202]
    # A block of edges leaves no empty position in a row and a column of edges; a full layer has no pair.
    assert len(drawn["blocks.weight"]) == 6
    assert "full.weight" not in drawn


def test_a_second_implementation_draws_the_published_pairs() -> None:
    said, mask, _ = published()
    pairs = code_by_the_page.drawn_pairs(mask, 208, *key_of(said))
    assert [[pair.layer, pair.first, pair.second, pair.coin] for pair in pairs] == said["pairs"]
    assert [pair.number for pair in pairs] == [*range(208)]


def test_rare_candidates_are_looked_for_as_long_as_the_page_says() -> None:
    """Where one edge lies beside a block, a row and a column of edges meet in an empty position once in 450 times."""
    layer = np.zeros((60, 60), dtype=np.bool_)
    layer[:30, :30] = layer[45, 45] = True
    mask = Mask(layers={"fc": layer})
    secret, commitment = key_of(published()[0])
    drawn = listed(PairedLayers(mask).draw(Binding(secret=secret, commitment=commitment), 40))
    pairs = code_by_the_page.drawn_pairs(mask, 40, secret, commitment)
    assert drawn == [[pair.layer, pair.first, pair.second, pair.coin] for pair in pairs]


def test_the_text_and_its_bits_are_the_published_ones() -> None:
    said, _, _ = published()
    parameters = CodeParameters.from_json(said["parameters"])
    text = parameters.payload(key_of(said)[1])
    assert text == said["shown"] == code_by_the_page.shown_text("", key_of(said)[1])
    assert "".join(map(str, parameters.code.symbol.encode(text))) == said["bits"]
    other = said["symbol_of_abc"]
    symbol = Symbol(version=other["qr_version"], correction=other["correction"])
    assert "".join(map(str, symbol.encode(other["text"]))) == other["bits"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("correction", LEVELS)
def test_bits_are_those_that_another_walk_over_the_symbol_finds(version: int, correction: int) -> None:
    symbol = Symbol(version=version, correction=correction)
    assert symbol.encode("TICKET 1").tolist() == code_by_the_page.symbol_bits("TICKET 1", version, correction)


def test_votes_are_the_published_ones() -> None:
    said, mask, suspect = published()
    reference = Reference(mask=mask, kept_weights={name: np.zeros(mask.count(name), np.float32) for name in mask})
    secret, commitment = key_of(said)
    drawn = PairedLayers(mask).draw(Binding(secret=secret, commitment=commitment), 208)
    bits = np.array([*map(int, said["bits"])], np.uint8)
    found = votes_of(ReadLayers.of(suspect, reference), drawn)
    exact = code_by_the_page.readings(
        suspect, mask, code_by_the_page.drawn_pairs(mask, 208, secret, commitment), bits.tolist()
    )
    for reading, counted, expected in zip(found, exact, said["readings"], strict=True):
        agreement = reading.agreement(bits)
        weight = sum(weight * count for weight, count in agreement.coins.items())
        assert (agreement.votes, agreement.right, agreement.observed, weight) == (
            expected["votes"], expected["right"], expected["weight_right"], expected["weight"],
        )  # fmt: skip
        assert (counted.votes, counted.right, counted.observed, counted.weight) == (
            expected["votes"], expected["right"], expected["weight_right"], expected["weight"],
        )  # fmt: skip
        assert agreement.log10_p == pytest.approx(expected["log10_p"], abs=1e-8)
        assert float(by_the_page.log10(counted.p)) == pytest.approx(expected["log10_p"], abs=1e-8)


@pytest.mark.parametrize("how", ["regrown", "dense", "ties and not finite"])
def test_a_verdict_is_what_the_page_computes(how: str) -> None:
    generator = np.random.default_rng(4)
    suspect = {
        "regrown": lambda: regrown(pruned(COPY, 0.4), 1.5, generator),
        "dense": lambda: {
            name: np.where(layer == 0, 0.02 * generator.normal(size=layer.shape), layer) for name, layer in COPY.items()
        },
        "ties and not finite": lambda: {
            name: np.where(generator.random(layer.shape) < 0.01, np.nan, np.round(layer))
            for name, layer in COPY.items()
        },
    }[how]()
    suspect = {name: layer.astype(np.float32) for name, layer in suspect.items()}
    bits = code_by_the_page.symbol_bits(code_by_the_page.shown_text("ACME-1", MADE.commitment), 1, 15)
    count = len(bits) * int(str(PARAMETERS["pairs"]))
    pairs = code_by_the_page.drawn_pairs(TICKET.mask, count, SECRET, MADE.commitment)
    expected = code_by_the_page.readings(by_the_page.finite(suspect), TICKET.mask, pairs, bits)
    best = min(expected, key=lambda counted: counted.p)
    found = evidence(suspect, code_credential(MADE))
    log10_p = min(0.0, float(by_the_page.log10(best.p)) + 1)
    assert found.log10_p == pytest.approx(log10_p, abs=1e-8)
    assert found.status == "supported"
    assert (found.observed, found.details["pairs_read"]) == (best.right, best.votes)
    wrong = [(total < 0) != bit for total, bit in zip(best.sums, bits, strict=True)]
    assert found.details["modules_wrong"] == sum(wrong)
    symbol, sums = Symbol(version=1, correction=15), np.array(best.sums)
    raw = symbol.draw((sums < 0).astype(np.uint8))
    assert ((found.pictures["raw"] == 0) == (raw & ~symbol.places(sums == 0))).all()
    assert ((found.pictures["raw"] == UNREAD) == symbol.places(sums == 0)).all()


def test_no_text_changes_a_verdict() -> None:
    """A copy whose symbol is past decoding is supported all the same, by its pairs."""
    found = tg.verify(tg.Checkpoint(pruned(COPY, 0.75)), code_credential(MADE))
    (seen,) = found.evidence
    assert (found.status, seen.details["decoded"]) == ("supported", "nothing decoded")
