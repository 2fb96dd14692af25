"""Rewind weights for searches that do not train: the dense network's, early in its training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.finishing import Spent, train_dense
from ticketguard.pruning.interface import SearchProblem
from ticketguard.ticket import Array


def require_rewind(problem: SearchProblem, rewind_epochs: float) -> None:
    """Check that the rewind point lies within the problem's recipe, and that no rewind weights were given besides.

    Raises:
        ConfigurationError: One is not so.
    """
    if rewind_epochs and problem.rewind is not None:
        raise ConfigurationError("rewind weights were given, and rewind_epochs too: leave one of them out")
    if rewind_epochs >= problem.training.epochs:
        raise ConfigurationError(
            f"rewind_epochs is {rewind_epochs:g}, expected below the {problem.training.epochs:g} epochs of the training"
        )


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
    examples = len(problem.data.train_labels)
    step = max(1, round(rewind_epochs * (examples // min(problem.training.batch_size, examples))))
    # The seed of LTR's first round.
    dense = train_dense(problem, network, problem.training, seed=problem.seed + 1000, stop_step=step)
    return dense.state, dense.spent
