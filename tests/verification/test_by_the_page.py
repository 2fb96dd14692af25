"""Verdicts against a second implementation of signatures/*.md, slow and exact. The table is in test_rules.py."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.verification import by_the_page
from tests.verification.claims import (
    RECIPE,
    SECRET,
    SHAPES,
    TICKET,
    Suspect,
    evidence,
    mark,
    marked_weights,
    planted_mark,
    signed,
    trigger_mark,
    triggers_of,
    unmarked_ticket,
)
from ticketguard.errors import CredentialError, PredictorError, UnverifiableError
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.statistics import EProcess

SMALL = {"a.weight": (30, 20), "b.weight": (12, 5, 3, 3)}
KINDS: dict[str, dict[str, int]] = {
    "sparse": {"secret_ppm": 100_000, "share_ppm": 50_000},
    "full": {"secret_ppm": 250_000, "share_ppm": 50_000, "holes_ppm": 100_000},
    "found later": {"secret_ppm": 100_000, "share_ppm": 50_000, "density_ppm": 150_000},
}
READINGS = (
    "weights that are not zero",
    "largest weights, as many as the reference has edges",
    "largest weights, half the reference's edges",
    "largest weights, a quarter of the reference's edges",
    "weights largest for their channels, as many as the reference has edges",
)


def claim_of(kind: str) -> tuple[Any, Reference]:
    ticket = unmarked_ticket(SMALL, density=0.15)
    if kind != "sparse":
        full = Mask(layers={name: np.ones(shape, bool) for name, shape in SMALL.items()})
        ticket = dataclasses.replace(ticket, mask=full, weights=ticket.rewind_weights)
    reference = ticket.reference()
    return mark("planted-graph", KINDS[kind], reference=reference), reference


def steered(made: Any, seed: int, how: str) -> dict[str, np.ndarray]:
    """A suspect with more of its weights among the secret positions than chance gives."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in SMALL.items():
        size = math.prod(shape)
        drawn = by_the_page.secret_positions(SECRET, made.commitment, name, size, made.parameters["secret_ppm"])
        secret = np.isin(np.arange(size), sorted(drawn))
        layer = generator.normal(size=size)
        if how == "sparse":
            layer *= generator.random(size) < np.where(secret, 0.5, 0.12)
        elif how == "dense":
            layer *= np.where(generator.random(size) < np.where(secret, 0.6, 0.1), 1, 0.01)
        elif how == "few large":
            layer *= np.where(secret & (generator.random(size) < 0.3), 5, 1)
        elif how == "rescaled":
            layer *= np.where(generator.random(size) < np.where(secret, 0.6, 0.1), 1, 0.01)
            layer *= np.repeat(10.0 ** generator.uniform(-3, 3, shape[0]), size // shape[0])
        elif how == "ties":
            layer = np.round(layer * np.where(secret, 1.5, 1))
        elif how == "holes":
            layer *= generator.random(size) < np.where(secret, 0.99, 0.8)
        weights[name] = layer.reshape(shape).astype(np.float32)
    return weights


# The readings that are the strongest, for two seeds each.
STRONGEST = {
    ("sparse", "sparse"): (1, 0), ("full", "sparse"): (0, 0), ("found later", "sparse"): (0, 0),
    ("sparse", "dense"): (1, 1), ("full", "dense"): (3, 3), ("found later", "dense"): (1, 1),
    ("sparse", "few large"): (3, 3), ("full", "few large"): (3, 3), ("found later", "few large"): (3, 3),
    ("sparse", "rescaled"): (4, 4), ("full", "rescaled"): (2, 2), ("found later", "rescaled"): (4, 4),
    ("sparse", "ties"): (4, 4), ("full", "ties"): (3, 3), ("found later", "ties"): (4, 4),
    ("sparse", "holes"): (0, 0), ("full", "holes"): (0, 0), ("found later", "holes"): (0, 0),
    ("sparse", "innocent"): (3, 3), ("full", "innocent"): (3, 3), ("found later", "innocent"): (2, 3),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "how"), STRONGEST)
