"""Pairs of positions that a reference leaves empty, and edges that are moved to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.embedding.interface import Binding
from ticketguard.embedding.pairs import PairedLayers, Pairs, move_to_pairs, pairs_in
from ticketguard.ticket import Mask

KEY = Binding(secret=bytes(32), commitment=bytes(range(32)))
NONE = np.empty(0, dtype=np.int64)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Masks of any density; of some layers the edges fill a block, so that rows and columns of edges leave no room."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers = {}
    for number in range(draw(st.integers(1, 4))):
        shape = draw(st.sampled_from([(12, 10), (6, 5, 3, 3), (40,), (1, 60), (3, 4, 5)]))
        layer = generator.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6, 0.95, 1.0]))
        if draw(st.booleans()) and len(shape) > 1:
            layer = np.zeros(shape, dtype=np.bool_)
            layer[: shape[0] // 2, : shape[1] // 2] = True
        layers[f"layer{number}"] = layer
    return Mask(layers=layers)


@settings(max_examples=60)
@given(masks(), st.integers(0, 100), st.integers(0, 2**32 - 1))
def test_any_pairs_are_distinct_empty_positions_in_every_layers_share(mask: Mask, percent: int, seed: int) -> None:
    layers = PairedLayers(mask)
    count = layers.room * percent // 100
    drawn = layers.draw(Binding(secret=seed.to_bytes(32, "little"), commitment=bytes(32)), count)
    weights = {n: min(mask.count(n), (mask[n].size - mask.count(n)) // 2) for n in mask}
    assert sum(map(len, drawn.values())) == count
    expected_first = 0
    for name in mask:
        pairs = drawn.get(name, Pairs(positions=NONE.reshape(0, 2), coins=np.empty(0, np.uint8), first=expected_first))
        assert pairs.first == expected_first
        expected_first += len(pairs)
        assert abs(len(pairs) - count * weights[name] / max(1, sum(weights.values()))) < 1
        flat = pairs.positions.reshape(-1)
        assert len(np.unique(flat)) == 2 * len(pairs)
        assert not mask[name].reshape(-1)[flat].any()
        assert len(pairs) <= weights[name] // 4 + 1
        assert set(pairs.coins.tolist()) <= {0, 1}


@pytest.mark.parametrize("count", [-1, 13])
def test_more_pairs_than_there_is_room_for_are_refused(count: int) -> None:
    layers = PairedLayers(Mask(layers={"fc": np.arange(200).reshape(10, 20) < 50}))
    assert layers.room == 12
    with pytest.raises(ValueError, match=f"count is {count}, expected 0 to 12"):
        layers.draw(KEY, count)


def test_a_full_network_has_no_room() -> None:
    layers = PairedLayers(Mask(layers={"fc": np.ones((10, 20), dtype=np.bool_)}))
    assert (layers.room, layers.draw(KEY, 0)) == (0, {})


def test_positions_come_where_edges_are_and_coins_are_fair() -> None:
    """The degrees of the channels of new positions are those of the edges', and so are places in kernels."""
    generator = np.random.default_rng(0)
    rows, columns, cells = (generator.lognormal(0, 0.6, size) for size in (40, 30, 9))
    odds = np.multiply.outer(np.multiply.outer(rows, columns), cells).reshape(40, 30, 3, 3)
    layer = generator.random(odds.shape) < np.minimum(0.06 * odds / odds.mean(), 0.9)
    pairs = PairedLayers(Mask(layers={"conv": layer})).draw(KEY, layer.sum() // 4)["conv"]
    drawn = np.zeros(layer.size, dtype=np.bool_)
    drawn[pairs.positions.reshape(-1)] = True
    drawn = drawn.reshape(layer.shape)
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1)):
        degrees = np.broadcast_to(layer.sum(axis=axes, keepdims=True), layer.shape)
        # An edge's channel has more edges than a position's.
        assert degrees[layer].mean() > 1.15 * degrees.mean()
        assert degrees[drawn].mean() == pytest.approx(degrees[layer].mean(), rel=0.1)
    assert abs(pairs.coins.mean() - 0.5) < 4 * 0.5 / len(pairs) ** 0.5


def test_pairs_take_turns_in_carrying_bits() -> None:
    pairs = Pairs(positions=np.arange(10).reshape(5, 2), coins=np.zeros(5, np.uint8), first=6)
    assert pairs.bits_carried(4).tolist() == [2, 3, 0, 1, 2]


def layer_with_pairs() -> tuple[np.ndarray, Pairs, np.ndarray]:
    generator = np.random.default_rng(1)
    layer = generator.random((30, 40)) < 0.2
    pairs = PairedLayers(Mask(layers={"fc": layer})).draw(KEY, 50)["fc"]
    return layer, pairs, generator.random(layer.size)


def test_edges_move_to_the_side_that_bit_and_coin_say_and_the_weakest_go() -> None:
    layer, pairs, strength = layer_with_pairs()
    bits = np.array([0, 1, 1, 0, 1], np.uint8)
    moved = move_to_pairs(layer, pairs, bits, kept_strength=strength, fixed=NONE)
    assert moved.layer.sum() == layer.sum()
    after = moved.layer.reshape(-1)[pairs.positions]
    sides = bits[np.arange(50) % 5] ^ pairs.coins
    assert (after.argmax(axis=1) == sides).all()
    assert (after.sum(axis=1) == 1).all()
    left = np.flatnonzero(layer.reshape(-1) & ~moved.layer.reshape(-1))
    stayed = np.flatnonzero(layer.reshape(-1) & moved.layer.reshape(-1))
    assert len(left) == len(moved.planted) == 50
    assert strength[left].max() < strength[stayed].min()
    assert (moved.fixed == np.sort([*pairs.positions.reshape(-1), *left])).all()
    assert pairs_in(Mask(layers={"fc": moved.layer}), {"fc": pairs}) == 50


def test_what_other_marks_decided_stays() -> None:
    """Their edges, those that they keep from coming, and an edge of theirs that would be the weakest."""
    layer, pairs, strength = layer_with_pairs()
    bits = np.zeros(1, np.uint8)
    wanted = pairs.positions[np.arange(50), pairs.coins]
    other = pairs.positions[np.arange(50), 1 - pairs.coins]
    weakest = np.flatnonzero(layer.reshape(-1))[strength[layer.reshape(-1)].argmin()]
    marked = layer.reshape(-1).copy()
    marked[[other[0], wanted[1]]] = True  # theirs
    fixed = np.sort([other[0], wanted[1], wanted[2], weakest])
    moved = move_to_pairs(marked.reshape(layer.shape), pairs, bits, kept_strength=strength, fixed=fixed)
    flat = moved.layer.reshape(-1)
    assert flat[[other[0], wanted[0], wanted[1], weakest]].all()
    assert not flat[wanted[2]]
    assert flat.sum() == marked.sum()
    assert set(wanted) - set(moved.planted) == {wanted[1], wanted[2]}
    assert pairs_in(Mask(layers={"fc": moved.layer}), {"fc": pairs}) == 48
