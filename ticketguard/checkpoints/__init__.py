"""Weights that somebody else stored, read safely: tensors of hostile files, one reader a format, picked by content."""

from __future__ import annotations

from ticketguard.checkpoints.checkpoints import Checkpoint

__all__ = ["Checkpoint"]
