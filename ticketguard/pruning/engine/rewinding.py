"""Rewind weights for searches that do not train: the dense network's, early in its training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.engine.dense import train_dense
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Spent
from ticketguard.ticket import Array


def require_rewind(problem: SearchProblem, rewind_epochs: float, *, epochs: float, of: str) -> None:
    """Check that the rewind point lies within a training, and that no rewind weights were given besides.

    Args:
        problem: Says what was given.
        rewind_epochs: Epochs after which the rewind weights are taken; 0 for the start.
        epochs: Epochs of the training.
        of: What the training is, for the errors.

    Raises:
        ConfigurationError: One is not so.
    """
    if rewind_epochs and problem.rewind is not None:
        raise ConfigurationError("rewind weights were given, and rewind_epochs too: leave one of them out")
    if rewind_epochs >= epochs:
        raise ConfigurationError(f"rewind_epochs is {rewind_epochs:g}, expected below the {epochs:g} epochs of {of}")


def rewind_step(problem: SearchProblem, rewind_epochs: float) -> int:
    """Return the step after which the rewind weights are taken; 0 for the start."""
    examples = len(problem.data.train_labels)
    per_epoch = examples // min(problem.training.batch_size, examples)
    return max(1, round(rewind_epochs * per_epoch)) if rewind_epochs else 0


def round_seed(problem: SearchProblem, number: int) -> int:
    """Return the seed of training round *number*, from 0; each but the last, which has the search's own, has another.

    Each round of IMP sees the data in another order.
    """
    return problem.seed + 1000 * (number + 1)


def rewind_state(
    problem: SearchProblem, network: nn.Module, *, rewind_epochs: float
) -> tuple[Mapping[str, Array], Spent]:
    """Return the weights that a ticket starts from, and what getting them took; *network* is left holding them.

    They are those that were given, or *network*'s own, or, with *rewind_epochs*, the ones that LTR's first round
    passes so many epochs after its start: of one seed, both methods search from the same weights.
    """
    start = problem.start_state(network)
    if not rewind_epochs:
        return start, Spent()
    step = rewind_step(problem, rewind_epochs)
    dense = train_dense(problem, network, problem.training, seed=round_seed(problem, 0), stop_step=step)
    return dense.state, dense.spent
