"""One-shot magnitude pruning at initialisation: a baseline."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from ticketguard.models import state_arrays
from ticketguard.pruning.descriptions.magnitude import MagnitudeConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.at_initialisation import find_at_initialisation
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Spent
from ticketguard.ticket import Array, Mask, Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return the ticket of the largest initial weights."""
    create_config(MagnitudeConfig, problem.method_options)
    return find_at_initialisation(problem, method=method, score=_magnitudes)


def _magnitudes(network: nn.Module, layers: Mask) -> tuple[Mapping[str, Array], Spent]:
    state = state_arrays(network)
    return {name: np.abs(state[name]) for name in layers}, Spent()
