"""The pruning engine: every way to find a ticket, under one interface."""

from __future__ import annotations

from ticketguard.pruning.imp import IterativeMagnitudePruning
from ticketguard.pruning.interface import PruningMethod, SearchProblem
from ticketguard.pruning.ltr import LotteryTicketRewinding

METHODS: dict[str, PruningMethod] = {
    method.name: method for method in (IterativeMagnitudePruning(), LotteryTicketRewinding())
}

__all__ = ["METHODS", "PruningMethod", "SearchProblem"]
