"""The pruning engine: every way to find a ticket, under one interface."""

from __future__ import annotations

from ticketguard.pruning.engine.interface import Planting, PruningMethod, SearchProblem
from ticketguard.pruning.methods.bip import BilevelPruning
from ticketguard.pruning.methods.control_methods import Control
from ticketguard.pruning.methods.controls import CONTROLS
from ticketguard.pruning.methods.cts import ConcreteTicketSearch
from ticketguard.pruning.methods.cts_kl import ConcreteTicketSearchKl
from ticketguard.pruning.methods.grasp import Grasp
from ticketguard.pruning.methods.grokking import Grokking
from ticketguard.pruning.methods.imp import IterativeMagnitudePruning
from ticketguard.pruning.methods.jackpot import LotteryJackpots
from ticketguard.pruning.methods.layer_lottery import LayerLottery
from ticketguard.pruning.methods.ltr import LotteryTicketRewinding
from ticketguard.pruning.methods.magnitude import Magnitude
from ticketguard.pruning.methods.random import Random
from ticketguard.pruning.methods.snip import Snip
from ticketguard.pruning.methods.supertickets import SuperTickets
from ticketguard.pruning.methods.synflow import Synflow

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
