"""A Python function as a black-box suspect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ticketguard.errors import PredictorError
from ticketguard.suspects.predictors.interface import read_answer
from ticketguard.ticket import FloatArray


class CallablePredictor:
    """A function that takes an input and returns scores or a label.

    The function is the caller's own code and is run as such.

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
            PredictorError: The function raised, or returned no prediction over *classes* classes.
        """
        try:
            answer = self._function(np.array(inputs, dtype=np.float32))
        # Whatever the function raises is its failure to answer, and so is its attempt to end the process.
        except (Exception, SystemExit) as error:
            raise PredictorError(
                target=self.target,
                reason=f"raised {type(error).__name__} ({' '.join(str(error).split())[:200]})",
                hint=f"call it with float32 of shape {inputs.shape} to see why",
            ) from error
        try:
            scores = np.asarray(answer.detach().cpu().numpy() if hasattr(answer, "detach") else answer)
        except (ValueError, TypeError, RuntimeError) as error:
            raise PredictorError(
                target=self.target,
                reason=f"answered with {type(answer).__name__} that is no array ({error})",
                hint="it must return scores (1, classes) or a label",
            ) from error
        return read_answer(scores, classes=classes, target=self.target)
