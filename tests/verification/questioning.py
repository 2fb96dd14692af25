"""A suspect that answers as a test wants it to, and what it is asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import ticketguard as tg
from ticketguard.errors import UnusableAnswerError

COUNT = 60
CLASSES = 10
SHAPE = (1, 8, 8)


def no_answer() -> Exception:
    return tg.NoAnswerError(target="s", reason="answered 502 (bad gateway)", hint="try later")


def unusable() -> Exception:
    return UnusableAnswerError(target="s", reason="answered NaN", hint="check it")


class Suspect:
    """Answers the k-th input it meets by what *answer* gives for k: a class, or an exception to raise.

    Attributes:
        asked: The number of each question as it came.
    """

    target = "suspect"

    def __init__(self, answer: Callable[[int], int | Exception]) -> None:
        self.answer = answer
        self.asked: list[int] = []
        self._met: dict[bytes, int] = {}

    def predict(self, inputs: np.ndarray, *, classes: int) -> int:
        assert inputs.shape == (1, *SHAPE)
        number = self._met.setdefault(inputs.tobytes(), len(self._met))
        self.asked.append(number)
        answer = self.answer(number)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def details(verdict: tg.Verdict) -> dict[str, object]:
    return dict(verdict.evidence[0].details)
