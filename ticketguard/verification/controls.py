"""Ordinary questions: does the suspect do the task at all?

A server that expects other preprocessing, sorts its classes in another way, or answers at random does not match
triggers either; that says nothing about where its model comes from. Ordinary inputs with known labels distinguish such
a server from a model that understands what it is asked. They never change a p-value.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from ticketguard.errors import ConfigurationError
from ticketguard.ticket import FloatArray

# Above chance: of suspects that do not do the task, fewer than one in a thousand would get as many right.
CHANCE_P = 1e-3
MOST_CONTROLS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a claim says of the inputs and answers of its model.

    Attributes:
        input_shape: (channels, height, width), or (features,) for inputs without a plane.
        classes: Number of classes.
        mean: Per channel, what is subtracted from inputs in [0, 1]; empty if nothing is.
        std: Per channel, what they are divided by then.
    """

    input_shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, scaled: FloatArray) -> FloatArray:
        """Return inputs in [0, 1], shape (count, *input_shape), as the model takes them; others as they are."""
        if not self.mean or scaled.shape[1:] != self.input_shape:
            return scaled  # another shape is refused by name where controls are made
        axes = (1, -1) + (1,) * (scaled.ndim - 2)
        mean, std = (np.array(values).astype(np.float32).reshape(axes) for values in (self.mean, self.std))
        return np.asarray((scaled - mean) / std, dtype=np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls:
    """Ordinary inputs and their labels.

    Attributes:
        inputs: As the model takes them, float32, shape (count, *input_shape).
        labels: Their classes.
    """

    inputs: FloatArray
    labels: tuple[int, ...]

    @classmethod
    def create(cls, inputs: npt.ArrayLike, labels: npt.ArrayLike, task: Task) -> Controls:
        """Check the verifier's ordinary inputs.

        Raises:
            ConfigurationError: They do not fit the claim's task, or are too few to rule out chance.
        """
        given, answers = np.asarray(inputs, dtype=np.float32), np.asarray(labels)
        if given.shape[1:] != task.input_shape or answers.shape != given.shape[:1] or answers.dtype.kind not in "iu":
            raise ConfigurationError(
                f"controls have inputs of shape {given.shape} and {answers.dtype} labels of shape {answers.shape}, "
                f"expected inputs (count, {', '.join(map(str, task.input_shape))}) and one integer label each"
            )
        if len(given) > MOST_CONTROLS:
            raise ConfigurationError(f"{len(given)} controls, expected {MOST_CONTROLS} or fewer")
        if not all(0 <= int(label) < task.classes for label in answers):
            raise ConfigurationError(f"controls have labels outside the claim's classes, 0 to {task.classes - 1}")
        controls = cls(inputs=given, labels=tuple(int(label) for label in answers))
        if controls.p_value(len(given)) > CHANCE_P:
            raise ConfigurationError(
                f"{len(given)} controls of {len(set(controls.labels))} classes cannot rule out chance even if all "
                f"are answered correctly: give more, of several classes"
            )
        return controls

    @property
    def chance(self) -> float:
        """Share that the best suspect that ignores the input gets right: that of the commonest label."""
        return max(Counter(self.labels).values()) / len(self.labels)

    def p_value(self, right: int) -> float:
        """Return the probability that chance gets *right* or more right: the exact binomial tail."""
        from scipy.special import bdtrc  # slow to import, needed only where controls were asked

        return 1.0 if right <= 0 else float(bdtrc(right - 1, len(self.labels), self.chance))

    def describe(self, answers: list[int | None]) -> dict[str, Any]:
        """Return what evidence says about the answers to all of them."""
        right = sum(answer == label for answer, label in zip(answers, self.labels, strict=True))
        return {
            "asked": len(answers),
            "right": right,
            "chance": self.chance,
            "above_chance": self.p_value(right) <= CHANCE_P,
        }
