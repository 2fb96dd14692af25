"""What is examined: a checkpoint (its tensors) or a predictor (its answers). Suspects are hostile input."""

from __future__ import annotations

from ticketguard.suspects.checkpoints import Checkpoint
from ticketguard.suspects.predictors import CallablePredictor, HttpPredictor, OnnxPredictor, Predictor

__all__ = ["CallablePredictor", "Checkpoint", "HttpPredictor", "OnnxPredictor", "Predictor"]
