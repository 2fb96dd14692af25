from __future__ import annotations

import tracemalloc
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from nets import Concatenated, flattened, mlp, reference_of, rescaled, resnet
from ticketguard.errors import TensorError, UnverifiableError
from ticketguard.graph import (
    Alignment,
    ChannelGroup,
    align,
    channel_groups,
    group_channels,
    groups_from_json,
    matching,
    permute,
)
from ticketguard.graph.streams import Stream
from ticketguard.ticket import FloatArray, Mask, Reference

Layers = Mapping[str, FloatArray]


def spread(layer: FloatArray) -> float:
    return float(layer[layer != 0].std())


def as_released(layers: Layers, generator: np.random.Generator) -> Layers:
    return layers


def half_pruned(layers: Layers, generator: np.random.Generator) -> Layers:
    return {name: layer * (np.abs(layer) > np.median(np.abs(layer[layer != 0]))) for name, layer in layers.items()}


def fine_tuned(layers: Layers, generator: np.random.Generator) -> Layers:
    return {
        name: (layer + (layer != 0) * 0.3 * spread(layer) * generator.standard_normal(layer.shape)).astype(np.float32)
        for name, layer in layers.items()
    }


def regrown(layers: Layers, generator: np.random.Generator) -> Layers:
    return {
        name: (layer + 0.25 * spread(layer) * generator.standard_normal(layer.shape)).astype(np.float32)
        for name, layer in layers.items()
    }


THEFTS = (as_released, half_pruned, fine_tuned, regrown)


def shuffled(
    layers: Layers, groups: tuple[ChannelGroup, ...], generator: np.random.Generator
) -> tuple[Layers, list[np.ndarray]]:
    orders = [generator.permutation(group_channels(group)) for group in groups]
    return rescaled(permute(layers, groups, orders), generator), orders


def recovered(orders: list[np.ndarray], found: tuple[np.ndarray, ...]) -> float:
    right = sum(int((order[there] == np.arange(len(order))).sum()) for order, there in zip(orders, found, strict=True))
    return right / sum(map(len, orders))


@pytest.fixture(scope="module")
def ticket() -> tuple[Reference, Layers, tuple[ChannelGroup, ...]]:
    model = resnet()
    return *reference_of(model, density=0.05, seed=0), channel_groups(model, torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("theft", THEFTS)
def test_every_hidden_channel_of_a_permuted_and_rescaled_resnet_is_found(ticket, theft) -> None:
    reference, marked, groups = ticket
    generator = np.random.default_rng(1)
    suspect, orders = shuffled(theft(marked, generator), groups, generator)
    alignment = align(suspect, reference, groups)
    assert recovered(orders, alignment.orders) == 1.0
    assert alignment.moved > 250


@pytest.mark.parametrize("factory", [mlp, flattened, Concatenated])
def test_other_architectures_are_aligned_too(factory) -> None:
    model = factory()
    groups = channel_groups(model, torch.zeros(1, 3, 8, 8))
    reference, marked = reference_of(model, density=0.2, seed=3)
    generator = np.random.default_rng(4)
    suspect, orders = shuffled(marked, groups, generator)
    alignment = align(suspect, reference, groups)
    assert recovered(orders, alignment.orders) == 1.0


def test_an_unpermuted_suspect_stays_as_it_is(ticket) -> None:
    reference, marked, groups = ticket
    alignment = align(marked, reference, groups)
    assert alignment.moved == 0
    assert alignment.overlap == pytest.approx(0.95, abs=0.02)


def test_the_strongest_quarter_of_a_full_layer_is_looked_for() -> None:
    """That a position is kept says nothing where all are; that its weight is among the largest does."""
    layer = np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32)
    reference = Reference(mask=Mask(layers={"a": np.ones((60, 60), bool)}), kept_weights={"a": layer.reshape(-1)})
    found = align({"a": layer}, reference, ())
    assert found.overlap > 0.9
    assert found.chance == pytest.approx(0.25, abs=0.05)
    other = np.random.default_rng(1).normal(size=(60, 60)).astype(np.float32)
    assert not align({"a": other}, reference, ()).is_found


def test_dead_channels_stay_where_they_are(ticket) -> None:
    reference, marked, groups = ticket
    group = next(group for group in groups if group_channels(group) == 64)
    dead = {name: layer.copy() for name, layer in marked.items()}
    for member in group:
        if member.tensor in dead:
            index = member.positions()[10:14].reshape(-1)
            dead[member.tensor][index if member.axis == 0 else (slice(None), index)] = 0
    assert align(dead, reference, groups).moved == 0


