"""The pruning engine: every way to find a ticket, under one interface."""

from __future__ import annotations

from ticketguard.pruning.imp import IterativeMagnitudePruning
from ticketguard.pruning.interface import Planting, PruningMethod, SearchProblem
from ticketguard.pruning.ltr import LotteryTicketRewinding
from ticketguard.pruning.magnitude import Magnitude
from ticketguard.pruning.random import Random

METHODS: dict[str, PruningMethod] = {
    method.name: method
    for method in (
        IterativeMagnitudePruning(),
        LotteryTicketRewinding(),
        Magnitude(),
        Random(),
    )
}

__all__ = ["METHODS", "Planting", "PruningMethod", "SearchProblem"]
