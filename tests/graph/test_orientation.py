"""Which way a layer's channels point is fitted by anchors alone."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_start import a_start, strongest, trained

from ticketguard.graph.orientation import orientation

LUCK = np.random.default_rng(3)


@pytest.fixture(scope="module")
def layer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    reference, weights = a_start(shapes={"a": (60, 80)})
    return trained(weights)["a"], reference.layer_weights("a"), reference.anchors("a").reshape(60, 80)


def flips(size: int) -> np.ndarray:
    return LUCK.choice(np.array([-1, 1], dtype=np.int8), size=size)


def test_flipped_rows_and_columns_are_found(layer) -> None:
    suspect, start, anchors = layer
    rows, columns = flips(60), np.where(np.arange(80) % 5 == 0, -1, 1)
    found = orientation((suspect * rows[:, None] * columns).astype(np.float32), start, anchors)
    # All signs of rows and of columns may be the other ones.
    way = 1 if found.rows @ rows > 0 else -1
    assert (found.rows == way * rows).mean() >= 0.98
    assert (found.columns == way * columns).mean() >= 0.95
    undone = found.undo((suspect * rows[:, None] * columns).astype(np.float32))
    assert (np.sign(undone) == np.sign(suspect)).mean() >= 0.97


def test_an_untouched_layer_is_left_as_it_is(layer) -> None:
    suspect, start, anchors = layer
    found = orientation(suspect, start, anchors)
    assert found.is_straight
    assert found.undo(suspect) is suspect


def test_votes_are_not_looked_at(layer) -> None:
    suspect, start, anchors = layer
    suspect, rows = strongest(suspect, 0.05), flips(60)
    flipped = (suspect * rows[:, None]).astype(np.float32)
    other = np.where(anchors, flipped, -flipped)
    one, same = (orientation(each, start, anchors) for each in (flipped, other))
    assert np.array_equal(one.rows, same.rows)
    assert np.array_equal(one.columns, same.columns)


def with_two_anchors(layer, contradicting: np.ndarray) -> np.ndarray:
    """Return a layer of which row 0 has but two anchors left, the largest of the start, both with the other sign."""
    suspect, start, anchors = layer
    result = (suspect * np.where(contradicting, -1, 1)[:, None]).astype(np.float32)
    result[0] = 0
    largest = np.argsort(-np.abs(np.where(anchors[0], start[0], 0)))[:2]
    result[0, largest] = -start[0, largest]
    return result


def test_a_row_of_two_anchors_is_flipped_only_where_many_are(layer) -> None:
    _, start, anchors = layer
    nobody, many = np.zeros(60, bool), np.arange(60) % 2 == 0
    few = slice(0, 8)
    straight = with_two_anchors(layer, nobody)
    assert orientation(straight[few], start[few], anchors[few]).rows[0] == 1
    assert orientation(with_two_anchors(layer, many), start, anchors).rows[0] == -1


def test_kernels_vectors_and_empty_layers_are_oriented() -> None:
    reference, weights = a_start(shapes={"k": (12, 6, 3, 3), "v": (50,)})
    suspect = trained(weights, density=0.5)
    rows = flips(12)
    anchors = reference.anchors("k")
    found = orientation(
        (suspect["k"] * rows.reshape(-1, 1, 1, 1)).astype(np.float32), reference.layer_weights("k"), anchors
    )
    assert np.array_equal(found.rows, rows)
    assert orientation(np.zeros_like(suspect["k"]), reference.layer_weights("k"), anchors).is_straight
    assert orientation(suspect["v"], reference.layer_weights("v"), reference.anchors("v")).columns.shape == (1,)


def test_rows_point_where_their_large_weights_do(layer) -> None:
    """Small weights are turned for nothing: more of them than large ones, and against these."""
    _, start, anchors = layer
    luck = np.random.default_rng(6)
    # Rows of a dense network, scaled as they like.
    scales = np.exp(luck.normal(size=(60, 1)))
    dense = np.sign(start) * luck.exponential(size=start.shape) * scales
    turned = np.where(np.abs(dense) < np.quantile(np.abs(dense), 0.7, axis=1, keepdims=True), -dense, dense)
    assert (orientation(turned.astype(np.float32), start, anchors).rows > 0).mean() >= 0.95


def test_signs_that_are_turned_here_and_there_are_no_flipped_rows(layer) -> None:
    suspect, start, anchors = layer
    luck = np.random.default_rng(2)
    turned = np.where(luck.random(suspect.shape) < 0.33, -suspect, suspect).astype(np.float32)
    assert (orientation(turned, start, anchors).rows > 0).mean() >= 0.98
