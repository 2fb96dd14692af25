"""What a thief rebuilds is put into the start's order: other axes, flipped filters, turned kernels, other widths."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_perceptron import GROUPS, SHAPES, State, permuted
from drawn_start import a_start, rescaled, strongest, trained, unrelated

from ticketguard.graph import Alignment, align, group_channels, groups_from_json, permute
from ticketguard.graph.by_signs import scoring, search
from ticketguard.graph.by_signs.judging import judged
from ticketguard.graph.orientation import orientation
from ticketguard.ticket.start_reference import StartReference

WITH_MORE_CLASSES = {**SHAPES, "c": (25, 70)}
WITH_MORE_INPUTS = {"a": (60, 300), "b": (70, 60), "c": (25, 70)}
CONVOLUTIONS = {"a": (24, 3, 3, 3), "b": (32, 24, 3, 3), "c": (32, 32, 3, 3), "d": (20, 32 * 4)}
THEIR_GROUPS = groups_from_json(
    [
        [["a", 0, 1, 0, 24], ["b", 1, 1, 0, 24]],
        [["b", 0, 1, 0, 32], ["c", 1, 1, 0, 32]],
        [["c", 0, 1, 0, 32], ["d", 1, 4, 0, 32]],
    ]
)
JOINED = {"a": (25, 60), "b": (35, 60), "c": (40, 60), "d": (12, 40)}
THEIR_JOINT_GROUPS = groups_from_json(
    [
        [["a", 0, 1, 0, 25], ["c", 1, 1, 0, 25]],
        [["b", 0, 1, 0, 35], ["c", 1, 1, 25, 35]],
        [["c", 0, 1, 0, 40], ["d", 1, 1, 0, 40]],
    ]
)


def shuffled(state: State, groups: tuple, seed: int = 4) -> tuple[State, list[np.ndarray]]:
    luck = np.random.default_rng(seed)
    orders = [luck.permutation(group_channels(group)) for group in groups]
    return permute(state, groups, orders), [np.argsort(order) for order in orders]


def right(found: Alignment, orders: list[np.ndarray]) -> float:
    pairs = zip(found.orders, orders, strict=True)
    return sum(int((one == other).sum()) for one, other in pairs) / sum(map(len, orders))


def agreeing(found: Alignment, reference: StartReference, weights: State, suspect: State) -> float:
    """Return the share of votes with the start's sign, oriented by the anchors."""
    agree = there = 0
    for name, start in weights.items():
        layer = found.apply(name, suspect[name], start.shape)
        anchors = reference.anchors(name).reshape(start.shape)
        layer = orientation(layer, reference.layer_weights(name), anchors).undo(layer)
        votes = ~anchors & (layer != 0)
        agree += int((np.sign(layer) == np.sign(start))[votes].sum())
        there += int(votes.sum())
    return agree / there


def with_flips(state: State, seed: int = 9) -> State:
    """Return a network whose filters are flipped in sign, but for its classes, at random."""
    luck = np.random.default_rng(seed)
    return {
        name: layer if name == "c" else (layer * luck.choice([-1, 1], size=(len(layer), 1))).astype(np.float32)
        for name, layer in state.items()
    }


def test_filters_flipped_where_they_are_stay_there() -> None:
    """Of so few edges no other order of the channels could be told from that."""
    reference, weights = a_start()
    found = align(with_flips(trained(weights, density=0.05)), reference, GROUPS)
    assert found.is_found
    assert found.changes_nothing


def test_filters_flipped_in_sign_are_found_and_their_signs_turned_back() -> None:
    reference, weights = a_start()
    suspect, orders = permuted(trained(weights))
    flipped = with_flips(suspect)
    found = align(flipped, reference, GROUPS)
    assert found.is_found
    assert right(found, orders) >= 0.95
    straight = align(suspect, reference, GROUPS)
    assert agreeing(found, reference, weights, flipped) >= agreeing(straight, reference, weights, suspect) - 0.02


