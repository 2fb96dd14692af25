from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ticketguard.errors import ConfigurationError, TensorError
from ticketguard.graph import ChannelGroup, channel_groups, group_channels
from ticketguard.models import (
    build_model,
    cuttable_groups,
    load_arrays,
    model_of,
    prunable_layers,
    remove_channels,
    resize_to,
    state_arrays,
)
from ticketguard.pruning.engine.selection import full_mask
from ticketguard.ticket import Ticket, TicketInfo

IMAGES = {"classes": 10, "input_shape": (3, 16, 16)}


def convolutional() -> nn.Module:
    """Depthwise, transposed and normalised layers, and a linear one behind a feature map of 2x2."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.Conv2d(8, 16, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 6, 1),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=3), nn.ReLU(), nn.Conv2d(12, 5, 1))


def shrunk(model: nn.Module, groups: tuple[ChannelGroup, ...], *, share: float, zeroed: nn.Module) -> nn.Module:
    """Cut a random *share* of every group out of *model*, in place, and zero it in *zeroed*."""
    generator = np.random.default_rng(3)
    kept = [
        generator.permutation(group_channels(group))[: max(1, round((1 - share) * group_channels(group)))]
        for group in groups
    ]
    smaller = remove_channels(state_arrays(model), groups, kept)
    blank = state_arrays(zeroed)
    for group, channels in zip(groups, kept, strict=True):
        for member in group:
            gone = np.delete(member.positions(), channels, axis=0).reshape(-1)
            np.moveaxis(blank[member.tensor], member.axis, 0)[gone] = 0
    load_arrays(zeroed, blank)
    resize_to(model, {name: array.shape for name, array in smaller.items()})
    load_arrays(model, smaller)
    return model


@pytest.mark.parametrize("name", ["mlp", "resnet20"])
def test_a_model_without_channels_computes_what_it_does_with_zeros_in_their_place(name: str) -> None:
    example = torch.randn(2, *IMAGES["input_shape"], generator=torch.Generator().manual_seed(0))
    model, zeroed = (build_model(name, options=IMAGES, seed=0).eval() for _ in range(2))
    before = sum(parameter.numel() for parameter in model.parameters())
    shrunk(model, cuttable_groups(model, example), share=0.5, zeroed=zeroed)
    assert sum(parameter.numel() for parameter in model.parameters()) < 0.8 * before
    with torch.no_grad():
        torch.testing.assert_close(model(example), zeroed(example))


def test_depthwise_transposed_and_flattened_layers_shrink_and_say_their_new_sizes() -> None:
    example = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model, zeroed = convolutional().eval(), convolutional().eval()
    zeroed.load_state_dict(model.state_dict())
    groups = cuttable_groups(model, example)
    assert [group_channels(group) for group in groups] == [8, 6]
    shrunk(model, groups, share=0.5, zeroed=zeroed)
    with torch.no_grad():
        torch.testing.assert_close(model(example), zeroed(example))
    assert (model[3].in_channels, model[3].out_channels, model[3].groups) == (4, 8, 4)
    assert (model[5].in_channels, model[5].out_channels) == (8, 3)
    assert (model[1].num_features, model[2].num_parameters) == (4, 4)
    assert (model[9].in_features, model[9].out_features) == (12, 5)
    nn.Sequential(*(type(layer)(**sizes(layer)) for layer in (model[0], model[9])))  # sizes a constructor takes
    loss = model(example).sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def sizes(layer: nn.Module) -> dict[str, int]:
    if isinstance(layer, nn.Conv2d):
        return {"in_channels": layer.in_channels, "out_channels": layer.out_channels, "kernel_size": 3}
    return {"in_features": layer.in_features, "out_features": layer.out_features}


def test_channels_that_a_shortcut_pads_with_zeros_stay() -> None:
    model, example = build_model("resnet20", options=IMAGES, seed=0), torch.zeros(1, 3, 16, 16)
    groups = cuttable_groups(model, example)
    # The stem's 16 channels, which the shortcuts carry through, and those inside each of the nine blocks; not the 16
    # and 32 that come in as zeros, whose number the shortcuts know.
    assert sorted(group_channels(group) for group in groups) == [16] * 4 + [32] * 3 + [64] * 3
    left = [group for group in channel_groups(model, example) if group not in groups]
    assert sorted(group_channels(group) for group in left) == [16, 32]


def test_a_multiple_that_the_model_counts_on_is_noticed() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            heads = torch.tanh(self.mix(inputs)).unflatten(1, (4, -1))
            return self.head(heads.flatten(1))

    with pytest.raises(ConfigurationError, match="no channels of this model can be cut out"):
        cuttable_groups(Heads(), torch.zeros(1, 6))


@pytest.mark.parametrize("over_channels", [nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.Softmax(1)])
def test_channels_that_are_summed_over_are_not_cuttable(over_channels: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 8), over_channels, nn.Linear(8, 2))
    with pytest.raises(ConfigurationError, match="no channels of this model can be cut out"):
        cuttable_groups(model, torch.zeros(1, 6))


def test_a_ticket_of_fewer_channels_has_a_model_of_its_size() -> None:
    options = {"classes": 3, "input_shape": [5], "widths": [8]}
    weights = remove_channels(
        state_arrays(build_model("mlp", options=options, seed=0)),
        cuttable_groups(build_model("mlp", options=options, seed=0), torch.zeros(1, 5)),
        (np.array([1, 4, 7]),),
    )
    info = TicketInfo(method="bip", model="mlp", model_options=options, structure="filter")
    mask = full_mask({name: weights[name].shape for name in ("1.weight", "3.weight")})
    ticket = Ticket(mask=mask, weights=weights, rewind_weights=None, info=info)
    network = model_of(ticket)
    load_arrays(network, ticket.weights)
    assert prunable_layers(network) == tuple(ticket.mask)
    assert network(torch.zeros(2, 5)).shape == (2, 3)
    assert network[1].out_features == 3


def test_masks_shrink_with_the_weights() -> None:
    model = build_model("mlp", options={"classes": 3, "input_shape": [5], "widths": [4]}, seed=0)
    groups = cuttable_groups(model, torch.zeros(1, 5))
    layers = {"1.weight": np.eye(4, 5, dtype=np.bool_), "unknown": np.ones(2, np.bool_)}
    smaller = remove_channels(layers, groups, [np.array([2, 0])])
    assert (smaller["1.weight"] == np.eye(4, 5, dtype=np.bool_)[[0, 2]]).all()
    assert smaller["unknown"] is layers["unknown"]


def test_shared_parameters_stay_shared() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    resize_to(model, {"0.weight": (3, 3), "1.weight": (3, 3), "0.bias": (3,), "1.bias": (3,)})
    assert model[0].weight is model[1].weight
    assert model(torch.zeros(1, 3)).shape == (1, 3)


@pytest.mark.parametrize("kept", [[], [-1], [4]])
def test_channels_that_are_not_there_cannot_be_kept(kept: list[int]) -> None:
    model = build_model("mlp", options={"classes": 3, "input_shape": [5], "widths": [4]}, seed=0)
    groups = cuttable_groups(model, torch.zeros(1, 5))
    with pytest.raises(ValueError, match="expected some of 4 channels to keep"):
        remove_channels(state_arrays(model), groups, [np.array(kept, dtype=np.int64)])


@pytest.mark.parametrize("shape", [(9, 8), (4,), (0, 8)])
def test_a_shape_the_model_cannot_take_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError, match=r"tensor 'weight' has shape .*, expected at most the model's \(8, 8\)"):
        resize_to(nn.Linear(8, 8), {"weight": shape})


def test_a_module_of_unknown_kind_is_named() -> None:
    model = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(ConfigurationError, match="module '0' is a LayerNorm, which cannot be made smaller"):
        resize_to(model, {"0.weight": (3,), "0.bias": (3,)})


def test_a_convolution_of_smaller_kernels_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is a Conv2d, which cannot be made smaller"):
        resize_to(nn.Sequential(nn.Conv2d(2, 2, 3)), {"0.weight": (2, 2, 1, 1)})


def test_groups_of_filters_go_whole() -> None:
    model = grouped()
    with pytest.raises(ConfigurationError, match=r"module '1' is a convolution in 3 groups, .* got 1 of 12 channels"):
        resize_to(model, {"1.weight": (11, 4, 3, 3), "1.bias": (11,)})
    shapes = {
        "0.weight": (8, 3, 1, 1),
        "0.bias": (8,),
        "1.weight": (8, 4, 3, 3),
        "1.bias": (8,),
        "3.weight": (5, 8, 1, 1),
    }
    resize_to(model, shapes)
    assert model(torch.zeros(1, 3, 5, 5)).shape == (1, 5, 3, 3)
    assert model[1].groups == 2
