"""Start weights of a small perceptron, and networks that could have been trained from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from drawn_perceptron import SHAPES, State

from ticketguard.ticket.start_reference import StartLayer, StartReference

# As the rule makes them: 70%.
ANCHORS = 179


def a_start(seed: int = 0, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> tuple[StartReference, State]:
    luck = np.random.default_rng(seed)
    weights = {name: luck.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    layers = {name: StartLayer.of(name, layer, share=ANCHORS) for name, layer in weights.items()}
    return StartReference(layers=layers), weights


def trained(weights: State, *, density: float = 0.15, moved: float = 0.5, seed: int = 1) -> State:
    """Return what training makes of start weights: others, of which the largest are kept."""
    luck = np.random.default_rng(seed)
    after = {name: layer + moved * luck.normal(size=layer.shape) for name, layer in weights.items()}
    return {name: strongest(layer.astype(np.float32), density) for name, layer in after.items()}


def strongest(layer: np.ndarray, share: float) -> np.ndarray:
    return np.where(np.abs(layer) >= np.quantile(np.abs(layer), 1 - share), layer, np.float32(0))


def unrelated(seed: int, density: float = 0.15, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> State:
    luck = np.random.default_rng(seed)
    return {name: strongest(luck.normal(size=shape).astype(np.float32), density) for name, shape in shapes.items()}


def rescaled(state: State, seed: int = 6) -> State:
    """Return layers whose outputs are scaled, as a norm behind them undoes it."""
    luck = np.random.default_rng(seed)
    scales = {name: np.exp(luck.normal(size=len(layer))) for name, layer in state.items()}
    return {
        name: (layer * scales[name].reshape(-1, *[1] * (layer.ndim - 1))).astype(np.float32)
        for name, layer in state.items()
    }
