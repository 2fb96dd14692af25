"""How a ticket is trained again: by what it says of itself, and by what takes its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ticketguard.data import Dataset, data_of
from ticketguard.errors import ConfigurationError
from ticketguard.ticket import Ticket
from ticketguard.training.config import TrainingConfig
from ticketguard.training.recipes import training_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retraining:
    """What a ticket is trained on, and how.

    Attributes:
        data: The data set.
        recipe: The recipe.
        model_name: How errors call the ticket's model.
    """

    data: Dataset
    recipe: TrainingConfig
    model_name: str


def retraining_of(
    ticket: Ticket,
    *,
    model: str | Callable[..., Any] | None,
    data: str | Dataset | Callable[..., Dataset] | None,
    data_options: Mapping[str, Any] | None,
    changes: TrainingConfig | Mapping[str, Any] | None,
) -> Retraining:
    """Return how *ticket* is trained again.

    Args:
        ticket: Says its model, data and recipe.
        model: Takes the place of the ticket's model.
        data: Takes the place of the ticket's data.
        data_options: Arguments of the data loader, or changes to those of the ticket.
        changes: Another recipe, or changes to the ticket's.

    Raises:
        ConfigurationError: The ticket does not name its model or data, and neither does the call; or as `training_of`.
        UntrustedNameError: The ticket is from a file that names an import path or folder, and the call does not.
        FileError: The data cannot be read.
    """
    info = ticket.info
    if not (model or info.model) or not (data or info.data):
        raise ConfigurationError(
            "the ticket does not name its model and data: give both as --model and --data (model=, data=)"
        )
    loaded = data_of(ticket, data=data, options=data_options)
    return Retraining(
        data=loaded,
        recipe=training_of(ticket, loaded, model=model, changes=changes),
        model_name=str(getattr(model, "__qualname__", model or info.model)),
    )
