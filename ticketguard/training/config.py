"""How a network is trained: the recipe, the hooks a mark trains through, and where progress is shown."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch

from ticketguard.errors import ConfigurationError

# Fields of a recipe that are words or switches; all others but the milestones are numbers.
_WORDS = frozenset({"optimizer", "schedule", "augment", "precision", "device", "compile"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training recipe.

    Attributes:
        epochs: Passes over the training data; a fraction stops within one.
        batch_size: Examples in a batch, over all processes together.
        learning_rate: Rate at the start.
        momentum: SGD's momentum, or Adam's first beta.
        second_beta: Adam's second beta: how long it averages squared gradients.
        weight_decay: L2 penalty (SGD, Adam) or decoupled decay (AdamW).
        optimizer: "sgd", "adam" or "adamw".
        schedule: "step" multiplies the rate by *gamma* at each milestone, "cosine" anneals it to zero, "constant".
        milestones: Fractions of the run at which the rate drops.
        gamma: Factor of each drop.
        clip_norm: Largest gradient norm; 0 for no clipping.
        augment: Whether images are shifted and mirrored, as far as the data set allows.
        precision: "fp32", "bf16", "fp16", or "auto": bf16 on an accelerator that computes in it, fp32 elsewhere.
        device: "auto" (an accelerator where there is one), or "cpu".
        compile: Whether the network is compiled first, which takes up to minutes and rounds differently: for long runs
            of large networks.
    """

    epochs: float
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    second_beta: float = 0.999
    weight_decay: float = 1e-4
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    clip_norm: float = 0.0
    augment: bool = True
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    device: Literal["auto", "cpu"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate"):
            if not (0 < getattr(self, name) < math.inf):
                raise ConfigurationError(f"training: {name} is {getattr(self, name)}, expected above 0")
        for name in ("momentum", "weight_decay", "gamma", "clip_norm"):
            if not (0 <= getattr(self, name) < math.inf):
                raise ConfigurationError(f"training: {name} is {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.second_beta < 1:
            raise ConfigurationError(f"training: second_beta is {self.second_beta}, expected 0 or more and below 1")
        if self.batch_size < 1:
            raise ConfigurationError(f"training: batch_size is {self.batch_size}, expected 1 or more")
        for name, known in (
            ("optimizer", ("sgd", "adam", "adamw")),
            ("schedule", ("step", "cosine", "constant")),
            ("precision", ("fp32", "bf16", "fp16", "auto")),
            ("device", ("auto", "cpu")),
            ("compile", (False, True)),
        ):
            if getattr(self, name) not in known:
                raise ConfigurationError(
                    f"training: {name} is {getattr(self, name)!r}, expected one of {', '.join(map(str, known))}"
                )

    def rate_at(self, progress: float) -> float:
        """Return the learning rate after a fraction *progress*, in [0, 1), of the run."""
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        if self.schedule == "step":
            return self.learning_rate * self.gamma ** sum(progress >= milestone for milestone in self.milestones)
        return self.learning_rate

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**dataclasses.asdict(self), "milestones": list(self.milestones)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainingConfig:
        """Undo `to_json`.

        Raises:
            ConfigurationError: A field is missing, unknown or out of range.
        """
        try:
            for name, value in document.items():
                kinds = (str, bool) if name in _WORDS else (list, tuple) if name == "milestones" else (int, float)
                if type(value) not in kinds or any(type(item) not in (int, float) for item in document["milestones"]):
                    raise TypeError(f"{name} is {reprlib.repr(value)}")
            return cls(**{**document, "milestones": tuple(document["milestones"])})
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"training recipe is malformed ({error}): give epochs and rate anew") from error


class Hooks(Protocol):
    """What takes part in a training loop besides the data: a mark that is being embedded."""

    def start(self, model: torch.nn.Module) -> None:
        """Set the weights that training starts from."""
        ...

    def seek(self, step: int) -> None:
        """Go on as after *step* finished steps."""
        ...

    def extra_batch(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return normalised inputs and labels to append to the next batch."""
        ...

    def after_step(self, model: torch.nn.Module) -> None:
        """Correct the weights after an optimiser step."""
        ...


class NoHooks:
    """Nothing takes part."""

    def start(self, model: torch.nn.Module) -> None:
        """Leave the weights as they are."""

    def seek(self, step: int) -> None:
        """Nothing to go on with."""

    def extra_batch(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return nothing."""
        return None

    def after_step(self, model: torch.nn.Module) -> None:
        """Leave the weights as they are."""


class Watch(Protocol):
    """Looks on while a network trains, and may end the run early."""

    @property
    def identity(self) -> str:
        """What it looks for, for the run's checkpoint."""
        ...

    def after_step(self, step: int, model: torch.nn.Module) -> bool:
        """Look at the model after *step* finished steps, without changing it; true ends the run."""
        ...

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return what was seen so far, by name: it is kept in the run's checkpoint."""
        ...

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `tensors` returned."""
        ...


class Progress(Protocol):
    """Where long work is shown."""

    def begin(self, description: str, total: int) -> None:
        """Start a bar of *total* steps."""
        ...

    def advance(self, count: int = 1) -> None:
        """Move the bar on."""
        ...

    def end(self) -> None:
        """Finish the bar."""
        ...


class NoProgress:
    """Show nothing."""

    def begin(self, description: str, total: int) -> None:
        """Do nothing."""

    def advance(self, count: int = 1) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""
