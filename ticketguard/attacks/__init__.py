"""What a thief does to a stolen ticket, to measure which marks survive it."""

from __future__ import annotations

from ticketguard.attacks.interface import Attack, Victim
from ticketguard.attacks.removal.fine_tuning import FineTuning
from ticketguard.attacks.removal.pruning import FisherPruning, MagnitudePruning
from ticketguard.attacks.removal.regrowth import RandomRegrowth

__all__ = ["Attack", "FineTuning", "FisherPruning", "MagnitudePruning", "RandomRegrowth", "Victim"]
