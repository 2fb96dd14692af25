"""Asking again: what a predictor's transient faults may cost before asking stops.

Pauses grow without chance in them, so that a verification is the same twice: a quarter of a second, then twice as long
each time up to half a minute, or as long as the suspect asks for (RFC 9110, 10.2.3) if that is longer.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

from ticketguard.errors import ConfigurationError, NoAnswerError
from ticketguard.predictors.interface import Predictor
from ticketguard.settings import plain_number
from ticketguard.ticket import FloatArray

DEFAULT_PATIENCE_S = 300.0
# A day, in which any quota is renewed.
LONGEST_PATIENCE_S = 86_400.0
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0

Note = Callable[[str], None]


def say_nothing(text: str) -> None:
    """Drop a note."""


class Patience:
    """Seconds that may be lost to faults, in all questions together: failed attempts and the pauses after them.

    Answers cost nothing, however slow they are: each has the predictor's own time limit. When the patience ends, the
    question is put one last time.

    Args:
        seconds: How many; with 0 nothing is asked twice.
        note: Called with a line about every fault.

    Raises:
        ConfigurationError: *seconds* is no number, negative, or more than a day.
    """

    def __init__(self, seconds: float = DEFAULT_PATIENCE_S, *, note: Note = say_nothing) -> None:
        seconds = plain_number(seconds, what="patience")
        if not 0.0 <= seconds <= LONGEST_PATIENCE_S:
            raise ConfigurationError(f"patience is {seconds} s, expected 0 to {LONGEST_PATIENCE_S:g}")
        self._left_s = float(seconds)
        self._note = note

    def ask(self, predictor: Predictor, inputs: FloatArray, *, classes: int) -> int:
        """Ask *predictor* until it answers, or the patience ends.

        Raises:
            NoAnswerError: The patience ended.
            PredictorError: The answer is not a prediction, or asking again is of no use.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            started = monotonic()
            try:
                return predictor.predict(inputs, classes=classes)
            except NoAnswerError as error:
                self._left_s -= monotonic() - started
                if self._left_s <= 0.0:
                    raise
                self._wait(max(pause_s, error.retry_after_s), error)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _wait(self, pause_s: float, error: NoAnswerError) -> None:
        pause_s = min(pause_s, self._left_s)
        self._left_s -= pause_s
        self._note(
            f"predictor '{error.target}' {error.reason}: asking again in {pause_s:.3g} s, "
            f"{self._left_s:.0f} s of patience left"
        )
        sleep(pause_s)
