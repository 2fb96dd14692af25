"""Random pruning at initialisation: the baseline that every search must beat."""

from __future__ import annotations

import numpy as np

from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.descriptions.random import RandomConfig
from ticketguard.pruning.engine.at_initialisation import find_at_initialisation
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Spent
from ticketguard.seeds import entropy_of
from ticketguard.ticket import Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return a ticket of random weights."""
    create_config(RandomConfig, problem.method_options)
    generator = np.random.default_rng([entropy_of(problem.seed), 1])
    return find_at_initialisation(
        problem,
        method=method,
        score=lambda _, layers: ({name: generator.random(layers[name].shape) for name in layers}, Spent()),
    )
