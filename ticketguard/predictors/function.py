"""A Python function as a black-box suspect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ticketguard.errors import NoAnswerError, PredictorError, UnusableAnswerError
from ticketguard.predictors.interface import read_answer
from ticketguard.printable import printable
from ticketguard.ticket import Array, FloatArray


class CallablePredictor:
    """A function that takes an input and returns scores or a label.

    The function is the caller's own code and is run as such. Where it asks a server, it says that asking again may help
    by raising `ConnectionError`, `TimeoutError` or `NoAnswerError`; whatever else it raises ends the questioning.

    Args:
        function: Takes float32 of shape (1, *input_shape); returns scores of shape (1, K) or (K,), or an integer
            label, as array, torch tensor, list or number.
        target: What errors and reports call it; default: the function's name.
    """

    def __init__(self, function: Callable[[FloatArray], Any], *, target: str | None = None) -> None:
        self._function = function
        self._target = target or str(getattr(function, "__qualname__", type(function).__name__))

    @property
    def target(self) -> str:
        """Return what errors and reports call it."""
        return self._target

    def predict(self, inputs: FloatArray, *, classes: int) -> int:
        """Answer one input.

        Raises:
            NoAnswerError: The function says that it was not answered this time.
            UnusableAnswerError: It returned something that is not a prediction over *classes* classes.
            PredictorError: It raised.
        """
        try:
            answer = self._function(np.array(inputs, dtype=np.float32))
        except (PredictorError, KeyboardInterrupt):
            raise
        # Whatever else the function raises is its failure to answer, and so is its attempt to end the process.
        except BaseException as error:
            kind = NoAnswerError if isinstance(error, ConnectionError | TimeoutError) else PredictorError
            raise kind(
                target=self.target,
                reason=f"raised {_told(error)}",
                hint=f"call it with float32 of shape {inputs.shape} to see why",
            ) from error
        return read_answer(self._as_array(answer), classes=classes, target=self.target)

    def _as_array(self, answer: object) -> Array:
        name = printable(type(answer).__name__, limit=40)
        try:
            tensor: Any = answer
            array: Any = np.ma.asarray(tensor.detach().cpu().numpy() if hasattr(answer, "detach") else answer)
            if np.ma.is_masked(array):
                raise ValueError("some of it is masked")
            return np.array(array.data)
        except KeyboardInterrupt:
            raise
        # An object makes itself an array by code of its own, which may raise anything.
        except BaseException as error:
            raise UnusableAnswerError(
                target=self.target,
                reason=f"answered with {name} that is not an array ({_told(error)})",
                hint="it must return scores (1, classes) or a label",
            ) from error


def _told(error: BaseException) -> str:
    """Return an exception's type and text, which may fail to print itself."""
    try:
        text = str(error)
    except Exception:
        text = "which cannot be printed"
    return f"{printable(type(error).__name__, limit=60)} ({printable(text, limit=200)})"
