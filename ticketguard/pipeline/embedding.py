"""Embed the owner's marks into a ticket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.embedding.interface import Mark
from ticketguard.errors import ConfigurationError
from ticketguard.files import SECRET, write_whole
from ticketguard.keyed import SECRET_BYTES
from ticketguard.marking.plan import Plan, prepare
from ticketguard.pipeline.runs import (
    IDENTITY_FILE,
    in_work_folder,
    moment_of_run,
    require_room_to_end,
    secret_of_run,
    seed_of_run,
)  # fmt: skip
from ticketguard.seeds import seed_of
from ticketguard.settings import require_kind
from ticketguard.ticket import Ticket
from ticketguard.verification.registry import usual_marks
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS

if TYPE_CHECKING:
    import torch

    from ticketguard.data import Dataset
    from ticketguard.training import Progress, TrainingConfig


def embed(
    ticket: Ticket,
    *,
    owner: Owner,
    marks: Sequence[Mark] | None = None,
    model: str | Callable[..., torch.nn.Module] | None = None,
    data: str | Dataset | Callable[..., Dataset] | None = None,
    data_options: Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    seed: int | None = None,
    level_bits: int = DEFAULT_LEVEL_BITS,
    secret: bytes | None = None,
    rescale: bool = True,
    workdir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[Ticket, Credential]:
    """Write the owner's marks into *ticket* and retrain it from its rewind weights.

    Args:
        ticket: The unmarked ticket.
        owner: Whose marks they are.
        marks: Kinds of marks; by default a planted graph and a trigger set.
        model: By default what the ticket was found with.
        data: By default what the ticket was found with.
        data_options: Arguments of the data loader; without *data*, changes to those the ticket was found with.
        training: A recipe, or changes to the ticket's own.
        seed: Fixes order and augmentation; by default it follows from the secret.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.
        rescale: Make the weights before normalisations larger in the end, which leaves the function alone: fine-tuning
            then moves them less, and triggers last longer.
        workdir: Folder for checkpoints; without it the run cannot be resumed. The secret and the trained weights stay
            in it, so that a run interrupted before the credential is saved resumes to the same one: delete the
            folder once everything is saved.
        resume: Continue from what is kept in *workdir*.
        progress: Where progress is shown.

    Returns:
        The marked ticket, made for release, and the owner's credential.

    Raises:
        CapacityError: The ticket is too small for the mark.
        ConfigurationError: The ticket does not name its model or data, and neither does the call.
        UntrustedNameError: The ticket is from a file that names an import path or folder, and the call does not.
        TicketguardError: Training diverged.
    """
    from ticketguard.models import load_arrays, model_of
    from ticketguard.pruning.engine.requirements import require_outputs
    from ticketguard.training import drawn_once, in_first_process, train
    from ticketguard.training.retraining import retraining_of

    # Before any data are read; `prepare` looks at the owner too, but later.
    require_kind(ticket, Ticket, what="the ticket", hint="tg.Ticket.load reads one from a file")
    require_kind(
        owner, Owner, what="the owner", hint="tg.Owner.load reads one from a key file, tg.Owner.generate makes one"
    )
    info = ticket.info
    again = retraining_of(ticket, model=model, data=data, data_options=data_options, changes=training)
    dataset, config = again.data, again.recipe
    if info.input_shape and dataset.input_shape != info.input_shape:
        raise ConfigurationError(
            f"data '{dataset.name}' have inputs of shape {dataset.input_shape}, expected {info.input_shape} as the "
            "ticket says: name the data it was found with, or its --image-size"
        )
    network = model_of(ticket, model=model)
    require_outputs(network, dataset, model=again.model_name, wrapped=True)
    # Several processes train one model, so they must draw one mark.
    key = drawn_once(lambda: secret_of_run(secret, workdir, resume=resume), length=SECRET_BYTES, config=config)
    seed = seed_of_run(seed, workdir, resume=resume, draw=lambda: seed_of(key), config=config)
    chosen = usual_marks(ticket.info) if marks is None else marks
    plan = prepare(
        ticket,
        owner=owner,
        marks=chosen,
        model=network,
        level_bits=level_bits,
        secret=key,
        example=dataset.scaled(dataset.test_inputs[:1]),
    )
    _require_same_run(workdir, plan, chosen, resume=resume)
    require_room_to_end(workdir, network, config, resume=resume)
    with in_work_folder(workdir, resume=resume, seed=seed, secret=key):
        if workdir is not None:
            folder = workdir
            in_first_process(lambda: write_whole(folder / IDENTITY_FILE, _identity(plan, chosen), mode=SECRET))
        result = train(
            network,
            dataset,
            config,
            seed=seed,
            mask=plan.mask,
            hooks=plan,
            checkpoint=None if workdir is None else workdir / "embed.checkpoint",
            resume=resume,
            progress=progress,
        )
        created = moment_of_run(workdir)
    load_arrays(network, result.state)
    return plan.finish(network, accuracy=result.accuracy, created=created, rescale=rescale)


def _identity(plan: Plan, marks: Sequence[Mark]) -> bytes:
    """Say what is embedded, and how: weights under other marks look like those of this run."""
    commitments = " ".join(mark.commitment.hex() for mark in plan.claims)
    return f"{commitments} {' '.join(map(repr, marks))}".encode()


def _require_same_run(workdir: Path | None, plan: Plan, marks: Sequence[Mark], *, resume: bool) -> None:
    """Compare what is embedded with what an interrupted run did.

    Raises:
        ConfigurationError: The run to continue embeds other marks.
    """
    path = None if workdir is None else workdir / IDENTITY_FILE
    if path is not None and resume and path.exists() and path.read_bytes() != _identity(plan, marks):
        raise ConfigurationError(
            f"the run kept in '{path.parent}' embeds other marks, or another owner's: "
            "resume with the settings it was started with, or start again"
        )
