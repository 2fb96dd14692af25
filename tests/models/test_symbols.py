from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot, relu, scaled_dot_product_attention

from ticketguard.errors import ConfigurationError
from ticketguard.graph import channel_groups, group_channels
from ticketguard.models import build_model, prunable_layers

PAIRS = {"classes": 11, "input_shape": (2, 11)}
SMALL = {"width": 12, "heads": 3, "hidden": 20, "blocks": 2}
ALL_PAIRS = one_hot(torch.cartesian_prod(torch.arange(11), torch.arange(11)), 11).float()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("modular_mlp", 2 * 11 * 200 + 2 * 200 * 128),
        ("transformer", 2 * 11 * 128 + 2 * 128 + 4 * 128**2 + 2 * 128 * 512),
    ],
)
def test_models_have_their_number_of_parameters(name: str, count: int) -> None:
    model = build_model(name, options=PAIRS, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert model(ALL_PAIRS).shape == (121, 11)


def test_all_matrices_can_be_pruned_and_all_hidden_channels_moved() -> None:
    model = build_model("modular_mlp", options=PAIRS, seed=0)
    assert set(prunable_layers(model)) == set(model.state_dict())
    assert sum(map(group_channels, channel_groups(model, torch.zeros(1, 2, 11)))) == 200 + 128 + 200
    model = build_model("transformer", options={**PAIRS, **SMALL}, seed=0)
    assert set(prunable_layers(model)) == set(model.state_dict()) - {"positions"}
    # The stream, each block's ReLU layer, and each block's heads as a whole.
    assert sum(map(group_channels, channel_groups(model, torch.zeros(1, 2, 11)))) == 12 + 2 * 20 + 2 * 3


def test_the_perceptron_does_not_see_an_order_the_transformer_does() -> None:
    for name, same in (("modular_mlp", True), ("transformer", False)):
        model = build_model(name, options=PAIRS, seed=0)
        assert torch.allclose(model(ALL_PAIRS), model(ALL_PAIRS.flip(1)), atol=1e-5) is same


def test_the_transformers_attention_is_that_of_the_field() -> None:
    model = build_model("transformer", options={"classes": 11, "input_shape": (4, 11), **SMALL, "blocks": 1}, seed=0)
    symbols = one_hot(torch.arange(24).view(6, 4) % 11, 11).float()
    weights = model.state_dict()
    stream = symbols @ weights["embed.weight"].T + weights["positions"]
    heads = [
        (stream @ weights[f"blocks.0.attention.{name}.weight"].T).view(6, 4, 3, 4).transpose(1, 2)
        for name in ("query", "key", "value")
    ]
    mixed = scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).reshape(6, 4, 12)
    stream = stream + mixed @ weights["blocks.0.attention.out.weight"].T
    stream = stream + relu(stream @ weights["blocks.0.inner.weight"].T) @ weights["blocks.0.outer.weight"].T
    expected = stream[:, -1] @ weights["unembed.weight"].T
    assert torch.allclose(model(symbols), expected, atol=1e-5)
    hidden = model.blocks(model.embed(symbols) + model.positions)
    assert torch.allclose(hidden, stream, atol=1e-5)  # at every symbol: none sees those after it


@pytest.mark.parametrize("name", ["modular_mlp", "transformer"])
def test_images_are_no_symbols(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"'{name}' takes one-hot symbols .* got shape \(1, 8, 8\)"):
        build_model(name, options={"classes": 10, "input_shape": [1, 8, 8]}, seed=0)


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_divide_the_width_are_refused(heads: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{heads} heads do not divide a width of 128"):
        build_model("transformer", options={**PAIRS, "heads": heads}, seed=0)
