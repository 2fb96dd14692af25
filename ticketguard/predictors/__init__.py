"""Black-box suspects: something that answers one input with a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ticketguard.lazily import loader
from ticketguard.predictors.interface import Predictor

if TYPE_CHECKING:
    from ticketguard.predictors.function import CallablePredictor
    from ticketguard.predictors.http import HttpPredictor
    from ticketguard.predictors.onnx import OnnxPredictor

__all__ = ["CallablePredictor", "HttpPredictor", "OnnxPredictor", "Predictor"]
__getattr__ = loader(
    __name__,
    {
        "CallablePredictor": "ticketguard.predictors.function",
        "HttpPredictor": "ticketguard.predictors.http",
        "OnnxPredictor": "ticketguard.predictors.onnx",
    },
)
