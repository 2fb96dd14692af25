"""What a thief or a liar does with a stolen ticket, to measure which marks survive it, and who is believed."""

from __future__ import annotations

from ticketguard.attacks.evasion.input_noise import InputNoise
from ticketguard.attacks.forgery.own_marks import OwnMarks
from ticketguard.attacks.interface import Evasion, Forgery, Published, Removal, Victim
from ticketguard.attacks.removal.fine_tuning import FineTuning
from ticketguard.attacks.removal.pruning import FisherPruning, MagnitudePruning
from ticketguard.attacks.removal.regrowth import RandomRegrowth

__all__ = [
    "Evasion",
    "FineTuning",
    "FisherPruning",
    "Forgery",
    "InputNoise",
    "MagnitudePruning",
    "OwnMarks",
    "Published",
    "RandomRegrowth",
    "Removal",
    "Victim",
]
