"""The pruning engine: every way to find a ticket, under one interface.

Names and options of the methods are known without torch; whatever searches is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ticketguard.pruning.descriptions.controls import CONTROLS
from ticketguard.pruning.registry import METHODS

if TYPE_CHECKING:
    from ticketguard.pruning.engine.interface import Planting, PruningMethod, SearchProblem

__all__ = ["CONTROLS", "METHODS", "Planting", "PruningMethod", "SearchProblem"]


def __getattr__(name: str) -> object:
    """Load what needs torch on its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'ticketguard.pruning' has no attribute {name!r}")
    value: object = getattr(importlib.import_module("ticketguard.pruning.engine.interface"), name)
    globals()[name] = value
    return value
