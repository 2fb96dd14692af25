"""Grokking tickets: the mask of a network that has come to generalise, under which its initialisation does so early.

Minegishi et al., "Bridging Lottery Ticket and Grokking: Understanding Grokking from Inner Structure of Networks":
a network that is trained long after it fits its training data comes to generalise; a mask taken from it then, one-shot
by magnitude, removes most of the delay. Masks from before do not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from torch import nn

from ticketguard.errors import ConfigurationError, TicketguardError
from ticketguard.pruning.descriptions.grokking import GENERALISED, MEMORISED, GrokkingConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.dense import Pretrained, pretrained_network
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Found, train_found
from ticketguard.ticket import Ticket
from ticketguard.training import AccuracyWatch, evaluate

# The accuracy whose first step the history records, for the training and the test data.
REPORTED_ACCURACY = 0.95


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return a ticket that generalises soon after it fits.

    Raises:
        TicketguardError: The dense network did not come to generalise, or did so as soon as it fitted where a
            mask from before is asked for.
    """
    config = create_config(GrokkingConfig, problem.method_options)
    network = problem.build()
    start = problem.start_state(network)
    everything = problem.everything(network)
    keep = problem.keep(everything.size)
    dense_watch = _watch(
        problem,
        config,
        until_train=config.train_accuracy if config.stage == MEMORISED else None,
        until_test=config.test_accuracy if config.stage == GENERALISED else None,
    )
    batches = max(1, len(problem.data.train_labels) // problem.training.batch_size)
    dense = pretrained_network(problem, network, epochs=config.max_steps / batches, method=method, watch=dense_watch)
    _require_stage(problem, config, network, dense)
    scores = {name: np.abs(dense.state[name]) for name in everything}
    found = Found(
        mask=problem.choose(scores, keep, within=everything, start=start),
        start=start,
        spent=dense.spent,
        dense_accuracy=dense.accuracy if config.stage == GENERALISED else None,
        history=(_entry(dense_watch, 1.0, dense.accuracy, dense.spent.steps, dense.spent.seconds),),
    )
    watch = _watch(problem, config)
    ticket = train_found(problem, network, found, method=method, watch=watch)
    return _with_own_entry(ticket, watch)


def _watch(problem: SearchProblem, config: GrokkingConfig, **until: float | None) -> AccuracyWatch:
    return AccuracyWatch(
        problem.data,
        every=config.evaluate_every,
        level=REPORTED_ACCURACY,
        **until,
    )


def _require_stage(problem: SearchProblem, config: GrokkingConfig, network: nn.Module, dense: Pretrained) -> None:
    """Check that the dense network is where the mask is to be taken."""
    fit = evaluate(network, problem.data, device=problem.training.device, part="train")
    network.cpu()
    given = problem.pretrained is not None
    if config.stage == GENERALISED:
        what, reached, wanted = "test", dense.accuracy, config.test_accuracy
    else:
        what, reached, wanted = "training", fit, config.train_accuracy
    if reached < wanted and given:
        raise ConfigurationError(
            f"the pretrained network's {what} accuracy is {reached:.4f}, expected at least {wanted:g}: "
            f"train it longer, or lower {what.removesuffix('ing')}_accuracy"
        )
    if reached < wanted:
        verb = "generalise" if config.stage == GENERALISED else "fit its training data"
        raise TicketguardError(
            f"the dense network did not {verb} in {dense.spent.steps} steps: {what} accuracy is {reached:.4f}, "
            f"expected at least {wanted:g}: raise max_steps or the weight decay, or use more training examples"
        )
    if config.stage == MEMORISED and dense.accuracy >= config.test_accuracy:
        raise TicketguardError(
            f"the dense network generalises as soon as it fits: test accuracy is {dense.accuracy:.4f}, expected below "
            f"{config.test_accuracy:g}: use fewer training examples, or measure more often"
        )


def _entry(watch: AccuracyWatch, density: float, accuracy: float, steps: int, seconds: float) -> dict[str, Any]:
    """Return an entry of the history; ``train_step`` and ``test_step`` are the first at `REPORTED_ACCURACY`."""
    return {
        "density": density,
        "accuracy": accuracy,
        "steps": steps,
        "seconds": seconds,
        "train_step": watch.train_step,
        "test_step": watch.test_step,
    }


def _with_own_entry(ticket: Ticket, watch: AccuracyWatch) -> Ticket:
    info = ticket.info
    assert info.accuracy is not None
    own = _entry(
        watch,
        ticket.mask.density,
        info.accuracy,
        int(info.cost["steps"] - info.cost["search_steps"]),
        info.cost["seconds"] - info.cost["search_seconds"],
    )
    return dataclasses.replace(ticket, info=dataclasses.replace(info, history=(*info.history, own)))
