"""What attacks are: removal changes a stolen ticket, forgery claims it, evasion answers for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from ticketguard.credentials.claim import Claim
from ticketguard.credentials.credential import Credential
from ticketguard.data import Dataset
from ticketguard.models import load_arrays
from ticketguard.predictors import Predictor
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What anybody can have of a marked ticket, and a forger starts from.

    Attributes:
        ticket: The ticket as it was released.
        claim: The owner's public claim.
        build: Makes the model it belongs to.
    """

    ticket: Ticket
    claim: Claim
    build: Callable[[], torch.nn.Module]


class Removal(Protocol):
    """A way to change a stolen ticket so that its marks are gone: what it returns is what the thief ships."""

    @property
    def name(self) -> str:
        """The attack in a few words, with its strength."""
        ...

    def run(self, victim: Victim, *, generator: np.random.Generator) -> Ticket:
        """Return the changed ticket; *victim* is left alone."""
        ...


class Forgery(Protocol):
    """A way to claim a ticket that somebody else marked."""

    @property
    def name(self) -> str:
        """The attack in a few words."""
        ...

    def run(self, published: Published, *, generator: np.random.Generator) -> Credential:
        """Return a credential whose claim and vault belong together, for the forger to be judged by."""
        ...


class Evasion(Protocol):
    """A way to answer for a stolen model so that its marks do not show."""

    @property
    def name(self) -> str:
        """The attack in a few words, with its strength."""
        ...

    def run(self, predictor: Predictor, *, generator: np.random.Generator) -> Predictor:
        """Return what the thief lets others ask in place of *predictor*."""
        ...
