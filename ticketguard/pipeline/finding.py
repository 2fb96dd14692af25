"""Find a ticket, unmarked or with the owner's marks in it from the start."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.embedding.interface import Mark
from ticketguard.errors import ConfigurationError, FileError, TensorError
from ticketguard.keyed import SECRET_BYTES
from ticketguard.marking.plan import DEFAULT_LEVEL_BITS
from ticketguard.pipeline.runs import in_work_folder, moment_of_run, recipe, require_room_to_end, secret_of_run
from ticketguard.settings import checked_options
from ticketguard.ticket import Array, Ticket

if TYPE_CHECKING:
    import torch

    from ticketguard.data import Dataset
    from ticketguard.pruning import PruningMethod, SearchProblem
    from ticketguard.training import Progress, TrainingConfig

# Weights, in any form they come in.
State: TypeAlias = "Mapping[str, Array] | Ticket | Checkpoint | str | os.PathLike[str]"


def find(
    model: str | Callable[..., torch.nn.Module],
    *,
    data: str | Dataset | Callable[..., Dataset],
    density: float | None = None,
    method: str = "imp",
    training: TrainingConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    method_options: Mapping[str, Any] | None = None,
    pretrained: State | None = None,
    rewind: State | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Ticket:
    """Find a winning ticket.

    Args:
        model: A model's name, an import path ``package.module:factory``, or the factory itself.
        data: A data set's name, a folder or tar of class folders, an import path, or the data set itself.
        density: Kept fraction of the prunable weights, in (0, 1); None for a method whose options say what is removed.
        method: The pruning method's name.
        training: How each level is trained: a recipe, or changes to the recommended one for this model and data.
        seed: Fixes initialisation, order and augmentation.
        model_options: Arguments of the model's factory; classes and input shape are taken from the data.
        data_options: Arguments of the data loader.
        method_options: Arguments of the method.
        pretrained: The trained dense network, for methods that start from one: a state dict, a ticket, or a file.
        rewind: The weights that the ticket is trained from, likewise; by default what the method takes.
        workdir: Folder for checkpoints; without it the run cannot be resumed.
        resume: Continue from the checkpoints in *workdir*.
        progress: Where progress is shown.

    Raises:
        ConfigurationError: An unknown name, or a density that empties a layer.
        FileError: The data cannot be read.
        TicketguardError: Training diverged.
    """
    chosen, problem = _search(
        model,
        data=data,
        density=density,
        method=method,
        training=training,
        seed=seed,
        model_options=model_options,
        data_options=data_options,
        method_options=method_options,
        pretrained=pretrained,
        rewind=rewind,
        workdir=workdir,
        resume=resume,
        progress=progress,
    )
    if chosen.chooses_weights:  # the others' tickets are smaller than the network
        require_room_to_end(workdir, problem.build(), problem.training, resume=resume, states=2)
    with in_work_folder(workdir, resume=resume):
        return chosen.find(problem)


def find_marked(
    model: str | Callable[..., torch.nn.Module],
    *,
    owner: Owner,
    density: float,
    marks: Sequence[Mark] | None = None,
    level_bits: int = DEFAULT_LEVEL_BITS,
    secret: bytes | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    **search: Any,
) -> tuple[Ticket, Credential]:
    """Find a winning ticket that carries the owner's marks from the start: the search sees the secret edges.

    The commitment binds the weights that the ticket is trained from, not its mask, which comes later. Compared with
    `embed` afterwards, the ticket is trained once, and the edges of the mark are the best of the secret ones.

    Args:
        model: As for `find`.
        owner: Whose marks they are.
        density: Kept fraction of the prunable weights, in (0, 1).
        marks: Kinds of marks, a planted graph among them; by default that, and a trigger set where possible.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.
        workdir: Folder for checkpoints; without it the run cannot be resumed.
        resume: Continue from what is kept in *workdir*; the secret is, until the folder is deleted, which is for after
            everything is saved.
        search: The other arguments of `find`.

    Returns:
        The marked ticket, made for release, and the owner's credential.

    Raises:
        CapacityError: The ticket is too small for the mark.
        ConfigurationError: As `find`; or the method chooses no weights.
    """
    from ticketguard.graph import channel_groups_or_none
    from ticketguard.marking.during_search import SearchPlanting
    from ticketguard.models import load_arrays, model_of, state_arrays
    from ticketguard.training import drawn_once

    chosen, problem = _search(model, density=density, workdir=workdir, resume=resume, **search)
    if not chosen.chooses_weights:
        raise ConfigurationError(
            f"method '{chosen.name}' does not choose single weights, so no mark can be planted during the search: "
            f"find the ticket first, then mark it with embed"
        )
    network = problem.build()
    key = drawn_once(
        lambda: secret_of_run(secret, workdir, resume=resume), length=SECRET_BYTES, config=problem.training
    )
    planting = SearchPlanting(
        owner=owner,
        info=problem.info(chosen.name),
        density=density,
        marks=marks,
        groups=channel_groups_or_none(network, problem.data.input_shape),
        level_bits=level_bits,
        secret=key,
    )
    everything = problem.everything(network)
    require_room_to_end(workdir, network, problem.training, resume=resume)
    planting.rehearse(state_arrays(network), everything, problem.keep(everything.size))
    with in_work_folder(workdir, resume=resume, secret=key):
        ticket = chosen.find(dataclasses.replace(problem, planting=planting))
        created = moment_of_run(workdir)
    network = model_of(ticket, model=model)
    load_arrays(network, ticket.weights)
    return planting.finish(ticket, network, created=created)


def _search(
    model: str | Callable[..., torch.nn.Module],
    *,
    data: str | Dataset | Callable[..., Dataset],
    density: float | None,
    method: str = "imp",
    training: TrainingConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    method_options: Mapping[str, Any] | None = None,
    pretrained: State | None = None,
    rewind: State | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[PruningMethod, SearchProblem]:
    from ticketguard.data import load_data
    from ticketguard.pruning import CONTROLS, METHODS, SearchProblem
    from ticketguard.pruning.engine.requirements import require_taken
    from ticketguard.training import NoProgress, join_processes, recommended_training, training_of

    if method not in METHODS:
        raise ConfigurationError(f"unknown method '{method}', expected one of {', '.join(sorted(METHODS))}")
    require_taken(method, METHODS[method].takes, pretrained=pretrained, rewind=rewind)
    found_with = checked_options(data_options, what="data option")
    chosen = checked_options(method_options, what="method option")
    dataset = load_data(data, options=found_with)
    default = recommended_training(model, dataset)
    controlled = chosen.get("ticket") if method in CONTROLS else None
    if controlled and isinstance(controlled, str):
        default = training_of(Ticket.load(controlled), dataset, model=model)  # a control is trained as its ticket was
    problem = SearchProblem(
        model=model,
        model_options={
            "classes": dataset.classes,
            "input_shape": list(dataset.input_shape),
            **checked_options(model_options, what="model option"),
        },
        data=dataset,
        data_name=data if isinstance(data, str) else dataset.name,
        data_options=found_with,
        density=density,
        training=recipe(training, default),
        seed=seed,
        method_options=chosen,
        pretrained=_dense_state(pretrained),
        rewind=_early_state(rewind),
        workdir=workdir,
        resume=resume,
        progress=progress or NoProgress(),
    )
    join_processes(problem.training)
    return METHODS[method], problem


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