def test_channels_that_were_removed_and_added_are_told_apart() -> None:
    reference, weights = a_start()
    luck = np.random.default_rng(2)
    suspect, (first, second) = permuted(trained(weights))
    kept = np.flatnonzero(luck.random(60) > 0.1)
    more = [strongest(luck.normal(size=shape).astype(np.float32), 0.15) for shape in ((8, len(kept)), (10, 8))]
    rebuilt = {
        "a": suspect["a"][kept],
        "b": np.concatenate([suspect["b"][:, kept], more[0]]),
        "c": np.concatenate([suspect["c"], more[1]], axis=1),
    }
    found = align(rebuilt, reference, GROUPS)
    assert found.is_found
    by_layer = {stream.reference[0].tensor: order for stream, order in zip(found.streams, found.orders, strict=True)}
    a = np.array([np.flatnonzero(kept == there)[0] if there in kept else -1 for there in first])
    assert (found.placed.along("a", 0, 60, len(kept)) == a).mean() >= 0.9
    assert (found.placed.along("b", 0, 70, 78) == second).mean() >= 0.95
    assert by_layer


def test_two_groups_on_one_axis_are_each_put_in_order() -> None:
    reference, weights = a_start(shapes=JOINED)
    suspect, orders = shuffled(trained(weights, density=0.25), THEIR_JOINT_GROUPS)
    found = align(suspect, reference, THEIR_JOINT_GROUPS)
    assert right(found, orders) >= 0.95
    assert found.is_clear
    # Without regard to where the second begins, what lies there would be compared with the first's.
    assert (found.placed.along("c", 1, 60, 60)[25:] >= 25).all()


def test_a_group_on_a_part_of_an_axis_leaves_the_rest_in_place() -> None:
    reference, weights = a_start(shapes=JOINED)
    suspect, orders = shuffled(trained(weights, density=0.25), THEIR_JOINT_GROUPS[:1])
    found = align(suspect, reference, THEIR_JOINT_GROUPS[:1])
    assert right(found, orders) >= 0.95


def test_blocks_of_a_flattened_map_go_with_their_channel() -> None:
    groups = groups_from_json([[["a", 0, 1, 0, 32], ["b", 1, 4, 0, 32]]])
    reference, weights = a_start(shapes={"a": (32, 4), "b": (40, 32 * 4)})
    suspect, orders = shuffled(rescaled(trained(weights)), groups)
    found = align(suspect, reference, groups)
    assert right(found, orders) >= 0.95
    assert found.is_clear


def test_turned_kernels_are_turned_back() -> None:
    reference, weights = a_start(shapes=CONVOLUTIONS)
    suspect, orders = shuffled(trained(weights, density=0.3), THEIR_GROUPS)
    turned = {name: np.rot90(layer, axes=(2, 3)) if layer.ndim > 2 else layer for name, layer in suspect.items()}
    maps = np.rot90(suspect["d"].reshape(20, 32, 2, 2), axes=(2, 3))
    turned["d"] = maps.reshape(20, 128)
    found = align({name: np.ascontiguousarray(layer) for name, layer in turned.items()}, reference, THEIR_GROUPS)
    assert not found.turn.is_none
    assert found.is_clear
    assert right(found, orders) >= 0.95


@pytest.mark.parametrize(("layer", "axis"), [("a", 1), ("c", 0)])
def test_inputs_or_classes_in_another_order_are_found(layer, axis) -> None:
    reference, weights = a_start(shapes=WITH_MORE_CLASSES)
    suspect, _ = permuted(trained(weights, density=0.3))
    order = np.random.default_rng(5).permutation(suspect[layer].shape[axis])
    suspect[layer] = np.take(suspect[layer], order, axis=axis)
    found = align(suspect, reference, GROUPS)
    assert found.is_found
    assert (found.placed.along(layer, axis, len(order), len(order)) == np.argsort(order)).mean() >= 0.9


