"""Watching a run: when a network first fits its training data, and when it first answers what it has not seen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ticketguard.data import Dataset
from ticketguard.errors import ConfigurationError
from ticketguard.training.loop import evaluate


class AccuracyWatch:
    """Notes the first steps at which accuracies reach *level*, and ends a run that is accurate enough.

    Args:
        data: What accuracies are measured on.
        every: Steps from one measurement to the next.
        level: Accuracy in [0, 1] whose first steps are noted.
        until_train: Training accuracy that ends the run; None for no end by it.
        until_test: Test accuracy that ends the run, likewise; with both given, both must be reached.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        every: int,
        level: float = 0.95,
        until_train: float | None = None,
        until_test: float | None = None,
    ) -> None:
        if every < 1:
            raise ConfigurationError(f"a run is to be watched every {every} steps, expected 1 or more")
        self._data, self._every, self._level = data, every, level
        self._until = (until_train, until_test)
        self._reached = [0, 0]

    @property
    def train_step(self) -> int | None:
        """The step after which training accuracy was first measured at the level; None if it never was."""
        return self._reached[0] or None

    @property
    def test_step(self) -> int | None:
        """The step after which test accuracy was first measured at the level; None if it never was."""
        return self._reached[1] or None

    @property
    def identity(self) -> str:
        """What is looked for."""
        return f"accuracy {self._every} {self._level} {self._until}"

    def after_step(self, step: int, model: nn.Module) -> bool:
        """Measure where a measurement is due; true where the run is to end."""
        if step % self._every:
            return False
        place = str(next(model.parameters()).device)  # a network in training stays where it is
        measured = (
            evaluate(model, self._data, device=place, part="train"),
            evaluate(model, self._data, device=place),
        )
        for number, accuracy in enumerate(measured):
            if accuracy >= self._level and not self._reached[number]:
                self._reached[number] = step
        wanted = [(accuracy, until) for accuracy, until in zip(measured, self._until, strict=True) if until is not None]
        return bool(wanted) and all(accuracy >= until for accuracy, until in wanted)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return the steps noted so far; 0 for none."""
        return {"reached": torch.tensor(self._reached, dtype=torch.int64)}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Undo `tensors`."""
        self._reached = tensors["reached"].tolist()
