"""IMP: iterative magnitude pruning, rewinding to initialisation (Frankle & Carbin 2019)."""

from __future__ import annotations

from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.magnitude_rounds import RoundsConfig, find_by_rounds
from ticketguard.pruning.engine.options import create_config
from ticketguard.ticket import Ticket


class IterativeMagnitudePruning:
    """Rounds of training, global magnitude pruning, and rewinding to the initial weights."""

    name = "imp"
    summary = "rounds of training and magnitude pruning, rewinding to initialisation"
    config = RoundsConfig
    chooses_weights = True
    takes = frozenset({"rewind"})

    def find(self, problem: SearchProblem) -> Ticket:
        """Return a ticket whose rewind weights are the network's initialisation."""
        config = create_config(RoundsConfig, problem.method_options)
        return find_by_rounds(problem, method=self.name, config=config)
