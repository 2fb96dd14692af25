"""Black-box suspects: something that answers one input with a class."""

from __future__ import annotations

from ticketguard.suspects.predictors.function import CallablePredictor
from ticketguard.suspects.predictors.http import HttpPredictor
from ticketguard.suspects.predictors.interface import Predictor
from ticketguard.suspects.predictors.onnx import OnnxPredictor

__all__ = ["CallablePredictor", "HttpPredictor", "OnnxPredictor", "Predictor"]
