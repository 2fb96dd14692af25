"""Is it a winning ticket? A ticket beside the dense network and its controls, at equal epochs, over several seeds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketguard.errors import ConfigurationError, TicketguardWarning
from ticketguard.evaluation.arms import ARMS, chosen_arms, has_start
from ticketguard.evaluation.verdict import ArmResult, Comparison, TicketCheck, judge, missing_controls
from ticketguard.ticket import Ticket

if TYPE_CHECKING:
    import torch

    from ticketguard.data import Dataset
    from ticketguard.training import Progress, TrainingConfig

WITHOUT_REWIND = (
    "the ticket holds no rewind weights, so that it cannot be told whether it is a winning one: its runs begin from "
    "trained weights, and there will be numbers but no verdict"
)
HELP = (
    "what would help, and only its owner may have: the unmarked ticket, or the weights that its training started from "
    "('ticketguard import' takes them as --rewind)"
)


def check_ticket(
    ticket: Ticket,
    *,
    seeds: int | Sequence[int] = 3,
    arms: Sequence[str] | None = None,
    model: str | Callable[..., torch.nn.Module] | None = None,
    dense_options: Mapping[str, Any] | None = None,
    data: str | Dataset | Callable[..., Dataset] | None = None,
    data_options: Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TicketCheck:
    """Say whether *ticket* is a winning one.

    Of a ticket without rewind weights, as one that was made for release, it cannot be told: a `TicketguardWarning` says
    so before anything is trained, and the verdict is "inconclusive", whatever the numbers are.

    Args:
        ticket: The ticket.
        seeds: The seeds, or how many: 0, 1, ...; at least two.
        arms: Names out of `ARMS` to compare, dense and ticket among them; by default those that decide for its kind.
        model: By default what the ticket was found with.
        dense_options: Changes to the ticket's model options that give the dense network, where they leave blocks out.
        data: By default what the ticket was found with.
        data_options: Arguments of the data loader; without *data*, changes to those the ticket was found with.
        training: The recipe of all arms, or changes to the ticket's own.
        workdir: Folder for finished runs and checkpoints; without it the check cannot be resumed.
        resume: Continue from what is kept in *workdir*.
        progress: Where progress is shown.

    Raises:
        ConfigurationError: Too few seeds, an unknown arm or one that says nothing about this ticket, or the ticket does
            not say its model or data, or what the dense network is, and neither does the call.
        UntrustedNameError: The ticket is from a file that names an import path or folder, and the call does not.
        TensorError: The ticket does not fit the model.
        TicketguardError: Training diverged.
    """
    from ticketguard.evaluation.runs import Runs
    from ticketguard.models import load_arrays, model_of
    from ticketguard.pruning.engine.requirements import require_outputs
    from ticketguard.pruning.methods.controls import can_change, dense_network
    from ticketguard.training import NoProgress, held_by_first_process, join_processes
    from ticketguard.training.retraining import retraining_of

    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if len(set(numbers)) < 2 or len(set(numbers)) < len(numbers):
        raise ConfigurationError(f"seeds are {list(numbers)}, expected two or more, all different: a spread needs them")
    names, notes = chosen_arms(ticket, arms)
    again = retraining_of(ticket, model=model, data=data, data_options=data_options, changes=training)
    dataset, recipe = again.data, again.recipe
    network = model_of(ticket, model=model)
    load_arrays(network, ticket.weights)  # does it fit?
    require_outputs(network, dataset, model=again.model_name)
    dense_network(ticket, seed=0, model=model, changes=dense_options)  # can it be built?
    runs = Runs(
        ticket, dataset, recipe, model=model, dense_options=dense_options, workdir=workdir, resume=resume,
        progress=progress or NoProgress(),
    )  # fmt: skip
    if not has_start(ticket):
        warnings.warn(WITHOUT_REWIND, TicketguardWarning, stacklevel=2)
    join_processes(recipe)
    with held_by_first_process(workdir, anew=not resume):
        results = tuple(runs.result(name, numbers) for name in names)
    mask_matters = can_change(ticket.mask)
    verdict, comparisons = judge(results, mask_matters=mask_matters, has_start=has_start(ticket))
    if not has_start(ticket):
        notes = (*notes, "the ticket's runs began from trained weights, which is a head start on the others", HELP)
    elif missing := missing_controls(results, mask_matters=mask_matters):
        notes = (*notes, f"not compared with {' and '.join(missing)}, so it could not be shown to be winning")
    return TicketCheck(
        verdict=verdict,
        comparisons=comparisons,
        arms=results,
        seeds=numbers,
        training=recipe.to_json(),
        notes=notes,
    )


__all__ = ["ARMS", "ArmResult", "Comparison", "TicketCheck", "check_ticket", "judge"]
