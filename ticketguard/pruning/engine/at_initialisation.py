"""Pruning at initialisation: score every weight once, keep the best, train."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import nn

from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Found, Spent, train_found
from ticketguard.ticket import Array, Mask, Ticket

# Scores of the layers of the mask, higher is better, and the examples that scoring them took.
Scorer: TypeAlias = Callable[[nn.Module, Mask], tuple[Mapping[str, Array], Spent]]


def find_at_initialisation(problem: SearchProblem, *, method: str, score: Scorer) -> Ticket:
    """Return the ticket of the highest scores, trained from the weights that were scored.

    Args:
        problem: What is to be found.
        method: The method's name.
        score: Scores a network as it stands; it may change it.
    """
    network = problem.build()
    start = problem.start_state(network)
    everything = problem.everything(network)
    keep = problem.keep(everything.size)
    begun = time.perf_counter()
    scores, spent = score(network, everything)
    mask = problem.choose(scores, keep, within=everything, start=start)
    network.cpu()
    spent = spent + Spent(seconds=time.perf_counter() - begun)
    return train_found(problem, network, Found(mask=mask, start=start, spent=spent), method=method)
