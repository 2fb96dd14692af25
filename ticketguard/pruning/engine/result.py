"""What follows every search: the ticket's training under its mask, or its accuracy as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from ticketguard.models import load_arrays
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import TrainingConfig, Watch, evaluate, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spent:
    """What a search took.

    Attributes:
        examples: Training examples that passed forward and backward; one whose gradient was taken twice counts twice.
        steps: Batches of them.
        seconds: Wall time.
    """

    examples: int = 0
    steps: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            examples=self.examples + other.examples,
            steps=self.steps + other.steps,
            seconds=self.seconds + other.seconds,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found, before the ticket is trained.

    Attributes:
        mask: Which weights are kept.
        start: The state dict that the ticket is trained from.
        spent: What the search took.
        dense_accuracy: Test accuracy in [0, 1] of the dense network, where the search trained or was given one.
        history: One entry per stage of the search.
    """

    mask: Mask
    start: Mapping[str, Array]
    spent: Spent
    dense_accuracy: float | None = None
    history: tuple[Mapping[str, Any], ...] = ()


def train_found(
    problem: SearchProblem, network: nn.Module, found: Found, *, method: str, watch: Watch | None = None, **facts: Any
) -> Ticket:
    """Train what was found from its start weights, and return the ticket.

    Args:
        problem: The search's problem; its recipe and seed are those of the training.
        network: The model, in the shape that *found* fits; it is changed.
        found: What the search found.
        method: The method's name.
        watch: Looks on while the ticket trains.
        facts: Other fields of `TicketInfo`.
    """
    load_arrays(network, found.start)
    result = train(
        network,
        problem.data,
        problem.training,
        seed=problem.seed,
        mask=found.mask,
        hooks=problem.hooks(found.mask, start=found.start),
        watch=watch,
        checkpoint=None if problem.workdir is None else problem.workdir / "ticket.checkpoint",
        resume=problem.resume,
        progress=problem.progress,
        description=f"training the ticket, density {found.mask.density:.3g}",
    )
    total = found.spent + Spent(examples=result.examples, steps=result.steps, seconds=result.seconds)
    info = problem.info(
        method,
        **{
            "accuracy": result.accuracy,
            "dense_accuracy": found.dense_accuracy,
            "cost": costs(found.spent, total),
            "history": found.history,
            **facts,
        },
    )
    return Ticket(mask=found.mask, weights=result.state, rewind_weights=found.start, info=info)


def ready_ticket(
    problem: SearchProblem,
    network: nn.Module,
    found: Found,
    *,
    method: str,
    weights: Mapping[str, Array],
    recipe: TrainingConfig,
    **facts: Any,
) -> Ticket:
    """Return a ticket whose weights are good as the search left them: they are evaluated, not trained.

    Marks that are planted while the ticket is found are learned in training, so with them the ticket is trained after
    all, by *recipe* from the start weights.

    Args:
        problem: The search's problem; its own recipe is not used.
        network: The model; it is changed.
        found: What the search found.
        method: The method's name.
        weights: State dict of the ticket; zero where the mask prunes.
        recipe: How the ticket is retrained from the start weights, by an embedding say.
        facts: Other fields of `TicketInfo`.
    """
    problem = dataclasses.replace(problem, training=recipe)
    if problem.planting is not None:
        return train_found(problem, network, found, method=method, **facts)
    load_arrays(network, weights)
    accuracy = evaluate(network, problem.data, device=recipe.device)
    info = problem.info(
        method,
        **{
            "accuracy": accuracy,
            "dense_accuracy": found.dense_accuracy,
            "cost": costs(found.spent, found.spent),
            "history": found.history,
            "ready": True,
            **facts,
        },
    )
    return Ticket(mask=found.mask, weights=weights, rewind_weights=found.start, info=info)


def costs(search: Spent, total: Spent) -> dict[str, float]:
    """Return what finding took, for the ticket: in all, and without the ticket's own training (``search_...``)."""
    return {
        **dataclasses.asdict(total),
        **{f"search_{name}": value for name, value in dataclasses.asdict(search).items()},
    }