def test_aligned_layers_are_the_suspects_in_the_references_order(ticket) -> None:
    reference, marked, groups = ticket
    generator = np.random.default_rng(5)
    orders = [generator.permutation(group_channels(group)) for group in groups]
    alignment = align(permute(marked, groups, orders), reference, groups)
    aligned = {name: alignment.apply(name, layer) for name, layer in permute(marked, groups, orders).items()}
    for name, layer in marked.items():
        np.testing.assert_array_equal(aligned[name], layer)


def test_an_innocent_suspect_gains_little(ticket) -> None:
    reference, _, groups = ticket
    _, innocent = reference_of(resnet(), density=0.05, seed=77)
    assert align(innocent, reference, groups).overlap < 0.3


def test_alignment_is_deterministic(ticket) -> None:
    reference, marked, groups = ticket
    suspect, _ = shuffled(marked, groups, np.random.default_rng(6))
    first, second = (align(suspect, reference, groups) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first.orders, second.orders, strict=True))


def test_missing_layers_are_done_without(ticket) -> None:
    reference, marked, groups = ticket
    suspect, orders = shuffled(marked, groups, np.random.default_rng(7))
    part = {name: layer for name, layer in suspect.items() if not name.startswith("11.")}
    assert recovered(orders, align(part, reference, groups).orders) > 0.95


def test_an_empty_suspect_is_no_crash(ticket) -> None:
    reference, marked, groups = ticket
    empty = {name: np.zeros_like(layer) for name, layer in marked.items()}
    alignment = align(empty, reference, groups)
    assert (alignment.moved, alignment.overlap) == (0, 0.0)


def test_nothing_in_common_is_a_clear_error(ticket) -> None:
    reference, _, groups = ticket
    with pytest.raises(UnverifiableError, match="none of the reference's layers"):
        align({"other": np.zeros((2, 2), dtype=np.float32)}, reference, groups)


def test_a_wrong_shape_is_a_clear_error(ticket) -> None:
    reference, marked, groups = ticket
    name = next(iter(marked))
    with pytest.raises(TensorError, match=f"tensor '{name}' has shape .* expected"):
        align({**marked, name: marked[name][..., :1]}, reference, groups)


@pytest.mark.parametrize("powers", [(20, 30), (-40, -30)])
def test_rescaling_to_the_ends_of_float32_hides_no_channel(ticket, powers) -> None:
    reference, marked, groups = ticket
    generator = np.random.default_rng(8)
    orders = [generator.permutation(group_channels(group)) for group in groups]
    suspect = {}
    for name, layer in permute(marked, groups, orders).items():
        factors = 10.0 ** generator.uniform(*powers, size=(len(layer), *[1] * (layer.ndim - 1)))
        suspect[name] = (layer * factors).astype(np.float32)
    assert recovered(orders, align(suspect, reference, groups).orders) > 0.95


def thin_pair(channels: int, *, other: int = 1) -> tuple[Reference, Layers]:
    generator = np.random.default_rng(0)
    kept = generator.random((channels, other)) < 0.5
    weights = generator.standard_normal(kept.shape).astype(np.float32)
    return Reference(mask=Mask(layers={"w": kept}), kept_weights={"w": weights[kept]}), {"w": weights[::-1].copy()}


def test_a_wide_group_over_next_to_no_weights_is_left_before_anything_of_its_size_is_made() -> None:
    reference, suspect = thin_pair(50_000)
    (group,) = groups_from_json([[["w", 0, 1, 0, 50_000]]])
    tracemalloc.start()
    found = align(suspect, reference, [group])  # 20 GB of similarities
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert (found.moved, found.complete) == (0, False)


def test_an_assignment_where_every_channel_is_contested_is_left_before_it_is_searched(monkeypatch) -> None:
    reference, suspect = thin_pair(1500)
    (group,) = groups_from_json([[["w", 0, 1, 0, 1500]]])
    contested = np.multiply.outer(np.arange(1500.0), np.arange(1500.0))  # 10 s and more to solve, once
    monkeypatch.setattr(matching, "member_similarity", lambda *_: contested)
    found = align(suspect, reference, [group])
    assert (found.moved, found.complete) == (0, False)


