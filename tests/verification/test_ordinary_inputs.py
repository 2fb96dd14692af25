"""Ordinary inputs: they show that a suspect does the task at all, and prove nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.questioning import CLASSES, COUNT, SHAPE, Suspect, details, no_answer, unusable
from ticketguard.errors import ConfigurationError
from ticketguard.verification.controls import Controls, Task

pytestmark = pytest.mark.usefixtures("no_waiting")


def ordinary(count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.random((count, *SHAPE)).astype(np.float32), np.arange(count) % CLASSES


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (lambda number: number % CLASSES, "not_supported"),  # another model of the task
        (lambda number: number % CLASSES if number % 3 else 0, "not_supported"),  # a bad one
        (lambda number: (number + 1) % CLASSES, "inconclusive"),  # its classes in another order
        (lambda number: number * 7919 % 97 % CLASSES, "inconclusive"),  # at random
        (lambda number: unusable() if number % 2 else 0, "inconclusive"),
    ],
)
def test_ordinary_inputs_at_chance_are_inconclusive(
    credential: tg.Credential, labels: list[int], answer: Callable[[int], int | Exception], status: str
) -> None:
    def innocent(number: int) -> int | Exception:
        return (labels[number] + 1 + number % 5) % CLASSES if number < COUNT else answer(number - COUNT)

    without = tg.verify(Suspect(innocent), credential)
    verdict = tg.verify(Suspect(innocent), credential, controls=ordinary())
    assert (without.status, verdict.status) == ("not_supported", status)
    assert details(without)["ordinary_inputs"] == "not asked"
    assert verdict.log10_p == without.log10_p
    outcome = details(verdict)["ordinary_inputs"]
    assert isinstance(outcome, dict)
    assert (outcome["asked"], outcome["chance"], outcome["above_chance"]) == (50, 0.1, status == "not_supported")


def test_a_proved_copy_is_not_asked_ordinary_inputs(credential: tg.Credential, labels: list[int]) -> None:
    suspect = Suspect(labels.__getitem__)
    verdict = tg.verify(suspect, credential, controls=ordinary())
    assert verdict.status == "supported"
    assert len(suspect.asked) == details(verdict)["queries"]
    assert len(suspect.asked) < COUNT  # nor triggers beyond what the level takes
    assert details(verdict)["distinct_answers"] == len(set(labels[: len(suspect.asked)]))


def test_ordinary_inputs_do_not_clear_what_the_triggers_raised_doubts_about(
    credential: tg.Credential, labels: list[int]
) -> None:
    def hiding(number: int) -> int | Exception:
        if number >= COUNT:
            return (number - COUNT) % CLASSES
        return unusable() if number == 30 else (labels[number] + 1) % CLASSES

    suspect = Suspect(hiding)
    verdict = tg.verify(suspect, credential, controls=ordinary())
    assert verdict.status == "inconclusive"
    assert details(verdict)["doubts"] == ["1 of 60 answers were not predictions"]
    assert len(suspect.asked) == COUNT


def test_ordinary_inputs_are_resumed_too(credential: tg.Credential, labels: list[int], tmp_path: Path) -> None:
    faults = {COUNT + 20}

    def innocent(number: int) -> int | Exception:
        if number in faults:
            faults.remove(number)
            return no_answer()
        return (labels[number] + 1 + number % 5) % CLASSES if number < COUNT else (number - COUNT) % CLASSES

    suspect = Suspect(innocent)
    first, second = (
        tg.verify(suspect, credential, patience_s=0, journal=tmp_path / "answers.jsonl", controls=ordinary())
        for _ in range(2)
    )
    assert (first.status, first.was_cut_short) == ("inconclusive", True)
    assert "after 20 of 50 ordinary inputs" in str(details(first)["stopped"])
    assert (second.status, second.was_cut_short) == ("not_supported", False)
    assert suspect.asked == sorted([*range(COUNT + 50), COUNT + 20])


def test_ordinary_inputs_may_be_a_data_set_by_name(credential: tg.Credential, labels: list[int]) -> None:
    seen: list[np.ndarray] = []

    class Watching(Suspect):
        def predict(self, inputs: np.ndarray, *, classes: int) -> int:
            seen.append(inputs)
            return super().predict(inputs, classes=classes)

    tg.verify(Watching(lambda number: (number + labels[number % COUNT] + 1) % CLASSES), credential, controls="digits")
    assert len(seen) == COUNT + 100
    lowest, highest = min(float(inputs.min()) for inputs in seen), max(float(inputs.max()) for inputs in seen)
    assert (lowest, highest) == (-2.0, 2.0)  # as the claim normalises: mean 0.5, deviation 0.25


@pytest.mark.parametrize(
    ("controls", "complaint"),
    [
        ((np.zeros((50, 3, 8, 8)), np.arange(50) % 10), r"expected inputs \(count, 1, 8, 8\)"),
        ((np.zeros((50, *SHAPE)), np.arange(49) % 10), "one integer label each"),
        ((np.zeros((50, *SHAPE)), np.zeros(50)), "one integer label each"),
        ((np.zeros((50, *SHAPE)), np.arange(50)), "labels outside the claim's classes, 0 to 9"),
        ((np.zeros((50, *SHAPE)), np.arange(50) - 1), "labels outside the claim's classes"),
        ((np.zeros((50, *SHAPE)), np.zeros(50, dtype=int)), "50 controls of 1 classes cannot rule out chance"),
        ((np.zeros((2, *SHAPE)), np.arange(2)), "2 controls of 2 classes cannot rule out chance"),
        ((np.zeros((0, *SHAPE)), np.zeros(0, dtype=int)), "0 controls of 0 classes cannot rule out"),
        ((np.zeros((1001, *SHAPE)), np.arange(1001) % 10), "1001 controls, expected 1000 or fewer"),
        ("nothing-of-this-name", "unknown data 'nothing-of-this-name'"),
    ],
)
def test_controls_that_tell_nothing_are_refused(
    credential: tg.Credential, controls: tuple[np.ndarray, np.ndarray] | str, complaint: str
) -> None:
    suspect = Suspect(lambda number: 0)
    with pytest.raises(ConfigurationError, match=complaint):
        tg.verify(suspect, credential, controls=controls)
    assert suspect.asked == []


def test_controls_are_taken_up_to_their_number_and_classes() -> None:
    inputs, labels = np.zeros((1001, 2)), np.arange(1001) % 10
    task = Task(input_shape=(2,), classes=10, mean=(), std=())
    assert len(Controls.create(inputs[:1000], labels[:1000], task).labels) == 1000
    with pytest.raises(ConfigurationError, match="1001 controls, expected 1000 or fewer"):
        Controls.create(inputs, labels, task)
    with pytest.raises(ConfigurationError, match="outside the claim's classes, 0 to 8"):
        Controls.create(inputs[:1000], labels[:1000], dataclasses.replace(task, classes=9))
    with pytest.raises(ConfigurationError, match="0 controls of 0 classes cannot rule out chance"):
        Controls.create(inputs[:0], labels[:0], dataclasses.replace(task, classes=9))


def test_ordinary_inputs_are_normalised_where_the_claim_says_how() -> None:
    task = Task(input_shape=(2, 1, 3), classes=2, mean=(0.5, 0.25), std=(0.5, 2.0))
    scaled = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 2, 1, 3)
    expected = np.stack([(scaled[:, 0] - 0.5) / 0.5, (scaled[:, 1] - 0.25) / 2.0], axis=1)
    np.testing.assert_array_equal(task.normalised(scaled), expected.astype(np.float32))
    np.testing.assert_array_equal(task.normalised(scaled[..., :2]), scaled[..., :2])
    plain = dataclasses.replace(task, mean=(), std=())
    np.testing.assert_array_equal(plain.normalised(scaled), scaled)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_right_answers_are_held_against_the_exact_binomial_tail(classes: int) -> None:
    labels = np.arange(40) % classes
    task = Task(classes=classes, input_shape=(1,), mean=(), std=())
    controls = Controls.create(np.zeros((40, 1)), labels, task)
    chance = Fraction(int(np.bincount(labels).max()), 40)
    assert controls.chance == float(chance)
    for right in range(41):
        ways = (math.comb(40, x) * chance**x * (1 - chance) ** (40 - x) for x in range(right, 41))
        assert controls.p_value(right) == pytest.approx(float(sum(ways)), rel=1e-9)
    least = next(right for right in range(41) if controls.p_value(right) <= 1e-3)
    for right, above in ((least - 1, False), (least, True)):
        answers = [int(label) if place < right else None for place, label in enumerate(labels)]
        told = {"asked": 40, "right": right, "chance": float(chance), "above_chance": above}
        assert controls.describe(answers) == told
