"""Whose channel a channel is, by how the rest of two networks agree."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from drawn_perceptron import GROUPS, SHAPES, State, a_network, edges_of, permuted, whole

from ticketguard.graph import GroupMember, agreement, align
from ticketguard.graph.agreement import Agreement, LayerAgreement, channel_nats
from ticketguard.graph.rows import Rows
from ticketguard.graph.similarity import strongest_edges
from ticketguard.ticket import Mask, Reference


def pruned(state: State, keep: float, seed: int = 7) -> State:
    luck = np.random.default_rng(seed)
    return {name: array * (luck.random(array.shape) < keep) for name, array in state.items()}


# What agrees


def test_what_was_done_to_a_layer_is_read_from_what_it_shares() -> None:
    luck = np.random.default_rng(0)
    mask = luck.random((60, 80)) < 0.1
    layer = np.where(mask, luck.choice([-1.0, 1.0], mask.shape), 0.0)
    grown = ~mask & (luck.random(mask.shape) < 0.02)
    signs = luck.choice([-1.0, 1.0], 60), luck.choice([-1.0, 1.0], 80)
    kept = mask & (luck.random(mask.shape) < 0.7)
    suspect = np.where(grown, 1.0, kept * layer) * signs[0][:, None] * signs[1]
    found = Agreement.of({"a": edges_of(layer)}, {"a": edges_of(suspect)}, []).layers["a"]
    shared, ours, theirs, holes = int(kept.sum()), int(mask.sum()), int((kept | grown).sum()), int((~mask).sum())
    assert found.kept == (shared + 0.5) / (ours + 1)
    assert found.added == (theirs - shared + 0.5) / (holes + 1)
    neither = holes - (theirs - shared)
    odds = (shared + 0.5) * (neither + 0.5) / ((theirs - shared + 0.5) * (ours - shared + 0.5))
    assert found.odds == pytest.approx(odds)
    assert found.correlation == agreement.MOST_CORRELATED
    # Which of two signs is whose nobody can tell, but for the product of a row's and a column's.
    product = np.outer(*found.signs)[kept]
    assert (product == np.outer(*signs)[kept]).all() or (product == -np.outer(*signs)[kept]).all()


def test_weights_that_were_drawn_anew_say_nothing_and_neither_do_layers_that_share_nothing() -> None:
    luck = np.random.default_rng(0)
    mask = luck.random((60, 80)) < 0.5
    one, other = (edges_of(mask * luck.normal(size=mask.shape)) for _ in range(2))
    assert Agreement.of({"a": one}, {"a": other}, []).layers["a"].correlation < 0.05
    apart = Agreement.of({"a": edges_of(mask)}, {"a": edges_of(~mask)}, []).layers["a"]
    assert (apart.odds, apart.correlation) == (agreement.LEAST_ODDS, 0.0)
    nothing = np.zeros((60, 80))
    for reference, suspect in ((nothing, mask), (mask, nothing), (nothing, nothing)):
        empty = Agreement.of({"a": edges_of(reference)}, {"a": edges_of(suspect)}, [(whole("a", 0, 60),)])
        assert empty.layers["a"].correlation == 0.0


@pytest.mark.parametrize(("wrong", "doubtful"), [(0, []), (2, [1]), (4, [0, 1])])
def test_a_stream_is_doubtful_if_too_few_edges_of_some_channel_are_the_references(
    wrong: int, doubtful: list[int]
) -> None:
    layer = np.zeros((4, 20))
    layer[:, :10] = 1.0
    suspect = layer.copy()
    # Of row 0, ten edges, some lie elsewhere: up to a quarter is what training does.
    suspect[0, 10 : 10 + wrong] = suspect[0, :wrong] + 1.0 * (wrong > 0)
    suspect[0, :wrong] = 0.0
    streams = [(whole("a", 0, 4),), (whole("a", 1, 20),)]
    assert Agreement.of({"a": edges_of(layer)}, {"a": edges_of(suspect)}, streams).doubtful == doubtful


def test_a_stream_is_judged_by_all_of_its_layers_where_it_lies_in_them() -> None:
    """Of each channel half of the edges in one layer are others, of those in both layers a fifth."""
    one, other = np.zeros((4, 20)), np.ones((12, 9))
    one[:, :8] = 1.0
    moved = one.copy()
    moved[:, :4], moved[:, 8:12] = 0.0, 1.0
    both = (whole("a", 0, 4), GroupMember(tensor="b", axis=1, block=1, runs=((3, 4),)))
    wanted = {"a": edges_of(one), "b": edges_of(other)}
    found = Agreement.of(wanted, {"a": edges_of(moved), "b": edges_of(other)}, [both, both[::-1], both[:1]])
    assert found.doubtful == [2]


def test_weights_correlate_over_all_layers_whatever_their_scale() -> None:
    luck = np.random.default_rng(2)
    one = luck.normal(size=(60, 80))
    other = 0.5 * one + 0.8 * luck.normal(size=one.shape)

    def correlation(*scales: tuple[float, float]) -> float:
        layers = [
            {
                str(number): dataclasses.replace(edges, values=edges.values * np.float32(scale[side]))
                for number, scale in enumerate(scales)
            }
            for side, edges in enumerate((edges_of(one), edges_of(other)))
        ]
        found = [layer.correlation for layer in Agreement.of(layers[0], layers[1], []).layers.values()]
        assert found == found[:1] * len(scales)
        return found[0]

    assert correlation((1, 1)) == pytest.approx(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1], abs=0.15)
    for scales in ([(1, 2)], [(3, 1)], [(1, 1), (1, 1)], [(2, 5), (2, 5), (2, 5)]):
        assert correlation(*scales) == pytest.approx(correlation((1, 1)), rel=1e-5)


# How likely a channel is another


def by_hand(
    one: np.ndarray, other: np.ndarray, layer: LayerAgreement, values: tuple[np.ndarray, np.ndarray], sign: np.ndarray
) -> float:
    """Two channels of shape (other ends, places), where there are edges and what these weigh."""
    both, ours, theirs, positions = int((one & other).sum()), int(one.sum()), int(other.sum()), one.size
    most = min(
        theirs * math.log1p(ours / positions * (layer.odds - 1)),
        ours * math.log1p(theirs / positions * (layer.odds - 1)),
    )
    nats = both * math.log(layer.odds) - most
    expected = layer.kept * ours + layer.added * (positions - ours)
    variance = 1 + expected + (agreement.SPREAD * expected) ** 2
    nats -= 0.5 * ((theirs - expected) ** 2 / variance + math.log(variance))
    rho = layer.correlation
    products = float((values[0] * values[1] * sign[:, None])[one & other].sum())
    nats += math.log(math.cosh(rho / (1 - rho**2) * products))
    return nats + both * (-0.5 * math.log(1 - rho**2) - rho**2 / (1 - rho**2))


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("correlation", "block"), [(0.6, 1), (0.0, 1), (0.6, 3)])
def test_a_likelihood_is_what_its_formula_says(
    monkeypatch: pytest.MonkeyPatch, axis: int, correlation: float, block: int, is_sparse: bool
) -> None:
    if is_sparse:
        monkeypatch.setattr(agreement, "FULL_PRODUCT", 0)
        monkeypatch.setattr(agreement, "CELLS_AT_ONCE", 20 if block == 1 else 1)  # three channels at once, or one
    luck = np.random.default_rng(axis)
    channels, others, kernel = 6, 7, 2
    shape = (channels * block, others, kernel) if axis == 0 else (others, channels * block, kernel)
    layers = [luck.normal(size=shape) * (luck.random(shape) < 0.5) for _ in range(2)]
    member = whole("a", axis, channels, block=block)
    edges = [edges_of(layer) for layer in layers]
    rows = [Rows(each, member, others) for each in edges]
    signs = tuple(luck.choice([-1.0, 1.0], size).astype(np.float32) for size in shape[:2])
    told = LayerAgreement(odds=9.0, kept=0.8, added=0.1, correlation=correlation, signs=(signs[0], signs[1]))
    known = [row.known(np.arange(others), row.rarity) for row in rows]
    nats = channel_nats(known[0], known[1], told, axis)

    def as_channels(array: np.ndarray) -> np.ndarray:
        """Shape (channels, other ends, places)."""
        moved = np.moveaxis(array, axis, 0).reshape(channels, block, others, kernel)
        return np.moveaxis(moved, 2, 1).reshape(channels, others, block * kernel)

    dense = []
    for each in edges:
        values = np.zeros(shape)
        values.reshape(-1)[each.flat()] = each.values
        dense.append(as_channels(values))
    for i in range(channels):
        for j in range(channels):
            pair = dense[0][i], dense[1][j]
            wanted = by_hand(pair[0] != 0, pair[1] != 0, told, pair, signs[1 - axis])
            assert nats[i, j] == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_a_channel_whose_sign_was_flipped_is_as_likely_however_many_edges_it_has() -> None:
    layer = np.random.default_rng(0).choice([-1.0, 1.0], (3, 2000))
    rows = [Rows(edges_of(sign * layer), whole("a", 0, 3), 2000) for sign in (1, -1)]
    ones = np.ones(3, dtype=np.float32), np.ones(2000, dtype=np.float32)
    told = LayerAgreement(odds=9.0, kept=0.8, added=0.1, correlation=agreement.MOST_CORRELATED, signs=ones)
    same, flipped = (
        channel_nats(rows[0].known(np.arange(2000), rows[0].rarity), row.known(np.arange(2000), row.rarity), told, 0)
        for row in rows
    )
    assert flipped == pytest.approx(same)
    assert (flipped.argmax(axis=1) == np.arange(3)).all()


# What a user gets


@pytest.mark.parametrize("seed", range(3))
def test_of_an_untouched_copy_every_channel_is_found(seed: int) -> None:
    reference, state = a_network(seed)
    suspect, orders = permuted(state, seed)
    found = align(suspect, reference, GROUPS)
    assert found.unrecognised == 0
    assert all(map(np.array_equal, found.orders, orders))


@pytest.mark.parametrize("flipped", [False, True])
def test_channels_with_few_edges_left_are_placed_by_their_weights_whatever_their_signs(flipped: bool) -> None:
    """Pruned by 60%: a channel has three or four edges a layer, and in a permuted copy nothing else tells it."""
    placed = []
    for seed in range(4):
        reference, state = a_network(seed, density=0.12)
        left = pruned(state, 0.4, seed)
        if flipped:
            signs = np.random.default_rng(seed).choice([-1.0, 1.0], 60).astype(np.float32)
            left |= {"a": left["a"] * signs[:, None], "b": left["b"] * signs}
        suspect, orders = permuted(left)
        found = align(suspect, reference, GROUPS)
        has_edges = (left["a"] != 0).sum(axis=1) + (left["b"] != 0).sum(axis=0) > 2
        placed.append((found.orders[0] == orders[0])[has_edges].mean())
    assert np.mean(placed) > 0.97


def test_added_neurons_are_not_taken_for_channels_that_the_reference_hardly_has() -> None:
    """Of a channel without edges it is known that it has none."""
    luck = np.random.default_rng(3)
    reference, state = a_network()
    layers = {name: reference.mask[name].copy() for name in SHAPES}
    layers["a"][:6], layers["b"][:, :6] = False, False
    kept = {name: state[name][layers[name]] for name in SHAPES}
    reference = Reference(mask=Mask(layers=layers), kept_weights=kept)
    state = {name: state[name] * layers[name] for name in SHAPES}
    more = {
        "a": np.vstack([state["a"], luck.normal(size=(12, 80)) * (luck.random((12, 80)) < 0.1)]),
        "b": np.hstack([state["b"], luck.normal(size=(70, 12)) * (luck.random((70, 12)) < 0.1)]),
        "c": state["c"],
    }
    order = luck.permutation(72)
    suspect = {"a": more["a"][order], "b": more["b"][:, order], "c": more["c"]}
    found = align({name: array.astype(np.float32) for name, array in suspect.items()}, reference, GROUPS)
    for name in ("a", "b"):
        assert (found.apply(name, suspect[name], SHAPES[name]) != 0).sum() == np.count_nonzero(state[name])


def test_a_mask_that_was_tripled_at_random_is_aligned_by_all_of_its_edges() -> None:
    """New edges are as strong as old ones: among the strongest third only a third of the reference's are left."""
    reference, state = a_network()
    luck = np.random.default_rng(9)
    grown = {
        name: np.where(array == 0, luck.normal(size=array.shape) * (luck.random(array.shape) < 0.2), array)
        for name, array in state.items()
    }
    suspect, orders = permuted({name: array.astype(np.float32) for name, array in grown.items()})
    found = align(suspect, reference, GROUPS)
    assert found.is_clear
    for order, wanted in zip(found.orders, orders, strict=True):
        assert (order == wanted).mean() > 0.95


