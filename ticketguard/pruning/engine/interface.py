"""What a pruning method is given and what it gives back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ticketguard.data import Dataset
from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, load_arrays, prunable_layers, state_arrays, unwrapped_name
from ticketguard.pruning.engine import requirements
from ticketguard.pruning.engine.selection import full_mask, global_top_k
from ticketguard.ticket import Array, Mask, Ticket, TicketInfo, weights_digest
from ticketguard.training import Hooks, NoProgress, Progress, TrainingConfig
from ticketguard.training.checkpoint import run_identity

# What a user changes where the batches of the training do not suit.
BATCH_KNOB = "the training's batch_size"


class BoundPlanting(Protocol):
    """Marks that are drawn for the weights a ticket will be trained from."""

    def choose(self, scores: Mapping[str, Array], keep: int, *, within: Mask) -> Mask:
        """Return `global_top_k`'s mask, with the mark's share of edges on secret positions."""
        ...

    def plan(self, mask: Mask) -> Hooks:
        """Return what takes part in the final training under *mask*."""
        ...


class Planting(Protocol):
    """Marks that are planted while the ticket is found; the search sees the secret edges."""

    @property
    def identity(self) -> str:
        """What is planted, and by whom, for the checkpoints of a search."""
        ...

    def begin(self, start: Mapping[str, Array], everything: Mask) -> Mapping[str, Array]:
        """Return the weights that the search starts from: the start weights, with the marks that are in them."""
        ...

    def bind(self, start: Mapping[str, Array], everything: Mask) -> BoundPlanting:
        """Draw the secret edges for *start*, the weights that the ticket will be trained from."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """A ticket to be found.

    Attributes:
        model: The model's name, import path or factory.
        model_options: Arguments of its factory, classes and input shape among them.
        data: The data set.
        data_name: How the data is named in the ticket.
        data_options: Arguments of its loader.
        density: Kept fraction of the prunable weights, in (0, 1); None where the method's options say what is removed.
        training: The recipe of the final training.
        seed: Fixes initialisation, order and augmentation.
        method_options: Arguments of the method.
        pretrained: State dict of the trained dense network; None to have the methods that need one train it.
        rewind: State dict that the ticket is trained from; None for what the method starts from.
        planting: Marks to plant while the ticket is found; None for an unmarked ticket.
        workdir: Folder for checkpoints; None to keep none.
        resume: Continue from the checkpoints in *workdir*.
        progress: Where progress is shown.
    """

    model: str | Callable[..., nn.Module]
    model_options: Mapping[str, Any]
    data: Dataset
    data_name: str
    data_options: Mapping[str, Any]
    density: float | None
    training: TrainingConfig
    seed: int = 0
    method_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretrained: Mapping[str, Array] | None = None
    rewind: Mapping[str, Array] | None = None
    planting: Planting | None = None
    workdir: Path | None = None
    resume: bool = False
    progress: Progress = dataclasses.field(default_factory=NoProgress)

    def __post_init__(self) -> None:
        if self.density is not None and not 0.0 < self.density < 1.0:
            raise ConfigurationError(f"density is {self.density}, expected above 0 and below 1")
        requirements.require_examples(self.data, self.training.batch_size, knob=BATCH_KNOB)
        for which in (requirements.PRETRAINED, requirements.REWIND):
            state = getattr(self, which)
            if state is not None and any(unwrapped_name(name) != name for name in state):
                # Frozen, but not yet seen by anyone.
                object.__setattr__(self, which, {unwrapped_name(name): state[name] for name in state})

    @property
    def given(self) -> str | None:
        """What weights the search was given to start from, in words; None if it starts from an initialisation."""
        named = [
            f"{which} weights"
            for which in (requirements.PRETRAINED, requirements.REWIND)
            if getattr(self, which) is not None
        ]
        return " and ".join(named) or None

    @property
    def model_name(self) -> str:
        """The model's name or import path, as the ticket says it."""
        return self.model if isinstance(self.model, str) else f"{self.model.__module__}:{self.model.__qualname__}"

    def require_batch(self, batch_size: int, *, option: str) -> None:
        """Check that the data fills a batch of the search, and that the model can be trained on it.

        Args:
            batch_size: Examples in a batch.
            option: The method option that says so, for the errors.

        Raises:
            ConfigurationError: It does not, or cannot.
        """
        knob = f"method option '{option}'"
        requirements.require_examples(self.data, batch_size, knob=knob)
        if batch_size == 1:
            requirements.require_trainable_alone(self.build(), self.data, model=self.model_name, knob=knob)

    def build(self) -> nn.Module:
        """Return the model at initialisation, with the marks that are in its start weights.

        Raises:
            ConfigurationError: It cannot be pruned and trained on the data, the density keeps all of its weights or
                fewer than it has layers, or weights that were given are not its own.
        """
        network = build_model(self.model, options=self.model_options, seed=self.seed)
        self.require_fit(network)
        if self.planting is not None:
            load_arrays(network, self.planting.begin(state_arrays(network), self.everything(network)))
        return network

    def require_fit(self, network: nn.Module) -> None:
        """Check the model, and all that was given with it, before anything is trained.

        Raises:
            ConfigurationError: As `build`.
        """
        model, layers = self.model_name, prunable_layers(network)
        requirements.require_own_layers(network, layers, model=model)
        if self.density is not None:
            state = network.state_dict()
            positions = sum(state[name].numel() for name in layers)
            requirements.require_part(self.density, positions=positions, layers=len(layers))
        for which, given in ((requirements.PRETRAINED, self.pretrained), (requirements.REWIND, self.rewind)):
            if given is not None:
                requirements.require_weights(network, given, which=which, model=model)
        if self.pretrained is not None:
            requirements.require_dense(self.pretrained, layers, model=model)
        requirements.require_outputs(network, self.data, model=model)
        if self.training.batch_size == 1:
            requirements.require_trainable_alone(network, self.data, model=model, knob=BATCH_KNOB)

    def start_state(self, network: nn.Module) -> dict[str, Array]:
        """Return the weights a ticket starts from: the rewind weights that were given, else *network*'s own."""
        if self.rewind is not None:
            load_arrays(network, self.rewind)
        return state_arrays(network)

    def everything(self, network: nn.Module) -> Mask:
        """Return the mask that keeps all prunable weights of *network*."""
        state = network.state_dict()
        return full_mask({name: tuple(state[name].shape) for name in prunable_layers(network)})

    def keep(self, positions: int) -> int:
        """Return how many of *positions* weights the density keeps.

        Raises:
            ConfigurationError: No density was given.
        """
        if self.density is None:
            raise ConfigurationError(
                "this method needs a density: give the kept share of the weights as --density (density=), such as 0.05"
            )
        return max(1, round(self.density * positions))

    def choose(self, scores: Mapping[str, Array], keep: int, *, within: Mask, start: Mapping[str, Array]) -> Mask:
        """Keep the *keep* highest scores, and let a mark that is planted during the search have its share of them.

        Args:
            scores: Per layer, shape as its mask.
            keep: Number of positions to keep, exactly.
            within: Where positions may be kept.
            start: The rewind weights, which a mark binds.
        """
        marks = self._bound(start, within)
        if marks is None:
            return global_top_k(scores, keep, within=within)
        return marks.choose(scores, keep, within=within)

    def hooks(self, mask: Mask, *, start: Mapping[str, Array]) -> Hooks | None:
        """Return the planted marks' part in the final training under *mask* from *start*; None if there are none."""
        marks = self._bound(start, mask)
        return None if marks is None else marks.plan(mask)

    def _bound(self, start: Mapping[str, Array], mask: Mask) -> BoundPlanting | None:
        if self.planting is None:
            return None
        return self.planting.bind(start, full_mask({name: mask[name].shape for name in mask}))

    def identity(self, *parts: object) -> str:
        """Return a digest of the search and *parts*, so that checkpoints of another search are not continued."""
        options = (self.data_options, self.model_options, self.method_options)
        return run_identity(
            *parts, self.model_name, self.density, self.training, self.seed, self.data_name,
            *(json.dumps(dict(given), sort_keys=True, default=repr) for given in options),
            None if self.planting is None else self.planting.identity,
            *(weights_digest(state).hex() for state in (self.pretrained, self.rewind) if state is not None),
        )  # fmt: skip

    def info(self, method: str, **measured: Any) -> TicketInfo:
        """Return the ticket's metadata, with what the method *measured*."""
        return TicketInfo(
            **{
                "method": method,
                "model": self.model_name,
                "model_options": self.model_options,
                "data": self.data_name,
                "data_options": self.data_options,
                "training": self.training.to_json(),
                "seed": self.seed,
                "classes": self.data.classes,
                "input_shape": self.data.input_shape,
                "input_mean": self.data.mean,
                "input_std": self.data.std,
                **measured,
            }
        )


class PruningMethod(Protocol):
    """A way to find a ticket."""

    @property
    def name(self) -> str:
        """The name users select it by."""
        ...

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        ...

    @property
    def config(self) -> type[Any]:
        """The frozen dataclass of its options, each with a default."""
        ...

    @property
    def chooses_weights(self) -> bool:
        """Whether single weights are chosen, so that a mark can be planted during the search."""
        ...

    @property
    def takes(self) -> frozenset[str]:
        """Which weights it can be given, of "pretrained" and "rewind"; others are refused."""
        ...

    def find(self, problem: SearchProblem) -> Ticket:
        """Return a ticket of the problem's density."""
        ...
