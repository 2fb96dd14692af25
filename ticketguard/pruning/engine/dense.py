"""The trained dense network that some searches start from: the one given, or one trained now."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import load_arrays, state_arrays
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Spent
from ticketguard.ticket import Array, Ticket
from ticketguard.training import TrainingConfig, Watch, evaluate, in_first_process, train


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
