"""Training: the loop, its recipe, and what takes part in it."""

from __future__ import annotations

from ticketguard.training.config import Hooks, NoHooks, NoProgress, Progress, TrainingConfig, Watch
from ticketguard.training.devices import drawn_once, held_by_first_process, in_first_process, join_processes
from ticketguard.training.loop import TrainingResult, evaluate, train
from ticketguard.training.recipes import recommended_training, training_of
from ticketguard.training.watching import AccuracyWatch

__all__ = [
    "AccuracyWatch",
    "Hooks",
    "NoHooks",
    "NoProgress",
    "Progress",
    "TrainingConfig",
    "TrainingResult",
    "Watch",
    "drawn_once",
    "evaluate",
    "held_by_first_process",
    "in_first_process",
    "join_processes",
    "recommended_training",
    "train",
    "training_of",
]
