"""CTS: Concrete Ticket Search for the mask of the lowest loss (Arora & Teuscher 2025, arXiv 2512.07142)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from ticketguard.pruning.engine.concrete_search import find_concrete
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.ticket import Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return the ticket of the highest logits."""
    return find_concrete(problem, method=method, task=cross_entropy, passes=1.0)


def cross_entropy(logits: torch.Tensor, _dense: Callable[[], torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the masked network's mean cross-entropy; the dense network takes no part."""
    return functional.cross_entropy(logits, labels)
