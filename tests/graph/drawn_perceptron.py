"""A sparse perceptron that no training made, in its own order and in another."""

from __future__ import annotations

import numpy as np

from ticketguard.graph import GroupMember, groups_from_json
from ticketguard.graph.similarity import Edges, strongest_edges
from ticketguard.ticket import Mask, Reference

State = dict[str, np.ndarray]
SHAPES = {"a": (60, 80), "b": (70, 60), "c": (10, 70)}
GROUPS = groups_from_json([[["a", 0, 1, 0, 60], ["b", 1, 1, 0, 60]], [["b", 0, 1, 0, 70], ["c", 1, 1, 0, 70]]])


def whole(tensor: str, axis: int, channels: int, *, block: int = 1) -> GroupMember:
    return GroupMember(tensor=tensor, axis=axis, block=block, runs=((0, channels),))


def edges_of(layer: np.ndarray) -> Edges:
    return strongest_edges(layer.astype(np.float32), int(np.count_nonzero(layer)))


def a_network(seed: int = 0, density: float = 0.1) -> tuple[Reference, State]:
    luck = np.random.default_rng(seed)
    weights = {name: luck.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    masks = {name: luck.random(shape) < density for name, shape in SHAPES.items()}
    reference = Reference(mask=Mask(layers=masks), kept_weights={name: weights[name][masks[name]] for name in masks})
    return reference, {name: weights[name] * masks[name] for name in masks}


def permuted(state: State, seed: int = 5) -> tuple[State, list[np.ndarray]]:
    luck = np.random.default_rng(seed)
    first, second = luck.permutation(len(state["a"])), luck.permutation(len(state["b"]))
    moved = {"a": state["a"][first], "b": state["b"][second][:, first], "c": state["c"][:, second]}
    return moved, [np.argsort(first), np.argsort(second)]
