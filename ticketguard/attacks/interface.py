"""What an attack is: it takes a stolen ticket and gives back what the thief would ship."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from ticketguard.data import Dataset
from ticketguard.models import load_arrays
from ticketguard.ticket import Ticket


@dataclasses.dataclass(frozen=True, kw_only=True)
class Victim:
    """What was stolen, and what the thief has at hand.

    Attributes:
        ticket: The stolen ticket.
        build: Makes the model it belongs to.
        data: The thief's data.
    """

    ticket: Ticket
    build: Callable[[], torch.nn.Module]
    data: Dataset

    def network(self) -> torch.nn.Module:
        """Return the model with the stolen weights."""
        network = self.build()
        load_arrays(network, self.ticket.weights)
        return network


class Attack(Protocol):
    """A way to change a stolen ticket; the mask of what it returns tells what the thief ships."""

    @property
    def name(self) -> str:
        """The attack in a few words, with its strength."""
        ...

    def run(self, victim: Victim, *, generator: np.random.Generator) -> Ticket:
        """Return the changed ticket; *victim* is left alone."""
        ...
