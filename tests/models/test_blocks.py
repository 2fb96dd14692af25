from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, prunable_layers, removable_blocks, remove_blocks, state_arrays
from ticketguard.torchvision_shim import import_torchvision

IMAGES = {"classes": 10, "input_shape": (3, 16, 16)}


def removable(model: nn.Module, *shape: int) -> list[str]:
    blocks = removable_blocks(model, torch.zeros(1, *(shape or (3, 16, 16))), layers=prunable_layers(model))
    return [block.name for block in blocks]


class PreActivation(nn.Module):
    """Inputs that may be negative are added to what a branch makes of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(size), nn.Sequential(nn.Linear(size, 9), nn.GELU(), nn.Linear(9, size))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.inner(self.norm(inputs))


class Gated(PreActivation):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs) * inputs


def test_blocks_beside_a_change_of_resolution_stay() -> None:
    model = build_model("resnet20", options=IMAGES, seed=0)
    found = removable(model)
    assert found == [
        f"layer{stage}.{block}" for stage, block in ((1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2))
    ]


def test_a_projection_is_no_identity() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            BasicBlock = import_torchvision("torchvision.models.resnet").BasicBlock
            shortcut = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
            self.stem, self.head = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Linear(4, 2)
            self.stage = nn.Sequential(BasicBlock(4, 4, downsample=shortcut), BasicBlock(4, 4), BasicBlock(4, 4))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.head(self.stage(self.stem(inputs)).mean((2, 3)))

    assert removable(Small()) == ["stage.1", "stage.2"]


def test_any_residual_block_is_found_and_nothing_else() -> None:
    model = nn.Sequential(
        nn.Linear(5, 8), PreActivation(8), Gated(8), nn.Linear(8, 8), PreActivation(8), nn.Linear(8, 2)
    )
    blocks = removable_blocks(model, torch.zeros(1, 5), layers=prunable_layers(model))
    assert [(block.name, block.layers) for block in blocks] == [
        ("1", ("1.inner.0.weight", "1.inner.2.weight")),
        ("4", ("4.inner.0.weight", "4.inner.2.weight")),
    ]


def test_a_block_without_effect_is_none() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.aside = nn.Linear(4, 2), PreActivation(4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.aside(inputs)
            return self.used(inputs)

    assert removable(Aside(), 4) == []


def test_finding_blocks_leaves_the_model_alone() -> None:
    model = build_model("resnet20", options={**IMAGES, "blocks": [2, 1, 1]}, seed=0)
    before = state_arrays(model)
    assert removable(model) == ["layer1.0", "layer1.1"]
    assert all(np.array_equal(array, before[name]) for name, array in state_arrays(model).items())


def test_a_model_is_built_without_blocks_and_the_rest_keeps_names_and_weights() -> None:
    whole = build_model("resnet20", options=IMAGES, seed=3)
    model = build_model("resnet20", options={**IMAGES, "removed_blocks": ["layer1.1", "layer3.2"]}, seed=3)
    gone = [name for name in state_arrays(whole) if name.startswith(("layer1.1.", "layer3.2."))]
    states = state_arrays(whole), state_arrays(model)
    assert set(states[0]) - set(states[1]) == set(gone)
    assert all(np.array_equal(states[0][name], array) for name, array in states[1].items())
    assert removable(model) == [name for name in removable(whole) if name not in ("layer1.1", "layer3.2")]
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_a_factory_of_the_users_own_can_lose_blocks_too() -> None:
    model = build_model(
        lambda: nn.Sequential(PreActivation(4), PreActivation(4)), options={**IMAGES, "removed_blocks": ["0"]}, seed=0
    )
    assert all(name.startswith("1.") for name in state_arrays(model))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer9.0"], "removed_blocks names 'layer9.0', which this model does not have"),
        ([""], "removed_blocks names the whole model"),
        ("layer1.0", r"removed_blocks is 'layer1.0', expected a list of names such as \['layer1.1'\]"),
        ([1], r"removed_blocks is \[1\], expected a list of names"),
    ],
)
def test_blocks_that_are_none_are_refused(names: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_model("resnet20", options={**IMAGES, "removed_blocks": names}, seed=0)


def test_nothing_is_removed_of_a_model_without_a_list() -> None:
    model = nn.Linear(2, 2)
    remove_blocks(model, [])
    assert set(state_arrays(model)) == {"weight", "bias"}