def test_every_reading_is_what_the_page_says(kind: str, how: str) -> None:
    made, reference = claim_of(kind)
    for seed, strongest in enumerate(STRONGEST[kind, how]):
        suspect = steered(made, seed, how)
        expected = by_the_page.readings(suspect, reference.mask, KINDS[kind], SECRET, made.commitment)
        assert min(range(5), key=lambda reading: expected[reading].log10_p) == strongest
        found = evidence(suspect, signed(made, reference=reference))
        best = expected[strongest]
        assert found.details["log10_p_uncorrected"] == pytest.approx(float(best.log10_p), abs=1e-6)
        assert found.details["reading"] == READINGS[strongest]
        assert (found.details["edges"], found.observed) == (sum(layer.kept for layer in best.layers), best.hits)
        assert found.expected == pytest.approx(float(best.expected))
        if (kind, how) == ("found later", "ties"):
            continue  # a copy has half a hit more there, which floats round up
        copy = min(counted.attainable_log10_p(KINDS[kind]["share_ppm"]) for counted in expected)
        assert found.details["attainable_log10_p"] == pytest.approx(min(0, float(copy) + math.log10(10)), abs=1e-6)
        assert found.details["positions"] == sum(layer.size for layer in best.layers)


def test_equal_magnitudes_are_taken_in_order_of_position() -> None:
    made, reference = claim_of("sparse")
    level = {name: np.full(shape, -2.0, np.float32) for name, shape in SMALL.items()}
    expected = by_the_page.readings(level, reference.mask, KINDS["sparse"], SECRET, made.commitment)
    found = evidence(level, signed(made, reference=reference))
    assert found.observed == min(expected, key=lambda counted: counted.log10_p).hits
    backwards = {name: array.copy() for name, array in level.items()}
    for name in SMALL:  # the last ones are as large as the first
        backwards[name].reshape(-1)[: reference.mask[name].sum()] *= 0.5
    assert evidence(backwards, signed(made, reference=reference)).observed != found.observed


def test_a_verdict_is_what_the_page_computes() -> None:
    """The smallest p of the readings, times their number, against a level that it reaches or not."""
    made, reference = claim_of("sparse")
    for seed in range(3):
        suspect = steered(made, seed, "dense")
        expected = by_the_page.readings(suspect, reference.mask, KINDS["sparse"], SECRET, made.commitment)
        log10_p = float(min(counted.log10_p for counted in expected)) + math.log10(10)
        verdict = tg.verify(tg.Checkpoint(suspect), signed(made, reference=reference))
        assert verdict.log10_p == pytest.approx(log10_p, abs=1e-6)
        assert verdict.status == "supported"


def test_a_mask_beside_its_weight_is_multiplied_into_it() -> None:
    made = planted_mark()
    marked = marked_weights(made)
    noise = np.random.default_rng(3)
    pairs = {}
    for name, weight in marked.items():
        pairs[f"{name}_mask"] = (weight != 0).astype(np.float32)
        pairs[f"{name}_orig"] = np.where(weight != 0, weight, noise.normal(size=weight.shape)).astype(np.float32)
    assert evidence(pairs, signed(made)).log10_p == evidence(marked, signed(made)).log10_p


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_counts_as_missing(kind: str) -> None:
    made, reference = claim_of(kind)
    for seed, share in enumerate((0.01, 0.3, 0.8)):
        suspect = steered(made, seed, "dense")
        generator = np.random.default_rng(seed)
        spoiled = {
            name: np.where(
                generator.random(layer.shape) < share, generator.choice([np.nan, np.inf, -np.inf], layer.shape), layer
            ).astype(np.float32)
            for name, layer in suspect.items()
        }
        expected = by_the_page.readings(
            by_the_page.finite(spoiled), reference.mask, KINDS[kind], SECRET, made.commitment
        )
        best = min(expected, key=lambda counted: counted.log10_p)
        found = evidence(spoiled, signed(made, reference=reference))
        assert found.details["log10_p_uncorrected"] == pytest.approx(float(best.log10_p), abs=1e-6)
        assert found.observed == best.hits


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (np.full(SHAPES["fc2.weight"], np.nan, np.float32), "not finite|NaN"),
        (np.full(SHAPES["fc2.weight"], np.inf, np.float32), "not finite|inf"),
        (np.ones(SHAPES["fc2.weight"], np.int8), "int8|integer"),
        (np.ones((40, 199), np.float32), None),
    ],
)
def test_layers_without_finite_floats_of_the_right_shape_are_left_out(layer: np.ndarray, reason: str | None) -> None:
    made = planted_mark()
    first = {"fc1.weight": marked_weights(made)["fc1.weight"]}
    empty = int(np.count_nonzero(~TICKET.mask["fc1.weight"]))
    found, alone = (evidence(suspect, signed(made)) for suspect in ({**first, "fc2.weight": layer}, first))
    assert (found.log10_p, found.details["layers"], found.details["positions"]) == (alone.log10_p, 1, empty)
    assert [item["layer"] for item in found.details["unreadable_layers"]] == ([] if reason is None else ["fc2.weight"])
    assert found.details["missing_layers"] == (["fc2.weight"] if reason is None else [])


