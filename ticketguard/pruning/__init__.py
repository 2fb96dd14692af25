"""The pruning engine: every way to find a ticket, under one interface.

Names and options of the methods are known without torch; whatever searches is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ticketguard.lazily import loader
from ticketguard.pruning.descriptions.controls import CONTROLS
from ticketguard.pruning.registry import METHODS

if TYPE_CHECKING:
    from ticketguard.pruning.engine.interface import Planting, PruningMethod, SearchProblem

__all__ = ["CONTROLS", "METHODS", "Planting", "PruningMethod", "SearchProblem"]
__getattr__ = loader(
    __name__, dict.fromkeys(("Planting", "PruningMethod", "SearchProblem"), "ticketguard.pruning.engine.interface")
)
