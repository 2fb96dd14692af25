from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from torch import nn

from drawn_nets import NETWORKS, SEEDS, SIDE, Drawn, agree, drawn, is_undone, residual, without_outgoing
from ticketguard.graph import group_channels
from ticketguard.graph.surgery import Cut
from ticketguard.graph.symmetries import Permutation
from ticketguard.graph.transformation import Array

FEW = settings(max_examples=12, deadline=None)


@FEW
@given(net=NETWORKS, seed=SEEDS)
def test_channels_without_outgoing_edges_are_cut(net: Drawn, seed: int) -> None:
    generator = np.random.default_rng(seed)
    silent = dict(net.state)
    for group in net.groups:
        silent = without_outgoing(silent, group, np.flatnonzero(generator.random(group_channels(group)) < 0.5))
    cut = Cut.of(silent, net.groups, norms=net.norms)
    smaller = cut.apply(silent)
    assert agree(net.outputs(silent), net.outputs(smaller))
    assert is_undone(cut, silent)
    assert not Cut.of(smaller, cut.groups, norms=net.norms).kept
    permuted = Permutation.drawn(smaller, cut.groups, generator=generator).apply(smaller)
    assert agree(net.outputs(silent), net.outputs(permuted))


def relu(values: Array) -> Array:
    return np.maximum(values, 0.0)


@pytest.mark.parametrize("norm", [True, False])
def test_channels_that_are_constant_go_into_the_biases_behind(norm: bool) -> None:
    middle = [nn.BatchNorm1d(6)] if norm else []
    layers = [nn.Linear(5, 6), *middle, nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)]
    net = drawn(nn.Sequential(*layers), (5,), seed=4)
    net.state["0.weight"][[1, 2, 4]] = 0
    net.state[f"{3 if norm else 2}.weight"][...] = 1
    cut = Cut.of(net.state, net.groups, norms=net.norms, activation=relu)
    smaller = cut.apply(net.state)
    assert smaller["0.weight"].shape == (3, 5)
    assert agree(net.outputs(net.state), net.outputs(smaller))
    assert is_undone(cut, net.state)
    # Without the activation nobody knows what becomes of a constant.
    assert Cut.of(net.state, net.groups, norms=net.norms).apply(net.state)["0.weight"].shape == (6, 5)


def test_constants_behind_padding_stay() -> None:
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Flatten()]
    net = drawn(nn.Sequential(*layers, nn.Linear(5 * SIDE * SIDE, 2)), (3, SIDE, SIDE), seed=0)
    net.state["0.weight"][[0, 1, 2]] = 0
    net.state["0.bias"][:2] = [1.0, 0.0]
    net.state["0.bias"][2] = -1.0
    net.state["2.weight"][...] = 1
    smaller = Cut.of(net.state, net.groups, activation=relu).apply(net.state)
    # The first is 1 inside and 0 in the padding; the other two are 0 everywhere.
    assert smaller["0.bias"].tolist() == [1.0, net.state["0.bias"][3]]
    assert agree(net.outputs(net.state), net.outputs(smaller))


def test_cutting_goes_on_until_nothing_is_dead() -> None:
    net = drawn(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), (3,), seed=0)
    for name in ("0.weight", "2.weight", "4.weight"):
        net.state[name][...] = 1.0
    net.state["4.weight"][:, [0, 1]] = 0  # two outputs of the middle layer are not taken,
    net.state["2.weight"][2:, 3] = 0  # and only these two take the first layer's last
    smaller = Cut.of(net.state, net.groups).apply(net.state)
    assert smaller["2.weight"].shape == (3, 3)
    assert agree(net.outputs(net.state), net.outputs(smaller))


def test_a_constant_goes_into_a_bias_that_lost_channels_before() -> None:
    widths = [3, 2, 2, 3, 2]
    layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    net = drawn(nn.Sequential(*layers[:-1]), (3,), seed=0)
    for name in ("0.weight", "2.weight", "4.weight", "6.weight"):
        net.state[name][...] = 1.0
    for name in ("0.bias", "2.bias", "4.bias"):
        net.state[name][...] = [1.0, 2.0, 3.0][: len(net.state[name])]
    net.state["0.weight"][0] = 0  # a constant,
    net.state["2.weight"][0, 1] = 0  # all that one neuron behind it takes, which is constant in the second round,
    net.state["6.weight"][:, 0] = 0  # when a neuron that nobody takes has gone from the layer that gains by that
    cut = Cut.of(net.state, net.groups, activation=relu)
    smaller = cut.apply(net.state)
    assert [smaller[f"{number}.weight"].shape for number in (0, 2, 4, 6)] == [(1, 3), (1, 1), (2, 1), (2, 2)]
    assert agree(net.outputs(net.state), net.outputs(smaller))
    assert is_undone(cut, net.state)


def test_one_channel_stays_of_a_group_without_edges() -> None:
    net = drawn(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,), seed=0)
    net.state["2.weight"][...] = 0
    smaller = Cut.of(net.state, net.groups).apply(net.state)
    assert smaller["0.weight"].shape == (1, 3)
    assert agree(net.outputs(net.state), net.outputs(smaller))


def test_sums_that_are_never_zero_for_sure_stay() -> None:
    """A stream that two layers make is cut where both make zero, not where they make a constant."""
    net = drawn(residual([4], 3, 1), (3, SIDE, SIDE), seed=0)
    for conv, norm in (("0.weight", "1"), ("3.conv2.weight", "3.bn2")):
        net.state[conv][[0, 1]] = 0
        net.state[f"{norm}.running_mean"][0] = net.state[f"{norm}.bias"][0] = 0
    net.state["1.running_mean"][1] = net.state["1.bias"][1] = 0  # of the two that make this one, the first makes zero
    smaller = Cut.of(net.state, net.groups, norms=net.norms, activation=relu).apply(net.state)
    assert smaller["0.weight"].shape[0] == 3
    assert agree(net.outputs(net.state), net.outputs(smaller))
    # A norm that nobody assigned to a layer makes what it likes of zeros.
    assert Cut.of(net.state, net.groups, activation=relu).apply(net.state)["0.weight"].shape[0] == 4


def test_half_a_network_is_not_cut() -> None:
    net = drawn(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,), seed=0)
    part = {name: array for name, array in net.state.items() if name != "2.weight"}
    with pytest.raises(ValueError, match=r"tensors are missing, .* who takes a channel: \['2.weight'\]"):
        Cut.of(part, net.groups)