def test_thousands_of_groups_on_thin_layers_are_left_when_their_share_of_work_is_done(monkeypatch) -> None:
    reference, suspect = thin_pair(20_000)
    groups = groups_from_json([[["w", 0, 1, first, 2]] for first in range(0, 20_000, 2)])
    monkeypatch.setattr(matching, "FREE_STEPS", matching.FREE_STEPS // 20)
    assert not align(suspect, reference, groups).complete


def test_what_a_network_has_is_aligned_to_the_end(ticket) -> None:
    reference, marked, groups = ticket
    assert align(marked, reference, groups).complete


def test_single_channels_cost_nothing() -> None:
    reference, suspect = thin_pair(20_000)
    groups = groups_from_json([[["w", 0, 1, first, 1]] for first in range(20_000)])
    assert align(suspect, reference, groups).moved == 0


def test_an_innocent_suspect_uses_little_of_the_work_that_its_size_allows(ticket, monkeypatch) -> None:
    reference, _, groups = ticket
    _, innocent = reference_of(resnet(), density=0.05, seed=77)
    monkeypatch.setattr(matching, "FREE_STEPS", matching.FREE_STEPS // 4)
    monkeypatch.setattr(matching, "STEPS_A_POSITION", matching.STEPS_A_POSITION // 4)
    assert align(innocent, reference, groups).complete


def test_several_groups_on_one_axis_are_applied_together() -> None:
    _, suspect = thin_pair(40, other=30)
    groups = groups_from_json([[["w", 0, 1, 0, 20]], [["w", 0, 1, 20, 20]], [["w", 1, 3, 0, 10]]])
    generator = np.random.default_rng(2)
    orders = tuple(generator.permutation(group_channels(group)) for group in groups)
    expected = permute(suspect, groups, orders)["w"]
    streams = tuple(Stream(reference=group, suspect=group) for group in groups)
    found = Alignment(streams=streams, orders=orders, overlap=0.0).apply("w", suspect["w"])
    assert np.array_equal(found, expected)


def test_a_wide_layer_leaves_work_for_the_guesses_on_a_network_of_another_size() -> None:
    """Sweeping over its many inputs, which lie where they were, would use up what there is to spend."""
    generator = np.random.default_rng(0)
    shapes = {"1": (300, 784), "2": (100, 300), "3": (10, 100)}
    kept = {name: generator.random(shape) < 0.1 for name, shape in shapes.items()}
    weights = {name: (kept[name] * generator.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    reference = Reference(mask=Mask(layers=kept), kept_weights={name: weights[name][kept[name]] for name in shapes})
    groups = groups_from_json([[["1", 0, 1, 0, 300], ["2", 1, 1, 0, 300]], [["2", 0, 1, 0, 100], ["3", 1, 1, 0, 100]]])
    first, second = (
        np.sort(generator.choice(300, 225, replace=False)),
        np.sort(generator.choice(100, 75, replace=False)),
    )
    cut = {"1": weights["1"][first], "2": weights["2"][np.ix_(second, first)], "3": weights["3"][:, second]}
    found = align(cut, reference, groups)
    assert found.is_clear
    assert found.complete
    assert found.missing == 100


def test_flattened_maps_that_lie_in_parts_of_an_axis_are_turned_where_they_lie() -> None:
    """Their places are counted from where each map begins, not from where the axis does."""
    shapes = {"conv": (12, 3, 3, 3), "head": (40, 1 + 12 * 4)}
    generator = np.random.default_rng(0)
    kept = {name: generator.random(shape) < 0.3 for name, shape in shapes.items()}
    weights = {name: (kept[name] * generator.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    reference = Reference(mask=Mask(layers=kept), kept_weights={name: weights[name][kept[name]] for name in shapes})
    groups = groups_from_json([[["conv", 0, 1, 0, 12], ["head", 1, 4, 1, 12]]])
    maps = weights["head"][:, 1:].reshape(40, 12, 2, 2)[..., ::-1].reshape(40, 48)
    turned = {"conv": weights["conv"][..., ::-1].copy(), "head": np.hstack([weights["head"][:, :1], maps])}
    found = align(turned, reference, groups)
    assert found.is_clear
    assert (found.turn.axes, found.turn.mirrored) == ((0, 1), (False, True))
    assert found.moved == 0  # no place was matched for itself
    for name, layer in weights.items():
        assert np.array_equal(found.apply(name, turned[name]), layer)


def test_kernels_of_more_axes_than_a_volume_has_are_aligned_without_turns() -> None:
    """Eight axes have ten million turns."""
    shapes = {"a": (12, 4, *(2,) * 8), "b": (4, 12, *(1,) * 8)}
    generator = np.random.default_rng(0)
    kept = {name: generator.random(shape) < 0.2 for name, shape in shapes.items()}
    weights = {name: (kept[name] * generator.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    reference = Reference(mask=Mask(layers=kept), kept_weights={name: weights[name][kept[name]] for name in shapes})
    groups = groups_from_json([[["a", 0, 1, 0, 12], ["b", 1, 1, 0, 12]]])
    order = generator.permutation(12)
    found = align({"a": weights["a"][order], "b": weights["b"][:, order]}, reference, groups)
    assert found.is_clear
    assert found.turn.is_none
    assert np.array_equal(order[found.orders[0]], np.arange(12))
