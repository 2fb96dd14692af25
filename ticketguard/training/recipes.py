"""Recipes for short and long runs, by model."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from ticketguard.data import Dataset
from ticketguard.data.modular import MODULAR_ADDITION
from ticketguard.errors import UntrustedNameError
from ticketguard.ticket import Ticket
from ticketguard.training.config import TrainingConfig, checked_changes

# What a ticket's file may ask for without the user's word: six times the longest recipe here, and batches of 8 million
# values, which is 2700 images of CIFAR-10.
MOST_EPOCHS, MOST_BATCH_VALUES = 10_000, 2**23


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


def training_of(
    ticket: Ticket,
    data: Dataset,
    *,
    model: str | Callable[..., Any] | None = None,
    changes: TrainingConfig | Mapping[str, Any] | None = None,
) -> TrainingConfig:
    """Return the recipe of *ticket*: the one place where what a ticket says of its training is used.

    A ticket that was read from a file may be a stranger's: whether the network is compiled, which runs a compiler, is
    not for its file to say, and neither are runs without end.

    Args:
        ticket: Says its recipe; one that does not is trained as is recommended.
        data: What it is trained on.
        model: Takes the place of the ticket's model.
        changes: Another recipe, or changes to the ticket's.

    Raises:
        ConfigurationError: The recipe is malformed, or so are the changes.
        UntrustedNameError: A file names a huge number of epochs or a huge batch, and *changes* do not.
    """
    if isinstance(changes, TrainingConfig):
        return changes
    info, changes = ticket.info, checked_changes(changes)
    # Whatever the ticket's own recipe is, errors in the changes are reported as such.
    recommended = recommended_training(model or info.model, data).changed(changes)
    if not info.training:
        return recommended
    recipe = TrainingConfig.from_json({**info.training, **changes})
    if not info.from_file:
        return recipe
    values = min(recipe.batch_size, len(data.train_labels)) * math.prod(data.input_shape)
    for name, flag, is_huge in (
        ("epochs", "--epochs", recipe.epochs > MOST_EPOCHS),
        ("batch_size", "--batch-size", values > MOST_BATCH_VALUES),
    ):
        if is_huge and name not in changes:
            raise UntrustedNameError(
                names=f"{name} = {reprlib.repr(getattr(recipe, name))}",
                deed="trained for that long" if name == "epochs" else "trained in batches so large",
                repeat=f"repeat it with {flag} (training=...)",
            )
    return recipe if "compile" in changes else dataclasses.replace(recipe, compile=False)