# Answers

TRIGGERS = trigger_mark()
LABELS = [int(label) for label in triggers_of(TRIGGERS).labels]


def wrong(number: int) -> int:
    """Never the label, and not one class only."""
    return (LABELS[number] + 1 + number % 3) % RECIPE.classes


def test_triggers_of_another_root_are_not_asked() -> None:
    for root in (bytes(32), None):
        suspect = Suspect(LABELS.__getitem__)
        with pytest.raises(CredentialError, match="do not have the claim's Merkle root"):
            tg.verify(suspect, signed(dataclasses.replace(TRIGGERS, merkle_root=root)))
        assert suspect.asked == []


def test_triggers_are_asked_in_their_order_one_at_a_time() -> None:
    suspect = Suspect(wrong)
    tg.verify(suspect, signed(TRIGGERS))
    asked = np.stack(suspect.asked)
    assert asked.shape == (60, 1, 7)
    pixels = triggers_of(TRIGGERS).pixels
    assert set(np.unique(pixels)) == {0, 255}
    assert (asked[:, 0] == (pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).all()


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_e_process_is_what_the_page_computes(classes: int) -> None:
    for queries in (1, 2, 17, 60, 400):
        for matches in {0, 1, queries // 3, queries - 1, queries}:
            exact = by_the_page.e_value(Fraction(1, classes), queries, matches)
            found = EProcess(chance=1 / classes, queries=queries, matches=matches).log10_e
            assert found == pytest.approx(float(by_the_page.log10(exact)), abs=1e-9)


def course(answers: list[int | None]) -> list[Decimal]:
    """log10 e after every answer."""
    matched = [answer == label for answer, label in zip(answers, LABELS, strict=True)]
    counted = ((queries, sum(matched[:queries])) for queries in range(1, len(LABELS) + 1))
    return [by_the_page.log10(by_the_page.e_value(Fraction(1, 10), queries, matches)) for queries, matches in counted]


def test_the_questioning_ends_at_the_level_and_the_largest_e_counts() -> None:
    suspect = Suspect(LABELS.__getitem__)
    found = evidence(suspect, signed(TRIGGERS))
    values = course(list(LABELS))
    enough = next(number for number, value in enumerate(values, start=1) if value >= Decimal(64 * math.log10(2)))
    assert (found.status, len(suspect.asked), found.observed) == ("supported", enough, enough)
    assert found.details["answers_from_journal"] == 0
    assert found.log10_p == pytest.approx(-float(values[enough - 1]), abs=1e-9)
    assert found.expected == enough / 10
    # Matches first and misses after them: the largest e so far counts, and the questioning goes on to the end.
    turned = [label if number < 8 else wrong(number) for number, label in enumerate(LABELS)]
    fallen = evidence(Suspect(turned.__getitem__), signed(TRIGGERS))
    values = course(list(turned))
    assert fallen.log10_p == pytest.approx(-float(max(values)), abs=1e-9)
    assert fallen.details["log10_e"] == pytest.approx(float(values[-1]), abs=1e-9)
    assert float(max(values)) > 7 > float(values[-1])
    assert (fallen.details["queries"], fallen.status) == (60, "inconclusive")


def test_an_answer_that_is_not_a_class_is_a_miss() -> None:
    answers = [None if number % 3 == 2 else label for number, label in enumerate(LABELS)]
    found = evidence(Suspect(answers.__getitem__), signed(TRIGGERS))
    queries = found.details["queries"]
    assert found.status == "supported"
    assert (found.observed, found.details["unusable_answers"]) == (queries - queries // 3, queries // 3)
    assert found.log10_p == pytest.approx(-float(max(course(answers)[:queries])), abs=1e-9)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (wrong, "not_supported"),
        (lambda number: None if number == 59 else wrong(number), "inconclusive"),
        (lambda number: 3, "inconclusive"),
        (lambda number: LABELS[number] if number < 7 else wrong(number), "inconclusive"),  # e of a million and more
    ],
)
def test_answers_acquit_only_if_all_were_classes_and_not_all_the_same(
    answer: Callable[[int], int | None], status: str
) -> None:
    assert evidence(Suspect(answer), signed(TRIGGERS)).status == status


# The verdict


def both_marks() -> tuple[tg.Credential, dict[str, np.ndarray]]:
    planted = planted_mark()
    return signed(planted, TRIGGERS), marked_weights(planted)


def test_weights_and_answers_are_two_tests_that_are_both_paid_for() -> None:
    credential, marked = both_marks()

    def down(number: int) -> int:
        raise PredictorError(target="s", reason="is down", hint="h")

    def judged(weights: Mapping[str, np.ndarray], answer: Callable[[int], int | None]) -> tg.Verdict:
        return tg.verify(tg.Checkpoint(weights), credential, answers=Suspect(answer))

    for answer, made in ((wrong, 2), (down, 1)):
        verdict = judged(marked, answer)
        assert (verdict.status, verdict.tests, len(verdict.evidence)) == ("supported", 2, made)
        threshold = -64 * math.log10(2) - math.log10(2)
        assert [item.threshold_log10_p for item in verdict.evidence] == [threshold] * made
        alone = evidence(marked, credential)
        assert (alone.threshold_log10_p, verdict.evidence[0].log10_p) == (-64 * math.log10(2), alone.log10_p)
        assert verdict.log10_p == alone.log10_p + math.log10(2)
    assert judged(TICKET.weights, wrong).status == "not_supported"
    assert judged(TICKET.weights, down).status == "inconclusive"
    # The questioning goes on until it reaches its share of the level.
    copied = judged(TICKET.weights, LABELS.__getitem__)
    assert copied.status == "supported"
    assert copied.evidence[1].log10_p <= copied.evidence[1].threshold_log10_p


def test_not_supported_is_said_only_where_a_copy_would_have_been_seen() -> None:
    made = planted_mark()
    weights = dict(TICKET.weights)
    assert evidence(weights, signed(made)).status == "not_supported"
    part = {name: array.copy() for name, array in weights.items()}
    for name in SHAPES:
        part[name].reshape(-1)[300:] = 0
    found = evidence(part, signed(made))
    assert found.details["attainable_log10_p"] > found.threshold_log10_p
    assert found.status == "inconclusive"


def test_what_cannot_be_checked_is_an_error() -> None:
    credential, _ = both_marks()
    with pytest.raises(UnverifiableError, match="no tensor in common"):
        tg.verify(tg.Checkpoint({"other": np.ones((3, 5), np.float32)}), credential)
    with pytest.raises(UnverifiableError, match="no mark that can be read from answers; it has planted-graph"):
        tg.verify(Suspect(wrong), signed(planted_mark()))
    with pytest.raises(UnverifiableError, match="no mark that can be read from weights"):
        tg.verify(tg.Checkpoint(dict(TICKET.weights)), signed(TRIGGERS))
    # Of several networks that cannot be read, the first is named.
    unread = {
        f"{net}.{name}": np.full(SHAPES[name], value) for net, value in (("a", np.nan), ("b", 7)) for name in SHAPES
    }
    unread = {name: array.astype(np.int8 if name.startswith("b.") else np.float32) for name, array in unread.items()}
    with pytest.raises(UnverifiableError, match="has no layer that can be read: 'fc1.weight' has values that are NaN"):
        tg.verify(tg.Checkpoint(unread), credential)
    # A claim at fault is an error even if another of its tests would support it.
    planted = planted_mark()
    forged = signed(planted, dataclasses.replace(TRIGGERS, merkle_root=bytes(32)))
    with pytest.raises(CredentialError, match="Merkle root"):
        tg.verify(tg.Checkpoint(marked_weights(planted)), forged, answers=Suspect(wrong))


@pytest.mark.usefixtures("all_decoys")
def test_decoys_go_through_the_same_steps_and_decide_nothing() -> None:
    made, reference = claim_of("sparse")
    suspect = steered(made, 0, "innocent")
    decoys = [
        hashlib.sha256(b"ticketguard/decoy/v1\0" + made.commitment + number.to_bytes(4, "little")).digest()
        for number in range(20)
    ]
    smallest = min(
        counted.log10_p
        for decoy in decoys
        for counted in by_the_page.readings(suspect, reference.mask, KINDS["sparse"], decoy, made.commitment)
    )
    found = evidence(suspect, signed(made, reference=reference))
    assert found.details["decoy_keys"] == 20
    assert found.details["decoy_log10_p"] == pytest.approx(float(smallest) + math.log10(10), abs=1e-6)
    # A suspect made for the first decoy proves nothing for the owner.
    stolen = {}
    for name, shape in SMALL.items():
        drawn = by_the_page.secret_positions(decoys[0], made.commitment, name, math.prod(shape), 100_000)
        stolen[name] = np.isin(np.arange(math.prod(shape)), sorted(drawn)).reshape(shape).astype(np.float32)
    found = evidence(stolen, signed(made, reference=reference))
    assert found.details["decoy_log10_p"] < -50
    assert found.log10_p > -3
    assert found.status != "supported"
