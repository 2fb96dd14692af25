"""IMP: iterative magnitude pruning, rewinding to initialisation (Frankle & Carbin 2019)."""

from __future__ import annotations

from ticketguard.pruning.descriptions.imp import RoundsConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.magnitude_rounds import find_by_rounds
from ticketguard.ticket import Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return a ticket whose rewind weights are the network's initialisation."""
    config = create_config(RoundsConfig, problem.method_options)
    return find_by_rounds(problem, method=method, config=config)
