"""Random pruning at initialisation: the baseline that every search must beat."""

from __future__ import annotations

import dataclasses

import numpy as np

from ticketguard.pruning.engine.at_initialisation import find_at_initialisation
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.options import create_config
from ticketguard.pruning.engine.result import Spent
from ticketguard.ticket import Ticket


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Random pruning has no settings."""


class Random:
    """Keep weights drawn at random."""

    name = "random"
    summary = "weights drawn at random: the baseline that every search must beat"
    config = RandomConfig
    chooses_weights = True
    takes = frozenset({"rewind"})

    def find(self, problem: SearchProblem) -> Ticket:
        """Return a ticket of random weights."""
        create_config(RandomConfig, problem.method_options)
        generator = np.random.default_rng([problem.seed, 1])
        return find_at_initialisation(
            problem,
            method=self.name,
            score=lambda _, layers: ({name: generator.random(layers[name].shape) for name in layers}, Spent()),
        )
