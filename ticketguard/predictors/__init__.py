"""Black-box suspects: something that answers one input with a class."""

from __future__ import annotations

from ticketguard.predictors.function import CallablePredictor
from ticketguard.predictors.http import HttpPredictor
from ticketguard.predictors.interface import Predictor
from ticketguard.predictors.onnx import OnnxPredictor

__all__ = ["CallablePredictor", "HttpPredictor", "OnnxPredictor", "Predictor"]
