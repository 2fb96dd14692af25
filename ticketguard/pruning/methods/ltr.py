"""LTR: lottery tickets with rewinding to an early step of training (Frankle et al. 2020)."""

from __future__ import annotations

from ticketguard.pruning.descriptions.ltr import REWIND_SHARE, RewindingConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.magnitude_rounds import find_by_rounds
from ticketguard.ticket import Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return a ticket whose rewind weights are the network's after ``rewind_epochs``."""
    early = problem.training.epochs * float(REWIND_SHARE)
    # Rewind weights that were given are early ones already.
    defaults = {} if problem.rewind is not None else {"rewind_epochs": early}
    config = create_config(RewindingConfig, problem.method_options, **defaults)
    return find_by_rounds(problem, method=method, config=config)
