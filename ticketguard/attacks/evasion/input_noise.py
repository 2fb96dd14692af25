"""Blur what the owner asks: noise on every input hardly changes ordinary answers, and may change those to triggers."""

from __future__ import annotations

import dataclasses

import numpy as np

from ticketguard.errors import ConfigurationError
from ticketguard.predictors import Predictor
from ticketguard.ticket import FloatArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputNoise:
    """Add Gaussian noise to every input.

    Attributes:
        deviation: Its standard deviation, in units of the model's inputs, above 0.
    """

    deviation: float

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ConfigurationError(f"input noise: deviation is {self.deviation}, expected above 0")

    @property
    def name(self) -> str:
        """The attack in a few words, with its strength."""
        return f"noise of {self.deviation:g} on every input"

    def run(self, predictor: Predictor, *, generator: np.random.Generator) -> Predictor:
        """Return the same predictor, asked through noise."""
        return _Noisy(predictor, self.deviation, generator)


class _Noisy:
    def __init__(self, predictor: Predictor, deviation: float, generator: np.random.Generator) -> None:
        self._predictor, self._deviation, self._generator = predictor, deviation, generator

    @property
    def target(self) -> str:
        return self._predictor.target

    def predict(self, inputs: FloatArray, *, classes: int) -> int:
        noise = self._generator.normal(scale=self._deviation, size=inputs.shape)
        return self._predictor.predict((inputs + noise).astype(np.float32), classes=classes)
