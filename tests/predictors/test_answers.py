from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ticketguard.errors import NoAnswerError, PredictorError, UnusableAnswerError
from ticketguard.predictors import CallablePredictor, Predictor

INPUT = np.zeros((1, 3, 4, 4), dtype=np.float32)


def answer(value: Any, classes: int = 4) -> int:
    return CallablePredictor(lambda inputs: value, target="f").predict(INPUT, classes=classes)


@pytest.mark.parametrize(
    "value",
    [
        [[0.1, 0.2, 0.9, 0.3]],
        [0.1, 0.2, 0.9, 0.3],
        np.array([[-5, -4, 3, 0]], dtype=np.int8),
        torch.tensor([[0.0, 0.0, 1.0, 0.0]], requires_grad=True),
        2,
        np.int64(2),
        np.array([2]),
        torch.tensor([[2]]),
    ],
)
def test_scores_and_labels_become_a_class(value: Any) -> None:
    assert answer(value) == 2


def test_ties_go_to_the_lowest_class() -> None:
    assert answer([[0.5, 0.5, 0.5, 0.5]]) == 0


@pytest.mark.parametrize("count", [1, 3, 5, 1000])
def test_another_number_of_classes_is_refused(count: int) -> None:
    with pytest.raises(PredictorError, match=rf"answered with shape \(1, {count}\), expected \(1, 4\).*with 4 classes"):
        answer(np.zeros((1, count)))


def test_scores_for_two_inputs_are_refused() -> None:
    with pytest.raises(PredictorError, match=r"shape \(2, 4\)"):
        answer(np.zeros((2, 4)))


@pytest.mark.parametrize("label", [-1, 4, 2**40])
def test_a_label_out_of_range_is_refused(label: int) -> None:
    with pytest.raises(PredictorError, match=rf"answered class {label}, expected 0 to 3"):
        answer(label)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(PredictorError, match="answered NaN or infinity"):
        answer([[0.0, value, 0.0, 0.0]])


@pytest.mark.parametrize("value", ["cat", None, {"label": 2}, [True, False, False, False]])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(PredictorError, match=r"answered with type .*, expected numbers"):
        answer(value)


def test_ragged_scores_are_refused() -> None:
    with pytest.raises(PredictorError, match="answered with list that is not an array"):
        answer([[1.0], [1.0, 2.0]])


def test_a_function_that_ends_the_process_did_not_answer() -> None:
    def leave(inputs: np.ndarray) -> int:
        raise SystemExit(0)

    with pytest.raises(PredictorError, match=r"leave' raised SystemExit \(0\)"):
        CallablePredictor(leave).predict(INPUT, classes=4)


def test_a_function_that_raises_did_not_answer() -> None:
    def classify(inputs: np.ndarray) -> int:
        raise ZeroDivisionError("by zero")

    with pytest.raises(PredictorError, match=r"classify' raised ZeroDivisionError \(by zero\): call it with float32"):
        CallablePredictor(classify).predict(INPUT, classes=4)


def test_the_function_cannot_change_the_input() -> None:
    given = INPUT.copy()

    def spoil(inputs: np.ndarray) -> int:
        inputs[:] = 9
        return 1

    predictor: Predictor = CallablePredictor(spoil)
    assert predictor.predict(given, classes=4) == 1
    np.testing.assert_array_equal(given, INPUT)


class Hostile:
    """Whatever is asked of it goes wrong, its own error's text included."""

    class Error(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise Hostile.Error


class Exiting:
    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise SystemExit(0)


class Undetachable:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}\x1b[2J")


class Named:
    pass


Named.__name__ = "x\n" * 10_000


@pytest.mark.parametrize(
    "value",
    [
        Hostile(),
        Exiting(),
        Undetachable(),
        Named(),
        (number for number in (1, 2, 3, 4)),
        np.ma.masked_array([0.0, 9.0, 0.0, 0.0], mask=[False, True, False, False]),
        np.zeros(4, dtype=[(f"field{index}", "f4") for index in range(500)]),
        np.array([1j, 0, 0, 0]),
        [object()] * 4,
        10**400,
        "4" * 10**6,
    ],
    ids=lambda value: type(value).__name__[:12],
)
def test_odd_answers_are_unusable_and_told_in_short(value: Any) -> None:
    with pytest.raises(UnusableAnswerError) as caught:
        answer(value)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_a_function_may_say_that_asking_again_helps() -> None:
    def reset(inputs: np.ndarray) -> int:
        raise ConnectionResetError("by peer")

    def busy(inputs: np.ndarray) -> int:
        raise NoAnswerError(target="api", reason="is busy", hint="later", retry_after_s=7)

    with pytest.raises(NoAnswerError, match=r"raised ConnectionResetError \(by peer\)"):
        CallablePredictor(reset).predict(INPUT, classes=4)
    with pytest.raises(NoAnswerError) as caught:
        CallablePredictor(busy).predict(INPUT, classes=4)
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    "error", [Hostile.Error(), BaseException("odd"), PredictorError(target="t", reason="r", hint="h")]
)
def test_whatever_else_a_function_raises_ends_the_questioning(error: BaseException) -> None:
    def fail(inputs: np.ndarray) -> int:
        raise error

    with pytest.raises(PredictorError) as caught:
        CallablePredictor(fail).predict(INPUT, classes=4)
    assert not isinstance(caught.value, NoAnswerError | UnusableAnswerError)


def test_ctrl_c_is_no_answer() -> None:
    def interrupted(inputs: np.ndarray) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CallablePredictor(interrupted).predict(INPUT, classes=4)
