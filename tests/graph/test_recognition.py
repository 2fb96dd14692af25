"""Which channels count as found: those whose edges are likelier there than anywhere else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ticketguard.graph import GroupMember, align, groups_from_json
from ticketguard.graph.recognition import DOUBT, Ends, recognised
from ticketguard.graph.similarity import Edges, strongest_edges
from ticketguard.ticket import Mask, Reference

MIDDLE = (
    GroupMember(tensor="a", axis=0, block=1, runs=((0, 40),)),
    GroupMember(tensor="b", axis=1, block=1, runs=((0, 40),)),
)
SHAPES = {"a": (40, 60), "b": (50, 40)}


def edges_of(mask: np.ndarray) -> Edges:
    return strongest_edges(mask.astype(np.float32), int(mask.sum()))


def ends_of(mask: np.ndarray) -> Ends:
    out, given, *kernel = np.nonzero(mask)
    place = np.ravel_multi_index(kernel, mask.shape[2:]) if kernel else np.zeros(len(out), dtype=np.int64)
    return out, given, place


def drawn(share: float, seed: int = 0) -> dict[str, np.ndarray]:
    luck = np.random.default_rng(seed)
    return {name: luck.random(shape) < share for name, shape in SHAPES.items()}


def known(reference: dict[str, np.ndarray], suspect: dict[str, np.ndarray]) -> np.ndarray:
    (found,) = recognised(
        {name: edges_of(mask) for name, mask in reference.items()},
        {name: ends_of(mask) for name, mask in suspect.items()},
        [MIDDLE],
    )
    return found


def test_channels_at_random_places_are_not_recognised_and_the_others_are() -> None:
    reference, other = drawn(0.1), drawn(0.1, seed=1)
    suspect = {name: mask.copy() for name, mask in reference.items()}
    suspect["a"][:10], suspect["b"][:, :10] = other["a"][:10], other["b"][:, :10]
    found = known(reference, suspect)
    assert not found[:10].any()
    assert found[10:].all()


def test_what_was_pruned_away_or_grown_beside_does_not_make_a_channel_unknown() -> None:
    luck = np.random.default_rng(3)
    reference, other = drawn(0.1), drawn(0.1, seed=1)
    few = {name: mask & (luck.random(mask.shape) < 0.3) for name, mask in other.items()}
    suspect = {name: (mask & (luck.random(mask.shape) < 0.7)) | few[name] for name, mask in reference.items()}
    suspect["a"][7], suspect["b"][:, 7] = False, False
    found = known(reference, suspect)
    assert found[7]  # without edges there is nothing to be wrong about
    assert found.mean() > 0.95


def test_edges_to_channels_that_are_not_recognised_say_nothing_of_their_other_ends() -> None:
    """Eight wrong outputs all lead to one input: that is held against it until they are known to be wrong."""
    luck = np.random.default_rng(2)
    reference = {"a": luck.random((40, 60)) < 0.1}
    reference["a"][:, 5] = np.arange(40) % 10 == 9
    suspect = {"a": reference["a"].copy()}
    suspect["a"][:8] = luck.random((8, 60)) < 0.1
    suspect["a"][:8, 5] = True
    outputs, inputs = (
        (GroupMember(tensor="a", axis=axis, block=1, runs=((0, size),)),) for axis, size in enumerate((40, 60))
    )
    found = recognised({"a": edges_of(reference["a"])}, {"a": ends_of(suspect["a"])}, [outputs, inputs])
    assert not found[0][:8].any()
    assert found[0][8:].all()
    assert found[1][5]


def test_layers_of_which_the_reference_has_all_say_nothing() -> None:
    full = {name: np.ones(shape, dtype=bool) for name, shape in SHAPES.items()}
    assert known(full, drawn(0.1)).all()
    assert known(full, full).all()


def test_so_many_nats_have_to_speak_against_a_channel() -> None:
    """Fisher's law by hand: a channel that shares nothing, beside 39 that share four of five edges."""
    reference = {"a": np.zeros((40, 60), dtype=bool), "b": np.zeros((50, 40), dtype=bool)}
    suspect = {name: mask.copy() for name, mask in reference.items()}
    reference["a"][:, :5] = True
    suspect["a"][1:, 1:6] = True
    seen = []
    for beside in (1, 2):
        suspect["a"][0, 20 : 20 + beside] = True
        shared, extra, lost = 4 * 39, 39 + beside, 39 + 5
        neither = 40 * 60 - shared - extra - lost
        odds = (shared + 0.5) * (neither + 0.5) / ((extra + 0.5) * (lost + 0.5))
        against = min(beside * math.log(1 + 5 / 60 * (odds - 1)), 5 * math.log(1 + beside / 60 * (odds - 1)))
        seen.append(against <= DOUBT)
        assert known(reference, suspect)[0] == seen[-1]
    assert seen == [True, False]


