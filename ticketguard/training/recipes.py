"""Recipes for short and long runs, by model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ticketguard.data import Dataset
from ticketguard.training.config import TrainingConfig


def recommended_training(model: str | Callable[..., Any], data: Dataset) -> TrainingConfig:
    """Return the recipe a ticket of *model* is found with unless the user says otherwise.

    The perceptron's is LeNet's with a rate for small data; the residual networks' is He et al. 2016, section 4.2: SGD
    0.1, momentum 0.9, weight decay 1e-4, rate divided by ten at half and three quarters of 160 epochs.
    """
    if model == "mlp" or len(data.input_shape) == 1:
        return TrainingConfig(epochs=30, batch_size=64, learning_rate=0.05, weight_decay=1e-4, schedule="cosine")
    return TrainingConfig(epochs=160)
