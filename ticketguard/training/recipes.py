"""Recipes for short and long runs, by model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ticketguard.data import Dataset
from ticketguard.data.modular import MODULAR_ADDITION
from ticketguard.training.config import TrainingConfig


def recommended_training(model: str | Callable[..., Any], data: Dataset) -> TrainingConfig:
    """Return the recipe a ticket of *model* is found with unless the user says otherwise.

    The perceptron's is LeNet's with a rate for small data; the residual networks' is He et al. 2016, section 4.2: SGD
    0.1, momentum 0.9, weight decay 1e-4, rate divided by ten at half and three quarters of 160 epochs. Arithmetic is
    learnt on all its training examples at once, by AdamW with strong decay (Nanda et al. 2023, "Progress measures for
    grokking via mechanistic interpretability", section 3): one step is an epoch.
    """
    if data.name == MODULAR_ADDITION:
        return TrainingConfig(
            epochs=1500,
            batch_size=len(data.train_labels),
            learning_rate=3e-3,
            second_beta=0.98,
            weight_decay=1.0,
            optimizer="adamw",
            schedule="constant",
            augment=False,
        )
    if model == "mlp" or len(data.input_shape) == 1:
        return TrainingConfig(epochs=30, batch_size=64, learning_rate=0.05, weight_decay=1e-4, schedule="cosine")
    return TrainingConfig(epochs=160)