def test_channels_with_few_edges_of_their_own_under_noise_are_recognised() -> None:
    """Noise comes to all rows alike: a channel of two edges keeps both, and they are a small share of what it has."""
    luck = np.random.default_rng(0)
    reference = drawn(0.2)
    reference["a"][:10] = luck.random((10, 60)) < 0.04
    suspect = {name: mask | (luck.random(mask.shape) < 0.1) for name, mask in reference.items()}
    assert known(reference, suspect).all()


def test_where_most_edges_are_the_thiefs_no_channel_is_left_out() -> None:
    reference, other = drawn(0.1), drawn(0.1, seed=1)
    suspect = {name: mask | other[name] for name, mask in reference.items()}
    suspect["a"][:10], suspect["b"][:, :10] = other["a"][:10], other["b"][:, :10]
    assert known(reference, suspect).all()


def a_network(seed: int = 0) -> tuple[Reference, dict[str, np.ndarray]]:
    luck = np.random.default_rng(seed)
    shapes = {"a": (60, 80), "b": (70, 60), "c": (10, 70)}
    weights = {name: luck.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    masks = {name: luck.random(shape) < 0.1 for name, shape in shapes.items()}
    reference = Reference(mask=Mask(layers=masks), kept_weights={name: weights[name][masks[name]] for name in masks})
    return reference, {name: weights[name] * masks[name] for name in masks}


GROUPS = groups_from_json([[["a", 0, 1, 0, 60], ["b", 1, 1, 0, 60]], [["b", 0, 1, 0, 70], ["c", 1, 1, 0, 70]]])


def permuted(state: dict[str, np.ndarray], seed: int = 5) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    luck = np.random.default_rng(seed)
    first, second = luck.permutation(60), luck.permutation(70)
    moved = {"a": state["a"][first], "b": state["b"][second][:, first], "c": state["c"][:, second]}
    return moved, [np.argsort(first), np.argsort(second)]


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


def test_channels_that_were_replaced_are_left_out_and_told() -> None:
    reference, state = a_network()
    luck = np.random.default_rng(9)
    for channel in range(12):
        state["a"][channel] = luck.permutation(state["a"][channel])
        state["b"][:, channel] = luck.permutation(state["b"][:, channel])
    suspect, (order, _) = permuted(state)
    found = align(suspect, reference, GROUPS)
    assert (found.orders[0][12:] == order[12:]).all()
    assert (found.orders[0][:12] == -1).sum() == found.unrecognised >= 10
    assert (found.missing, found.added) == (0, 0)
    whole = found.apply("a", suspect["a"])
    assert not whole[found.orders[0] < 0].any()
    assert (whole[12:] == state["a"][12:]).all()


@pytest.mark.parametrize("seed", range(3))
def test_of_an_untouched_copy_every_channel_is_recognised(seed: int) -> None:
    reference, state = a_network(seed)
    suspect, orders = permuted(state, seed)
    found = align(suspect, reference, GROUPS)
    assert found.unrecognised == 0
    assert all(map(np.array_equal, found.orders, orders))


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
