"""How a network is trained: the recipe, the hooks a mark trains through, and where progress is shown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch

from ticketguard.errors import ConfigurationError, shortened
from ticketguard.settings import checked_options, plain_number


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
        self._make_numbers_plain()
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
            ("augment", (False, True)),
            ("compile", (False, True)),
        ):
            value = getattr(self, name)
            if type(value) is not type(known[0]) or value not in known:
                raise ConfigurationError(
                    f"training: {name} is {shortened(value)}, expected one of {', '.join(map(str, known))}"
                )

    def _make_numbers_plain(self) -> None:
        """Take the place of whatever numbers were given by Python's own; nobody has seen the recipe yet.

        Raises:
            ConfigurationError: A field is of another kind.
        """
        for name in ("epochs", "learning_rate", "momentum", "second_beta", "weight_decay", "gamma", "clip_norm"):
            object.__setattr__(self, name, plain_number(getattr(self, name), what=f"training: {name}"))
        object.__setattr__(self, "batch_size", plain_number(self.batch_size, what="training: batch_size", whole=True))
        given: object = self.milestones
        if not isinstance(given, list | tuple):
            raise ConfigurationError(f"training: milestones is {shortened(given)}, expected a list of numbers")
        milestones = tuple(plain_number(value, what="training: a milestone") for value in given)
        object.__setattr__(self, "milestones", milestones)

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

    def changed(self, changes: Mapping[str, Any] | None) -> TrainingConfig:
        """Return this recipe with a user's *changes*, by field.

        Raises:
            ConfigurationError: A field is unknown, of another kind or out of range.
        """
        return dataclasses.replace(self, **checked_changes(changes))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainingConfig:
        """Undo `to_json`.

        Raises:
            ConfigurationError: A field is missing, unknown, of another kind or out of range.
        """
        try:
            return cls(**{**document, "milestones": document["milestones"]})
        except (KeyError, TypeError, ConfigurationError) as error:
            raise ConfigurationError(f"training recipe is malformed ({error}): give epochs and rate again") from error


def checked_changes(given: object) -> dict[str, Any]:
    """Return a user's changes to a recipe, by field.

    Raises:
        ConfigurationError: They are not a mapping, or name something that is not a field.
    """
    known = [field.name for field in dataclasses.fields(TrainingConfig)]
    return checked_options(given, what="training option", known=known)


class Hooks(Protocol):
    """What takes part in a training loop besides the data: a mark that is being embedded."""

    def start(self, model: torch.nn.Module, *, steps: int) -> None:
        """Set the weights that training starts from, for so many *steps*."""
        ...

    def state(self) -> Mapping[str, Sequence[int]]:
        """Return what `seek` has to know beside the step: it is kept in the run's checkpoint."""
        ...

    def seek(self, step: int, state: Mapping[str, Sequence[int]]) -> None:
        """Continue as after *step* finished steps, when `state` returned *state*."""
        ...

    def extra_batch(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return normalised inputs and labels to append to the next batch."""
        ...

    def after_step(self, model: torch.nn.Module) -> None:
        """Correct the weights after an optimiser step."""
        ...


class NoHooks:
    """Nothing takes part."""

    def start(self, model: torch.nn.Module, *, steps: int) -> None:
        """Leave the weights as they are."""

    def state(self) -> Mapping[str, Sequence[int]]:
        """There is nothing to know."""
        return {}

    def seek(self, step: int, state: Mapping[str, Sequence[int]]) -> None:
        """Nothing to continue from."""

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
        """Continue from what `tensors` returned."""
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
