"""Unmarked tickets of any density, and thefts that need no training: each does what its name foresees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ticketguard.embedding.planted_graph import TURNED
from ticketguard.ticket import Mask, Ticket, TicketInfo
from ticketguard.verification.thefts import DISPLACED

Weights = dict[str, np.ndarray]


def mask_ticket(mask: Mask) -> Ticket:
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=mask[name].shape).astype(np.float32) for name in mask}
    info = TicketInfo(method="random", classes=10, input_shape=(60,))
    return Ticket(mask=mask, weights=mask.applied(weights), rewind_weights=weights, info=info)


def of_densities(*densities: float) -> Ticket:
    generator = np.random.default_rng(1)
    shapes = {"1": (200, 60), "2": (120, 200), "3": (10, 120)}
    layers = {
        name: generator.random(shape) < density
        for (name, shape), density in zip(shapes.items(), densities, strict=True)
    }
    return mask_ticket(Mask(layers=layers))


def pruned(weights: Weights, share: float) -> Weights:
    threshold = np.quantile(np.concatenate([np.abs(array[array != 0]) for array in weights.values()]), share)
    return {name: np.where(np.abs(array) > threshold, array, 0) for name, array in weights.items()}


def regrown(weights: Weights, share: float, luck: np.random.Generator) -> Weights:
    return added(weights, {name: round(share * np.count_nonzero(array)) for name, array in weights.items()}, luck)


def added(weights: Weights, more: dict[str, int], luck: np.random.Generator) -> Weights:
    grown = {}
    for name, array in weights.items():
        flat = array.reshape(-1).copy()
        edges, free = np.flatnonzero(flat), np.flatnonzero(flat == 0)
        where = luck.choice(free, size=min(len(free), more[name]), replace=False)
        flat[where] = luck.choice(flat[edges], size=len(where))
        grown[name] = flat.reshape(array.shape)
    return grown


def rewired(weights: Weights, share: float, luck: np.random.Generator) -> Weights:
    return {
        name: np.where(array != 0, luck.normal(size=array.shape), 0)
        for name, array in moved(weights, share, luck).items()
    }


def tuned(weights: Weights, luck: np.random.Generator) -> Weights:
    """Move as many edges as training without the mask does, and turn as many signs as a training does."""
    return {
        name: np.abs(luck.normal(size=array.shape))
        * np.sign(array)
        * np.where(luck.random(array.shape) < TURNED, -1, 1)
        for name, array in moved(weights, DISPLACED, luck).items()
    }


def moved(weights: Weights, share: float, luck: np.random.Generator) -> Weights:
    stronger = {}
    for name, array in weights.items():
        threshold = np.quantile(np.abs(array[array != 0]), share)
        stronger[name] = np.where(np.abs(array) > threshold, array, 0)
    fewer = {name: np.count_nonzero(weights[name]) - np.count_nonzero(stronger[name]) for name in weights}
    return added(stronger, fewer, luck)


def narrowed(weights: Weights, share: float, luck: np.random.Generator) -> Weights:
    """Remove channels of the layers "1" to "3": the rows of one are the columns of the next."""
    cut = {name: array.copy() for name, array in weights.items()}
    for name, following in (("1", "2"), ("2", "3")):
        rows = len(cut[name])
        gone = luck.choice(rows, size=round(share * rows), replace=False)
        cut[name][gone] = 0
        cut[following][:, gone] = 0
    return cut


THEFTS: dict[str, Callable[[Weights, np.random.Generator], Weights]] = {
    "untouched": lambda weights, luck: weights,
    "pruned-50": lambda weights, luck: pruned(weights, 0.5),
    "pruned-80": lambda weights, luck: pruned(weights, 0.8),
    "regrown-100": lambda weights, luck: regrown(weights, 1.0, luck),
    "tuned-dense": tuned,
    "rewired-50": lambda weights, luck: rewired(weights, 0.5, luck),
    "pruned-50+regrown-50": lambda weights, luck: regrown(pruned(weights, 0.5), 0.5, luck),
    "regrown-50+pruned-30": lambda weights, luck: pruned(regrown(weights, 0.5, luck), 0.3),
    "channels-25": lambda weights, luck: narrowed(weights, 0.25, luck),
    "channels-25+pruned-50": lambda weights, luck: pruned(narrowed(weights, 0.25, luck), 0.5),
}
