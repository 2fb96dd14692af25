"""CTS-KL: Concrete Ticket Search for the mask that keeps the dense network's answers (arXiv 2512.07142)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from ticketguard.pruning.engine.concrete_search import find_concrete
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.ticket import Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return the ticket of the highest logits."""
    # The dense network's forward pass is half of a backward pass, a third of both.
    return find_concrete(problem, method=method, task=reverse_divergence, passes=4 / 3)


def reverse_divergence(logits: torch.Tensor, dense: Callable[[], torch.Tensor], _labels: torch.Tensor) -> torch.Tensor:
    """Return KL(sparse || dense) of the class probabilities, the mean over the batch; labels take no part.

    Dense is the network at the same frozen rewind weights without a mask, on the same batch and normalised by that
    batch's statistics, as the paper's official code has it. No gradient flows through it.
    """
    return functional.kl_div(
        dense().log_softmax(dim=1), logits.log_softmax(dim=1), reduction="batchmean", log_target=True
    )