def test_classes_that_were_permuted_are_found_where_all_else_is_in_its_place() -> None:
    reference, state = a_network()
    order = np.random.default_rng(4).permutation(10)
    found = align({**state, "c": state["c"][order]}, reference, GROUPS)
    (classes,) = (
        there
        for stream, there in zip(found.streams, found.orders, strict=True)
        if (stream.reference[0].tensor, stream.reference[0].axis) == ("c", 0)
    )
    assert (classes == np.argsort(order)).all()
    assert (found.moved, found.unrecognised) == (10 - int((order == np.arange(10)).sum()), 0)


def test_weak_edges_do_not_hide_the_strong_ones() -> None:
    """They are free to lay: a thief evens out with them what channels are known by."""
    luck = np.random.default_rng(1)
    layer = np.where(luck.random((40, 60)) < 0.2, luck.choice([-1.0, 1.0], (40, 60)), 0.0)
    weak = np.where(luck.random((40, 60)) < 0.3, 1e-7, layer)
    weak = np.where(layer != 0, layer, weak).astype(np.float32)
    count = int(np.count_nonzero(layer))
    assert set(strongest_edges(weak, count, grown=3).flat()) == set(np.flatnonzero(layer))
    grown = np.where(weak == np.float32(1e-7), 0.9, weak).astype(np.float32)
    assert set(strongest_edges(grown, count, grown=3).flat()) == set(np.flatnonzero(grown))
    assert len(strongest_edges(grown, count).values) == count
    assert len(strongest_edges(luck.normal(size=(40, 60)), 1000, grown=3).values) == 1000
