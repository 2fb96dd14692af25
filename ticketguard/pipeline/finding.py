"""Find a ticket, unmarked or with the owner's marks in it from the start."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.embedding.interface import Mark
from ticketguard.errors import ConfigurationError, TicketguardWarning
from ticketguard.keyed import SECRET_BYTES
from ticketguard.pipeline.request import SearchRequest, State
from ticketguard.pipeline.runs import (
    RunOptions,
    in_work_folder,
    moment_of_run,
    require_room_to_end,
    secret_of_run,
    seed_of_run,
)
from ticketguard.seeds import drawn_seed, seed_of
from ticketguard.ticket import Ticket
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS

if TYPE_CHECKING:
    import torch

    from ticketguard.data import Dataset
    from ticketguard.training import Progress, TrainingConfig


def find(
    model: str | Callable[..., torch.nn.Module],
    *,
    data: str | Dataset | Callable[..., Dataset],
    density: float | None = None,
    method: str = "imp",
    training: TrainingConfig | Mapping[str, Any] | None = None,
    seed: int | None = None,
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
        seed: Fixes initialisation, order and augmentation, 0 to 2^53 - 1; by default fresh from the operating system.
            The ticket's info says it. Whoever can guess it can find the ticket again.
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
    request = SearchRequest(
        model=model,
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
        run=RunOptions(workdir=workdir, resume=resume, progress=progress),
    )
    return find_requested(request)


def find_requested(request: SearchRequest) -> Ticket:
    """Find a winning ticket, as `find` does."""
    chosen, problem = request.search()
    run = request.run
    seed = seed_of_run(request.seed, run.workdir, resume=run.resume, draw=drawn_seed, config=problem.training)
    problem = dataclasses.replace(problem, seed=seed)
    if chosen.chooses_weights:  # the others' tickets are smaller than the network
        require_room_to_end(run.workdir, problem.build(), problem.training, resume=run.resume, states=2)
    with in_work_folder(run.workdir, resume=run.resume, seed=seed, search=problem.identity(chosen.name)):
        return chosen.find(problem)


def find_marked(
    model: str | Callable[..., torch.nn.Module],
    *,
    owner: Owner,
    data: str | Dataset | Callable[..., Dataset],
    density: float,
    marks: Sequence[Mark] | None = None,
    level_bits: int = DEFAULT_LEVEL_BITS,
    secret: bytes | None = None,
    rescale: bool = True,
    method: str = "imp",
    training: TrainingConfig | Mapping[str, Any] | None = None,
    seed: int | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    method_options: Mapping[str, Any] | None = None,
    pretrained: State | None = None,
    rewind: State | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[Ticket, Credential]:
    """Find a winning ticket that carries the owner's marks from the start: the search sees the secret edges.

    The commitment binds the weights that the search starts from, not the ticket's mask, which comes later; some of
    their signs are drawn from the owner's key. Where the search is given weights to start from, it binds those that the
    ticket is trained from, and no signs are drawn. Compared with `embed` afterwards, the ticket is trained once, and
    the edges of the planted graph are the best of the secret ones.

    Args:
        model: As for `find`.
        owner: Whose marks they are.
        data: As for `find`, and so are all others that are not told here.
        density: Kept fraction of the prunable weights, in (0, 1).
        marks: Kinds of marks, a planted graph or keyed signs among them; by default both, and a trigger set where
            possible.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.
        rescale: As for `embed`.
        method: The pruning method's name; one that chooses single weights.
        training: The recipe, or changes to the recommended one.
        seed: Fixes initialisation, order and augmentation, 0 to 2^53 - 1; by default it follows from the secret.
            Whoever can guess it can tell many of the planted edges.
        model_options: Arguments of the model's factory.
        data_options: Arguments of the data loader.
        method_options: Arguments of the method.
        pretrained: The trained dense network, for methods that start from one.
        rewind: The weights that the ticket is trained from.
        workdir: Folder for checkpoints; without it the run cannot be resumed.
        resume: Continue from what is kept in *workdir*; the secret is, until the folder is deleted, which is for after
            everything is saved.
        progress: Where progress is shown.

    Returns:
        The marked ticket, made for release, and the owner's credential.

    Raises:
        CapacityError: The ticket is too small for the mark.
        ConfigurationError: As `find`; or the method chooses no weights, or the start cannot carry a mark.
    """
    request = SearchRequest(
        model=model,
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
        run=RunOptions(workdir=workdir, resume=resume, progress=progress),
    )
    return find_marked_requested(
        request, owner=owner, marks=marks, level_bits=level_bits, secret=secret, rescale=rescale
    )


def find_marked_requested(
    request: SearchRequest,
    *,
    owner: Owner,
    marks: Sequence[Mark] | None = None,
    level_bits: int = DEFAULT_LEVEL_BITS,
    secret: bytes | None = None,
    rescale: bool = True,
    leave_out: bool | None = None,
) -> tuple[Ticket, Credential]:
    """Find a winning ticket that carries the owner's marks from the start, as `find_marked` does.

    *leave_out* is as for `SearchPlanting`.
    """
    from ticketguard.graph import known_groups
    from ticketguard.marking.during_search import SearchPlanting
    from ticketguard.models import load_arrays, model_of, state_arrays
    from ticketguard.training import drawn_once

    chosen, problem = request.search()
    workdir, resume = request.run.workdir, request.run.resume
    if not chosen.chooses_weights:
        raise ConfigurationError(
            f"method '{chosen.name}' does not choose single weights, so no mark can be planted during the search: "
            "find the ticket first, then mark it with embed"
        )
    key = drawn_once(
        lambda: secret_of_run(secret, workdir, resume=resume), length=SECRET_BYTES, config=problem.training
    )
    seed = seed_of_run(request.seed, workdir, resume=resume, draw=lambda: seed_of(key), config=problem.training)
    problem = dataclasses.replace(problem, seed=seed)
    network = problem.build()
    everything = problem.everything(network)
    keep = problem.keep(everything.size)
    assert problem.density is not None  # or `keep` would have said so
    example = problem.data.scaled(problem.data.test_inputs[:1])
    known = known_groups(network, layers=tuple(everything), example=example)
    planting = SearchPlanting(
        owner=owner,
        info=problem.info(chosen.name),
        density=problem.density,
        marks=marks,
        groups=known.groups,
        level_bits=level_bits,
        secret=key,
        given=problem.given,
        leave_out=leave_out,
    )
    if known.doubts:
        warnings.warn(known.doubts, TicketguardWarning, stacklevel=3)
    require_room_to_end(workdir, network, problem.training, resume=resume)
    planting.rehearse(state_arrays(network), everything, keep)
    problem = dataclasses.replace(problem, planting=planting)
    with in_work_folder(workdir, resume=resume, seed=seed, secret=key, search=problem.identity(chosen.name)):
        ticket = chosen.find(problem)
        created = moment_of_run(workdir)
    network = model_of(ticket, model=request.model)
    load_arrays(network, ticket.weights)
    return planting.finish(ticket, network, created=created, rescale=rescale)