@pytest.mark.parametrize(
    ("layer", "axis", "shapes", "density"),
    [
        ("a", 1, WITH_MORE_CLASSES, 0.15),
        ("a", 1, WITH_MORE_INPUTS, 1.0),
        ("c", 0, {"a": (60, 40), "b": (70, 60), "c": (200, 70)}, 0.15),
    ],
    ids=["inputs", "inputs of a dense network", "classes"],
)
def test_one_end_in_another_order_is_found_from_the_other_end(layer, axis, shapes, density) -> None:
    """Taken to be in place, it speaks against all that is right."""
    reference, weights = a_start(shapes=shapes)
    suspect, orders = permuted(trained(weights, density=density))
    order = np.random.default_rng(5).permutation(suspect[layer].shape[axis])
    suspect[layer] = np.take(suspect[layer], order, axis=axis)
    found = align(suspect, reference, GROUPS)
    assert found.is_clear
    assert (found.placed.along(layer, axis, len(order), len(order)) == np.argsort(order)).mean() >= 0.9
    assert (found.placed.along("b", 0, 70, 70) == orders[1]).mean() >= 0.9


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_both_ends_of_a_dense_network_in_another_order_are_found_from_a_guess(density: float) -> None:
    reference, weights = a_start()
    suspect, orders = permuted(trained(weights, density=density))
    luck = np.random.default_rng(5)
    inputs, classes = luck.permutation(80), luck.permutation(10)
    suspect["a"], suspect["c"] = suspect["a"][:, inputs], suspect["c"][classes]
    found = align(suspect, reference, GROUPS)
    assert found.is_clear
    for name, axis, order in (("a", 1, np.argsort(inputs)), ("b", 0, orders[1]), ("c", 0, np.argsort(classes))):
        size = len(order)
        assert (found.placed.along(name, axis, size, size) == order).mean() >= 0.95


def test_guesses_are_not_taken_where_they_cannot_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sparse network, of more classes than are worth it, of a large network: it takes time and finds nothing."""
    guessed = []
    monkeypatch.setattr(search, "_guessed", lambda stream, guess: guessed.append(guess) or search._anywhere(stream))
    reference, _ = a_start()
    align(unrelated(3, 1.0), reference, GROUPS)
    assert guessed == list(range(10))
    guessed.clear()
    align(unrelated(3, 0.3), reference, GROUPS)
    align(unrelated(3, 1.0, WITH_MORE_CLASSES), a_start(shapes=WITH_MORE_CLASSES)[0], GROUPS)
    monkeypatch.setattr(search, "MOST_POSITIONS_GUESSED", 1000)
    align(unrelated(3, 1.0), reference, GROUPS)
    assert guessed == []


def test_channels_that_are_recognised_in_a_heavily_pruned_copy_are_right() -> None:
    reference, weights = a_start()
    suspect, orders = permuted(trained(weights, density=0.06, moved=0.5))
    found = align(suspect, reference, GROUPS)
    assert found.is_found
    assert found.unrecognised > 0
    known = [order >= 0 for order in found.orders]
    good = sum(
        int(((one == other) & there).sum()) for one, other, there in zip(found.orders, orders, known, strict=True)
    )
    assert good / sum(int(there.sum()) for there in known) >= 0.75
    everywhere = sum(int((one == other).sum()) for one, other in zip(found.orders, orders, strict=True))
    assert everywhere / sum(map(len, orders)) >= 0.4


def test_a_pruned_copy_that_was_not_permuted_is_left_as_it_is() -> None:
    """Channels with few edges might be any, were it not that all others are in place."""
    reference, weights = a_start()
    found = align(trained(weights, density=0.06), reference, GROUPS)
    assert found.is_found
    assert found.changes_nothing


def test_large_networks_are_matched_a_layer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MOST_KEPT", 0)
    reference, weights = a_start()
    suspect, orders = permuted(trained(weights))
    found = align(suspect, reference, GROUPS)
    assert found.is_clear
    assert right(found, orders) >= 0.95
    assert align(trained(weights), reference, GROUPS).changes_nothing


def test_a_few_layers_leave_the_work_for_their_ends_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> object:
        raise AssertionError("ends were sought in a part")

    for tried in ("_from_one_end", "_from_guesses"):
        monkeypatch.setattr(search.SignSearch, tried, forbidden)
    reference, _ = a_start()
    suspect = {name: layer for name, layer in unrelated(3).items() if name in "ab"}
    assert not align(suspect, reference.only("ab"), GROUPS, is_part=True).is_found
    with pytest.raises(AssertionError, match="ends were sought"):
        align(unrelated(3), reference, GROUPS)


def test_a_few_layers_are_a_start_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def counted(*given: object) -> object:
        looks.append(1)
        return judged(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "judged", counted)
    reference, weights = a_start()
    suspect, orders = permuted(trained(weights))
    few = align({name: suspect[name] for name in "ab"}, reference.only("ab"), GROUPS, is_part=True)
    assert few.is_traced
    looks.clear()
    found = align(suspect, reference, GROUPS, start=few)
    assert right(found, orders) >= 0.95
    assert SHAPES.keys() == set(found.layers)
    # Nothing else was tried.
    assert len(looks) == 1
