from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from drawn_nets import SIDE, Drawn, agree, drawn, is_undone, residual
from ticketguard.graph import group_channels
from ticketguard.graph.symmetries import Scalable
from ticketguard.graph.transformation import State


def scalable(net: Drawn, **known: tuple[str, ...]) -> Scalable:
    expected = net.outputs(net.state)

    def same(state: State) -> bool:
        return agree(expected, net.outputs(state))

    return Scalable.of(net.state, net.groups, same=same, generator=np.random.default_rng(0), **known)


def test_what_lies_between_two_layers_is_found_by_trying() -> None:
    activations = {
        "relu": nn.ReLU(),
        "tanh": nn.Tanh(),
        "gelu": nn.GELU(),
        "none": nn.Identity(),
        "sigmoid": nn.Sigmoid(),
    }
    widths = range(4, 4 + len(activations))
    layers: list[nn.Module] = []
    for width, activation in zip(widths, activations.values(), strict=True):
        layers += [nn.Linear(width, width + 1), activation]
    net = drawn(nn.Sequential(*layers, nn.Linear(9, 3)), (4,), seed=0)
    found = scalable(net)
    assert sorted(map(group_channels, found.groups)) == [5, 8]
    assert [group_channels(group) for group in found.signed] == [8]
    symmetry = found.drawn(net.state, generator=np.random.default_rng(1))
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)


def test_all_of_a_residual_network_scales() -> None:
    net = drawn(residual([3, 6], 4, 1), (3, SIDE, SIDE), seed=0)
    found = scalable(net)
    assert found.groups == net.groups
    assert found.signed == ()
    assert found.norms == net.norms
    symmetry = found.drawn(net.state, generator=np.random.default_rng(1))
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))


def test_depthwise_convolutions_scale_when_they_are_named() -> None:
    layers = [nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6)]
    net = drawn(nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(6, 2, 1)), (3, SIDE, SIDE), seed=0)
    assert scalable(net).groups == ()
    assert scalable(net, grouped=("3.weight",)).groups == net.groups


class NormFirst(nn.Module):
    """Norms in front of layers, and one behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 3), nn.Conv2d(5, 2, 3)
        self.bn1, self.bn2 = nn.BatchNorm2d(6), nn.BatchNorm2d(5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.bn1(self.stem(inputs)))
        return self.conv2(self.bn2(functional.relu(self.conv1(hidden))))


def test_norms_behind_a_function_take_no_sign_back() -> None:
    net = drawn(NormFirst(), (3, SIDE, SIDE), seed=0)
    found = scalable(net)
    assert {norm.norm for norm in net.norms} == {"bn1", "bn2"}
    assert [norm.norm for norm in found.norms] == ["bn1"]
    assert found.groups == net.groups
    # Behind the second norm there is no function: its channels take any sign.
    assert [group_channels(group) for group in found.signed] == [5]


def test_a_norm_that_follows_no_layer_of_its_group_keeps_the_group_from_being_scaled() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.last = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 4)
            self.norm1 = nn.LayerNorm(6)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.norm1(self.one(inputs) + self.other(inputs))))

    found = scalable(drawn(Sum(), (5,), seed=0))
    assert found.groups == found.norms == ()
