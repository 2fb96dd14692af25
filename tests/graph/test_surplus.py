"""Dead neurons that are joined to everything, beside a sparse network's own."""

from __future__ import annotations

import numpy as np
import pytest

from ticketguard.graph import align, groups_from_json
from ticketguard.graph.surplus import without_full_channels
from ticketguard.ticket import Mask, Reference

GROUPS = groups_from_json([[["a", 0, 1, 0, 60], ["b", 1, 1, 0, 60]], [["b", 0, 1, 0, 70], ["c", 1, 1, 0, 70]]])
SHAPES = {"a": (60, 40, 3, 3), "b": (70, 60, 3, 3), "c": (10, 70)}


def sparse(seed: int = 0) -> dict[str, np.ndarray]:
    luck = np.random.default_rng(seed)
    return {
        name: (luck.normal(size=shape) * (luck.random(shape) < 0.05)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def widened(layer: np.ndarray, rows: int, columns: int, size: float = 100.0) -> np.ndarray:
    wide = np.full((layer.shape[0] + rows, layer.shape[1] + columns, *layer.shape[2:]), size, np.float32)
    wide[: layer.shape[0], : layer.shape[1]] = layer
    return wide


@pytest.mark.parametrize("name", SHAPES)
def test_the_fullest_channels_beyond_the_references_are_left_out(name: str) -> None:
    layer = sparse()[name]
    wide = widened(layer, 8, 5)
    found = without_full_channels(wide, layer.shape, most=0)
    assert (found == widened(layer, 8, 5, 0.0)).all()
    assert without_full_channels(wide, layer.shape, most=int(np.count_nonzero(wide))) is wide


def test_no_more_are_left_out_than_there_are_too_many() -> None:
    layer = sparse()["a"]
    wide = widened(layer, 8, 0)
    found = without_full_channels(wide, (65, 40, 3, 3), most=0)
    assert np.count_nonzero(found.reshape(68, -1).all(axis=1)) == 5
    assert (found[:60] == layer).all()
    assert without_full_channels(layer, layer.shape, most=0) is layer
    assert without_full_channels(np.ones(5, np.float32), (3,), most=0).all()


def test_where_all_channels_are_as_full_none_is_left_out() -> None:
    dense = np.random.default_rng(0).normal(size=(70, 40)).astype(np.float32)
    assert (without_full_channels(dense, (60, 40), most=0) == dense).all()
    assert not without_full_channels(np.zeros((70, 40), np.float32), (60, 40), most=-1).any()


@pytest.mark.parametrize("count", [8, 30])
def test_a_permuted_copy_among_dead_neurons_that_are_joined_to_everything_is_aligned(count: int) -> None:
    state = sparse()
    masks = {name: layer != 0 for name, layer in state.items()}
    reference = Reference(mask=Mask(layers=masks), kept_weights={name: state[name][masks[name]] for name in masks})
    luck = np.random.default_rng(1)
    first, second = luck.permutation(60 + count), luck.permutation(70 + count)
    suspect = {
        "a": widened(state["a"], count, 0)[first],
        "b": widened(state["b"], count, count)[second][:, first],
        "c": widened(state["c"], 0, count)[:, second],
    }
    found = align(suspect, reference, GROUPS)
    for name, layer in state.items():
        assert (found.apply(name, suspect[name], layer.shape) == layer).mean() > 0.99
