"""The interface between a black-box verification and whatever answers it, and the one way to read an answer."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ticketguard.errors import PredictorError, UnusableAnswerError
from ticketguard.printable import printable
from ticketguard.ticket import Array, FloatArray


class Predictor(Protocol):
    """Something that classifies one input at a time.

    Attributes:
        target: What errors and reports call it: an endpoint, file or function.
    """

    @property
    def target(self) -> str:
        """Return what errors and reports call it."""
        ...

    def predict(self, inputs: FloatArray, *, classes: int) -> int:
        """Answer one input.

        Args:
            inputs: One input as the model takes it, float32, shape (1, *input_shape).
            classes: Number of classes K that an answer must have.

        Returns:
            The predicted class, in range(classes).

        Raises:
            NoAnswerError: There was no answer; asked again, there may be one.
            UnusableAnswerError: The answer is not a prediction over *classes* classes.
            PredictorError: It cannot be asked, now or later.
        """
        ...


def read_answer(answer: Array, *, classes: int, target: str) -> int:
    """Turn scores of shape (1, K) or (K,), or one integer label, into a class; ties go to the lowest class.

    Raises:
        UnusableAnswerError: The answer has another number of classes, is not finite, or is not a number.
    """
    if answer.dtype.kind not in "fiu":
        raise UnusableAnswerError(
            target=target,
            reason=f"answered with type {printable(str(answer.dtype), limit=40)}, expected numbers",
            hint="it must return scores (1, classes) or a label",
        )
    if answer.dtype.kind in "iu" and answer.size == 1:
        label = int(answer.reshape(()))
        if not 0 <= label < classes:
            raise UnusableAnswerError(
                target=target,
                reason=f"answered class {label}, expected 0 to {classes - 1}",
                hint="check that the suspect solves the credential's task",
            )
        return label
    if answer.shape not in ((classes,), (1, classes)):
        raise UnusableAnswerError(
            target=target,
            reason=f"answered with shape {answer.shape}, expected (1, {classes})",
            hint=f"check that the suspect solves the credential's task with {classes} classes",
        )
    if not np.isfinite(answer).all():
        raise UnusableAnswerError(
            target=target, reason="answered NaN or infinity", hint="check the suspect on an ordinary input"
        )
    return int(answer.argmax())


def check_input_shape(inputs: FloatArray, expected: tuple[int | None, ...] | None, *, target: str) -> None:
    """Compare an input with the shape a model declares; None is any size, and any shape if nothing is declared.

    Raises:
        PredictorError: The shapes differ.
    """
    if expected is None:
        return
    fits = len(expected) == inputs.ndim and all(
        size is None or size == actual for size, actual in zip(expected, inputs.shape, strict=True)
    )
    if not fits:
        declared = tuple("any" if size is None else size for size in expected)
        raise PredictorError(
            target=target,
            reason=f"takes inputs of shape {declared}, expected {inputs.shape}",
            hint="check that the suspect solves the credential's task",
        )
