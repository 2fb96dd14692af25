from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ticketguard.models.counting import multiplications
from ticketguard.ticket import Mask


def test_every_use_of_a_weight_is_counted() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),  # 6x4x4 places, 2x3x3 weights at each
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 2, 2, stride=2),  # from 6x4x4 places, 2x2x2 weights at each
        nn.Flatten(2),
        nn.Linear(64, 10),  # two rows
    )
    network.train()
    assert multiplications(network, (4, 8, 8)) == 6 * 16 * 18 + 6 * 16 * 8 + 2 * 640
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_pruned_weights_are_not_counted_nor_is_a_layer_that_is_used_twice_counted_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(inputs))

    mask = Mask(layers={"layer.weight": np.eye(5, dtype=bool)})
    assert multiplications(Twice(), (5,)) == 50
    assert multiplications(Twice(), (5,), mask=mask) == 10
    assert multiplications(nn.Linear(5, 3), (5,)) == 15
