"""What a pruning method is given and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ticketguard.data import Dataset
from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, prunable_layers
from ticketguard.ticket import Ticket, TicketInfo
from ticketguard.training import NoProgress, Progress, TrainingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """A ticket to be found.

    Attributes:
        model: The model's name, import path or factory.
        model_options: Arguments of its factory, classes and input shape among them.
        data: The data set.
        data_name: How the data is named in the ticket.
        data_options: Arguments of its loader.
        density: Kept fraction of the prunable weights, in (0, 1).
        training: The recipe of the final training.
        seed: Fixes initialisation, order and augmentation.
        method_options: Arguments of the method.
        workdir: Folder for checkpoints; None to keep none.
        resume: Go on from the checkpoints in *workdir*.
        progress: Where progress is shown.
    """

    model: str | Callable[..., nn.Module]
    model_options: Mapping[str, Any]
    data: Dataset
    data_name: str
    data_options: Mapping[str, Any]
    density: float
    training: TrainingConfig
    seed: int = 0
    method_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    workdir: Path | None = None
    resume: bool = False
    progress: Progress = dataclasses.field(default_factory=NoProgress)

    def __post_init__(self) -> None:
        if not 0.0 < self.density < 1.0:
            raise ConfigurationError(f"density is {self.density}, expected above 0 and below 1")

    @property
    def model_name(self) -> str:
        """The model's name or import path, as the ticket says it."""
        return self.model if isinstance(self.model, str) else f"{self.model.__module__}:{self.model.__qualname__}"

    def build(self) -> nn.Module:
        """Return the model at initialisation.

        Raises:
            ConfigurationError: It has no prunable layers, or fewer kept weights than layers.
        """
        network = build_model(self.model, options=self.model_options, seed=self.seed)
        layers = prunable_layers(network)
        if not layers:
            raise ConfigurationError(f"model '{self.model}' has no convolution or linear layers to prune")
        state = network.state_dict()
        positions = sum(state[name].numel() for name in layers)
        if round(self.density * positions) < len(layers):
            raise ConfigurationError(
                f"density {self.density:g} keeps {round(self.density * positions)} of {positions} weights, fewer than "
                f"the model's {len(layers)} layers: raise it"
            )
        return network

    def info(self, method: str, **measured: Any) -> TicketInfo:
        """Return the ticket's metadata, with what the method *measured*."""
        return TicketInfo(
            method=method,
            model=self.model_name,
            model_options=self.model_options,
            data=self.data_name,
            data_options=self.data_options,
            training=self.training.to_json(),
            seed=self.seed,
            classes=self.data.classes,
            input_shape=self.data.input_shape,
            input_mean=self.data.mean,
            input_std=self.data.std,
            **measured,
        )


class PruningMethod(Protocol):
    """A way to find a ticket."""

    @property
    def name(self) -> str:
        """The name users select it by."""
        ...

    def find(self, problem: SearchProblem) -> Ticket:
        """Return a ticket of the problem's density."""
        ...
