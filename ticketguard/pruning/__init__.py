"""The pruning engine: every way to find a ticket, under one interface."""

from __future__ import annotations

from ticketguard.pruning.bip import BilevelPruning
from ticketguard.pruning.control_methods import Control
from ticketguard.pruning.controls import CONTROLS
from ticketguard.pruning.cts import ConcreteTicketSearch
from ticketguard.pruning.cts_kl import ConcreteTicketSearchKl
from ticketguard.pruning.grasp import Grasp
from ticketguard.pruning.grokking import Grokking
from ticketguard.pruning.imp import IterativeMagnitudePruning
from ticketguard.pruning.interface import Planting, PruningMethod, SearchProblem
from ticketguard.pruning.jackpot import LotteryJackpots
from ticketguard.pruning.layer_lottery import LayerLottery
from ticketguard.pruning.ltr import LotteryTicketRewinding
from ticketguard.pruning.magnitude import Magnitude
from ticketguard.pruning.random import Random
from ticketguard.pruning.snip import Snip
from ticketguard.pruning.supertickets import SuperTickets
from ticketguard.pruning.synflow import Synflow

# In the order in which 'find --methods' lists them.
METHODS: dict[str, PruningMethod] = {
    method.name: method
    for method in (
        IterativeMagnitudePruning(),
        LotteryTicketRewinding(),
        ConcreteTicketSearch(),
        ConcreteTicketSearchKl(),
        LotteryJackpots(),
        BilevelPruning(),
        SuperTickets(),
        Grokking(),
        LayerLottery(),
        Snip(),
        Grasp(),
        Synflow(),
        Magnitude(),
        Random(),
    )
}
METHODS.update({name: Control(name) for name in CONTROLS})

__all__ = ["CONTROLS", "METHODS", "Planting", "PruningMethod", "SearchProblem"]
