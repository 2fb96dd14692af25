"""What `find` and `find_marked` are asked for, and the search that it makes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.errors import ConfigurationError, FileError, TensorError
from ticketguard.pipeline.runs import RunOptions, recipe
from ticketguard.settings import checked_options, checked_seed
from ticketguard.ticket import Array, Ticket

if TYPE_CHECKING:
    import torch

    from ticketguard.data import Dataset
    from ticketguard.pruning import PruningMethod, SearchProblem
    from ticketguard.training import TrainingConfig

# Stands for a seed until it is drawn.
PLACEHOLDER_SEED = 0
# Weights, in any form they come in.
State: TypeAlias = "Mapping[str, Array] | Ticket | Checkpoint | str | os.PathLike[str]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search as it is asked for; nothing is loaded or checked yet.

    Attributes:
        model: As for `find`, and so are the others.
        data: A name, a path, an import path, a factory, or the data set itself.
        density: Kept fraction of the prunable weights, in (0, 1), or None.
        method: The pruning method's name.
        training: A recipe, or changes to the recommended one.
        seed: Fixes initialisation, order and augmentation; None to have one drawn.
        model_options: Arguments of the model's factory.
        data_options: Arguments of the data loader.
        method_options: Arguments of the method.
        pretrained: The trained dense network, for methods that start from one.
        rewind: The weights that the ticket is trained from.
        run: Where the search keeps its state, and shows its progress.
    """

    model: str | Callable[..., torch.nn.Module]
    data: str | Dataset | Callable[..., Dataset]
    density: float | None
    method: str
    training: TrainingConfig | Mapping[str, Any] | None
    seed: int | None
    model_options: Mapping[str, Any] | None
    data_options: Mapping[str, Any] | None
    method_options: Mapping[str, Any] | None
    pretrained: State | None
    rewind: State | None
    run: RunOptions

    def search(self) -> tuple[PruningMethod, SearchProblem]:
        """Load what is named, and return the method and what it is to search.

        A seed that was not given is yet to be drawn: the problem's is a placeholder.

        Raises:
            ConfigurationError: A name or an option is unknown, or what is given does not fit together.
            FileError: The data or weights cannot be read.
        """
        from ticketguard.data import load_data
        from ticketguard.pruning import CONTROLS, METHODS, SearchProblem
        from ticketguard.pruning.engine.requirements import require_taken
        from ticketguard.training import NoProgress, join_processes, recommended_training, training_of

        if self.method not in METHODS:
            raise ConfigurationError(f"unknown method '{self.method}', expected one of {', '.join(sorted(METHODS))}")
        require_taken(self.method, METHODS[self.method].takes, pretrained=self.pretrained, rewind=self.rewind)
        found_with = checked_options(self.data_options, what="data option")
        chosen = checked_options(self.method_options, what="method option")
        dataset = load_data(self.data, options=found_with)
        default = recommended_training(self.model, dataset)
        controlled = chosen.get("ticket") if self.method in CONTROLS else None
        if controlled and isinstance(controlled, str):
            # A control is trained as its ticket was.
            default = training_of(Ticket.load(controlled), dataset, model=self.model)
        problem = SearchProblem(
            model=self.model,
            model_options={
                "classes": dataset.classes,
                "input_shape": list(dataset.input_shape),
                **checked_options(self.model_options, what="model option"),
            },
            data=dataset,
            data_name=self.data if isinstance(self.data, str) else dataset.name,
            data_options=found_with,
            density=self.density,
            training=recipe(self.training, default),
            seed=PLACEHOLDER_SEED if self.seed is None else checked_seed(self.seed),
            method_options=chosen,
            pretrained=_dense_state(self.pretrained),
            rewind=_early_state(self.rewind),
            workdir=self.run.workdir,
            resume=self.run.resume,
            progress=self.run.progress or NoProgress(),
        )
        join_processes(problem.training)
        return METHODS[self.method], problem


def _dense_state(source: State | None) -> Mapping[str, Array] | None:
    """Return the weights of a trained dense network.

    Raises:
        ConfigurationError: *source* is a sparse ticket.
    """
    ticket = _as_ticket(source)
    if ticket is None:
        return _state_of(source)
    if ticket.mask.kept < ticket.mask.size:
        raise ConfigurationError(
            f"the pretrained weights are a ticket of density {ticket.mask.density:g}, expected a dense network: give "
            "the checkpoint it was found in"
        )
    return ticket.weights


def _early_state(source: State | None) -> Mapping[str, Array] | None:
    """Return rewind weights; a ticket's are those that it is trained from."""
    ticket = _as_ticket(source)
    return _state_of(source) if ticket is None else ticket.start_weights


def _as_ticket(source: State | None) -> Ticket | None:
    """Return the ticket that *source* is or names; None if it is plain weights."""
    if isinstance(source, Ticket):
        return source
    if isinstance(source, str | os.PathLike):
        try:
            return Ticket.load(source)
        except FileError:
            return None  # whatever is wrong with it, reading it as a checkpoint says so
    return None


def _state_of(source: State | None) -> Mapping[str, Array] | None:
    if source is None or isinstance(source, Mapping):
        return source
    assert not isinstance(source, Ticket)
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(source)
    checkpoint.require_one_network(naming="--network, or tg.Checkpoint(..., network=...)")
    checkpoint.require_unpacked()
    try:
        return checkpoint.state()
    except TensorError as error:
        raise FileError(
            path=checkpoint.label,
            reason=f"tensor '{error.name}' {error.reason}",
            hint="give weights that a training ended well with",
        ) from error
