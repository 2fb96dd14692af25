"""One-shot magnitude pruning at initialisation: a baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from torch import nn

from ticketguard.models import state_arrays
from ticketguard.pruning.engine.at_initialisation import find_at_initialisation
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.options import create_config
from ticketguard.pruning.engine.result import Spent
from ticketguard.ticket import Array, Mask, Ticket


@dataclasses.dataclass(frozen=True, kw_only=True)
class MagnitudeConfig:
    """Magnitude pruning has no settings."""


class Magnitude:
    """Keep the weights that are largest at initialisation."""

    name = "magnitude"
    summary = "the weights that are largest at initialisation: a baseline"
    config = MagnitudeConfig
    chooses_weights = True
    takes = frozenset({"rewind"})

    def find(self, problem: SearchProblem) -> Ticket:
        """Return the ticket of the largest initial weights."""
        create_config(MagnitudeConfig, problem.method_options)
        return find_at_initialisation(problem, method=self.name, score=_magnitudes)


def _magnitudes(network: nn.Module, layers: Mask) -> tuple[Mapping[str, Array], Spent]:
    state = state_arrays(network)
    return {name: np.abs(state[name]) for name in layers}, Spent()
