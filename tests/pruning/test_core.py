from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.engine.selection import full_mask, global_top_k
from ticketguard.ticket import Array, Mask

SHAPES = {"a": (3, 4), "b": (2, 2, 3, 3), "c": (7, 1)}


def draw(seed: int, *, levels: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    if levels:
        return {name: generator.integers(levels, size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return {name: generator.random(shape).astype(np.float32) for name, shape in SHAPES.items()}


@given(st.integers(0, 2**32 - 1), st.integers(3, 55), st.integers(0, 3))
def test_exactly_so_many_are_kept_within_the_mask_and_no_layer_is_empty(seed: int, keep: int, levels: int) -> None:
    within = Mask(layers={name: layer > 0.2 for name, layer in draw(seed + 1).items()})
    if not len(SHAPES) <= keep <= within.kept or not all(within[name].any() for name in within):
        return
    mask = global_top_k(draw(seed, levels=levels), keep, within=within)
    assert mask.kept == keep
    for name in mask:
        assert mask[name].any()
        assert not (mask[name] & ~within[name]).any()


@given(st.integers(0, 2**32 - 1), st.integers(20, 54))
def test_no_dropped_score_beats_a_kept_one(seed: int, keep: int) -> None:
    scores = draw(seed)
    mask = global_top_k(scores, keep, within=full_mask(SHAPES))
    kept = np.concatenate([scores[name][mask[name]] for name in mask])
    dropped = np.concatenate([scores[name][~mask[name]] for name in mask])
    best_of_layers = {scores[name].max() for name in mask}
    losers = [score for score in kept if score not in best_of_layers]
    assert not losers or min(losers) >= dropped.max()


def test_equal_scores_are_kept_in_order_of_name_and_position() -> None:
    scores = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    mask = global_top_k(scores, 9, within=full_mask(SHAPES))
    # One of each layer first, so that none is empty; then the first positions of the first layer.
    assert [int(mask[name].sum()) for name in mask] == [7, 1, 1]
    assert mask["a"].reshape(-1)[:7].all()
    assert mask["b"].reshape(-1)[0]
    assert mask["c"].reshape(-1)[0]


def test_a_layer_of_small_weights_keeps_its_largest() -> None:
    scores = draw(0)
    scores["c"] = scores["c"] * 1e-9
    mask = global_top_k(scores, 10, within=full_mask(SHAPES))
    assert np.flatnonzero(mask["c"]).tolist() == [int(scores["c"].argmax())]
    assert mask.kept == 10


@pytest.mark.parametrize("keep", [0, 2, 56])
def test_a_count_that_cannot_be_kept_is_refused(keep: int) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot keep {keep} of 55 weights in 3 layers"):
        global_top_k(draw(0), keep, within=full_mask(SHAPES))
