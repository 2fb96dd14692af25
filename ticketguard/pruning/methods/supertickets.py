"""SuperTickets: one training run finds the channels of a supernet and their weights together.

You et al. 2022, "SuperTickets: Drawing Task-Agnostic Lottery Tickets from Supernets via Jointly Architecture Searching
and Parameter Pruning", section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import state_arrays
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.descriptions.supertickets import SuperTicketsConfig
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.masked_network import weights_under
from ticketguard.pruning.engine.result import Spent, costs
from ticketguard.pruning.engine.stepped import run_search, search_device
from ticketguard.pruning.methods.supernet_search import RECORD, Moment, SupernetSearch
from ticketguard.ticket import Mask, Ticket
from ticketguard.training import TrainingConfig, evaluate


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Train a supernet that loses channels and weights on the way; the ticket is a smaller network than it.

    The density is that of the network that remains: kept weights over present ones, as `Mask.density` says it. (As a
    share of the supernet's weights it could not be promised: the search may drop more channels than it leaves weights
    for.) What that is of the supernet stands in the history, as ``of_supernet``. After a pruning the mask always has
    the density that is due; when channels go, the mask is chosen anew. Every layer keeps a weight.

    The ticket is ready: its weights were trained under its mask, and stand for what it is retrained from.
    """
    config = create_config(SuperTicketsConfig, problem.method_options)
    if problem.training.precision == "fp16":
        raise ConfigurationError("training: method 'supertickets' runs in fp32 or bf16, got fp16: choose one")
    search_device(problem)  # refuses what the machine does not have
    network = problem.build()
    supernet_positions = problem.everything(network).size
    problem.keep(supernet_positions)
    assert problem.density is not None
    per_epoch = len(problem.data.train_labels) // problem.training.batch_size
    moments = schedule(config, problem.training, density=problem.density, steps_per_epoch=per_epoch)
    problem.start_state(network)  # loads the weights to start from, if there are any
    search = SupernetSearch(problem, network, moments, threshold=config.threshold)
    identity = problem.identity(method, config)
    seconds = run_search(problem, search, name=method, steps=len(moments), identity=identity)
    final = {"step": float(len(moments)), **search.measures()}
    history = [
        _entry(dict(zip(RECORD, record, strict=True)), per_epoch=per_epoch, supernet_positions=supernet_positions)
        for record in (*search.records, [final[column] for column in RECORD])
    ]
    steps = len(moments)
    spent = Spent(examples=steps * problem.training.batch_size, steps=steps, seconds=seconds)
    return _ticket(problem, network, search.mask, spent, history, method=method)


def _ticket(
    problem: SearchProblem,
    network: nn.Module,
    mask: Mask,
    spent: Spent,
    history: Sequence[dict[str, Any]],
    *,
    method: str,
) -> Ticket:
    # The statistics of training are averages over networks that have since lost channels and weights.
    whole, batch_size = state_arrays(network), problem.training.batch_size
    state = weights_under(problem, network, mask, whole, batch_size=batch_size)
    accuracy = evaluate(network, problem.data, device=problem.training.device)
    info = problem.info(
        method,
        accuracy=accuracy,
        cost=costs(spent, spent),
        history=(*history[:-1], {**history[-1], "accuracy": accuracy}),
        structure="channel",
        ready=True,
    )
    return Ticket(mask=mask, weights=state, rewind_weights=None, info=info)


def _entry(record: Mapping[str, float], *, per_epoch: int, supernet_positions: int) -> dict[str, Any]:
    return {
        "epoch": record["step"] / per_epoch,
        "density": record["kept"] / record["positions"],
        "of_supernet": record["kept"] / supernet_positions,
        "channels": int(record["channels"]),
        "macs": int(record["macs"]),
        "kept_macs": int(record["kept_macs"]),
    }


def schedule(
    config: SuperTicketsConfig, training: TrainingConfig, *, density: float, steps_per_epoch: int
) -> list[Moment]:
    """Return what happens before each step of the search, and its rate.

    Cuts and prunings happen after whole intervals, and never within one of the end: what they leave is trained for at
    least as long.

    Raises:
        ConfigurationError: The epochs are too few for a cut, or for the prunings that the density takes.
    """
    total = max(1, round(training.epochs * steps_per_epoch))
    if config.order == "joint":
        return _run(config, training, density, steps_per_epoch, steps=total, pace=1, searches=True, prunes=True)
    half = total // 2
    moments: list[Moment] = []
    for steps, searches in ((half, config.order == "search_first"), (total - half, config.order == "prune_first")):
        before = moments[-1].sparsity if moments else 0.0
        moments += _run(
            config, training, density, steps_per_epoch, steps=steps, pace=2, searches=searches, prunes=not searches,
            before=before,
        )  # fmt: skip
    return moments


def _run(
    config: SuperTicketsConfig,
    training: TrainingConfig,
    density: float,
    steps_per_epoch: int,
    *,
    steps: int,
    pace: int,
    searches: bool,
    prunes: bool,
    before: float = 0.0,
) -> list[Moment]:
    """Return one run's moments; *before* is what was pruned when it starts."""
    shrink_steps, prune_steps = (
        max(1, round(epochs * steps_per_epoch / pace)) for epochs in (config.shrink_every, config.prune_every)
    )
    needed = math.ceil(round((1.0 - density) / config.prune_step, 9))
    for what, wanted, interval, option in (
        ("a cut", searches * 1, shrink_steps, "shrink_every"),
        (f"the {needed} prunings that density {density:g} takes", prunes * needed, prune_steps, "prune_every"),
    ):
        if steps < (wanted + 1) * interval and wanted:
            raise ConfigurationError(
                f"training: {training.epochs:g} epochs are too few for {what}, expected "
                f"{math.ceil(pace * (wanted + 1) * interval / steps_per_epoch):g} or more: train longer, or lower "
                f"method option '{option}'"
            )
    moments = []
    for step in range(steps):
        done = min(step // prune_steps, steps // prune_steps - 1)
        warm = min(1.0, (step + 1) * pace / max(1.0, config.warmup_epochs * steps_per_epoch))
        moments.append(
            Moment(
                rate=training.rate_at(step / steps),
                penalty=searches * pace * config.penalty * warm,
                sparsity=min(done * config.prune_step, 1.0 - density) if prunes else before,
                shrinks=searches and step > 0 and step % shrink_steps == 0 and step + shrink_steps <= steps,
                prunes=prunes and step > 0 and step % prune_steps == 0 and step + prune_steps <= steps,
                starts=step == 0,
            )
        )
    return moments
