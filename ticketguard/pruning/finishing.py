"""What follows every search: the ticket's training under its mask, or its accuracy as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import load_arrays, state_arrays
from ticketguard.pruning.interface import SearchProblem
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import TrainingConfig, Watch, evaluate, in_first_process, train


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A trained dense network.

    Attributes:
        state: Its state dict.
        accuracy: Its test accuracy, in [0, 1].
        spent: What training it took; nothing if it was given.
    """

    state: Mapping[str, Array]
    accuracy: float
    spent: Spent


def pretrained_network(
    problem: SearchProblem, network: nn.Module, *, epochs: float, method: str, watch: Watch | None = None
) -> Pretrained:
    """Return the dense network that *method* prunes: the one given, or one trained now for *epochs*.

    *network* is left holding its weights, on the CPU. A *watch* looks on while it is trained, and may end that early.

    Raises:
        ConfigurationError: None was given, and none is to be trained.
    """
    if len(problem.data.input_shape) == 3:
        # As training lays it out: one that was given, or is found again on resuming, then sums in the same order.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if problem.pretrained is not None:
        load_arrays(network, problem.pretrained)
        accuracy = evaluate(network, problem.data, device=problem.training.device)
        network.cpu()
        return Pretrained(state=state_arrays(network), accuracy=accuracy, spent=Spent())
    if not epochs:
        raise ConfigurationError(
            f"method '{method}' starts from a trained dense network: give it as --pretrained (pretrained=), or train "
            "it first with --method-option pretrain_epochs=N"
        )
    recipe = dataclasses.replace(problem.training, epochs=epochs)
    return train_dense(problem, network, recipe, seed=problem.seed, watch=watch)


def train_dense(
    problem: SearchProblem,
    network: nn.Module,
    recipe: TrainingConfig,
    *,
    seed: int,
    stop_step: int | None = None,
    watch: Watch | None = None,
) -> Pretrained:
    """Train the dense network once: a search that resumes finds it as a ticket file that keeps everything.

    Args:
        problem: Says where checkpoints and progress go.
        network: Trained from its present weights; left holding the trained ones, on the CPU.
        recipe: How it is trained.
        seed: Fixes order and augmentation.
        stop_step: Step after which training ends early, with the rates of the whole recipe; None for its end.
        watch: Looks at the network after every step, and may end the training.
    """
    path = None
    if problem.workdir is not None:
        watched = () if watch is None else (watch.identity,)
        path = problem.workdir / f"dense-{problem.identity('dense', recipe, seed, stop_step, *watched)[:16]}.ticket"
        if problem.resume and path.exists():
            kept = Ticket.load(path)
            assert kept.info.accuracy is not None
            cost = kept.info.cost
            if watch is not None:
                watch.load({name: torch.tensor(values) for name, values in kept.info.history[0].items()})
            spent = Spent(examples=int(cost["examples"]), steps=int(cost["steps"]), seconds=cost["seconds"])
            load_arrays(network, kept.weights)
            return Pretrained(state=kept.weights, accuracy=kept.info.accuracy, spent=spent)
    checkpoint = None if problem.workdir is None else problem.workdir / "dense.checkpoint"
    result = train(
        network,
        problem.data,
        recipe,
        seed=seed,
        stop_step=stop_step,
        checkpoint=checkpoint,
        resume=problem.resume,
        progress=problem.progress,
        watch=watch,
        description="training the dense network",
    )
    network.cpu()
    spent = Spent(examples=result.examples, steps=result.steps, seconds=result.seconds)
    if path is not None and checkpoint is not None:
        info = problem.info(
            "dense",
            accuracy=result.accuracy,
            cost=dataclasses.asdict(spent),
            history=() if watch is None else ({name: tensor.tolist() for name, tensor in watch.tensors().items()},),
        )
        kept = Ticket(mask=problem.everything(network), weights=result.state, rewind_weights=None, info=info)
        in_first_process(lambda: kept.save(path))
        in_first_process(lambda: checkpoint.unlink(missing_ok=True))
    return Pretrained(state=result.state, accuracy=result.accuracy, spent=spent)
