from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ticketguard.errors import ConfigurationError, TensorError
from ticketguard.models import (
    build_model,
    load_arrays,
    mask_tensors,
    model_factory,
    named_parameters,
    prunable_layers,
    state_arrays,
)
from ticketguard.ticket import Mask

IMAGES = {"classes": 10, "input_shape": (3, 32, 32)}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    # ResNet-20, 32, 56: He et al. 2016, table 6 (0.27M, 0.46M, 0.85M); the others:
    # torchvision's counts with ten classes and a 3x3 stem.
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet56", 853_018),
        ("resnet18", 11_173_962),
        ("resnet50", 23_520_842),
        ("mlp", 3072 * 300 + 300 + 30_100 + 1010),
    ],
)
def test_architectures_have_their_known_number_of_parameters(name: str, count: int) -> None:
    assert parameters(build_model(name, options=IMAGES, seed=0)) == count


@pytest.mark.parametrize("name", ["mlp", "resnet18", "resnet20"])
@pytest.mark.parametrize("shape", [(1, 14, 14), (3, 32, 32)])
def test_models_take_small_images(name: str, shape: tuple[int, ...]) -> None:
    model = build_model(name, options={"classes": 7, "input_shape": shape}, seed=0).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_the_cifar_stem_keeps_the_resolution() -> None:
    model = build_model("resnet18", options=IMAGES, seed=0)
    with torch.no_grad():
        assert model.maxpool(model.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 64, 32, 32)


def test_widths_shape_the_perceptron() -> None:
    model = build_model("mlp", options={"classes": 3, "input_shape": (5,), "widths": (4,)}, seed=0)
    assert [tuple(value.shape) for value in model.parameters()] == [(4, 5), (4,), (3, 4), (3,)]


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, same, other = (state_arrays(build_model("resnet20", options=IMAGES, seed=seed)) for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_residual_networks_refuse_inputs_that_are_no_images(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} takes images .* got inputs of shape \(64,\): use mlp"):
        build_model(name, options={"classes": 2, "input_shape": (64,)}, seed=0)


def test_blocks_set_a_residual_network_s_depth() -> None:
    model = build_model("resnet20", options={**IMAGES, "blocks": [1, 2, 3]}, seed=0)
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3)] == [1, 2, 3]
    same = build_model("resnet32", options={**IMAGES, "blocks": [3, 3, 3]}, seed=0)
    assert parameters(same) == parameters(build_model("resnet20", options=IMAGES, seed=0))


def test_width_sets_how_many_channels_a_residual_network_has() -> None:
    model = build_model("resnet20", options={**IMAGES, "width": 4}, seed=0)
    assert [stage[0].conv1.out_channels for stage in (model.layer1, model.layer2, model.layer3)] == [4, 8, 16]
    assert model(torch.zeros(2, *IMAGES["input_shape"])).shape == (2, IMAGES["classes"])


@pytest.mark.parametrize("width", [0, 1.5, "wide"])
def test_widths_that_make_no_network_are_refused(width: object) -> None:
    with pytest.raises(ConfigurationError, match=r"resnet20's width is .*, expected a number of channels"):
        build_model("resnet20", options={**IMAGES, "width": width}, seed=0)


@pytest.mark.parametrize("blocks", [[3, 3], [3, 3, 0], [3, 3, 1.5], 3])
def test_blocks_that_make_no_network_are_refused(blocks: object) -> None:
    with pytest.raises(ConfigurationError, match=r"resnet20's blocks are .*, expected three numbers from 1"):
        build_model("resnet20", options={**IMAGES, "blocks": blocks}, seed=0)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError,
        match="unknown model 'resnet21', expected one of mlp, modular_mlp, resnet18, resnet20, resnet32, resnet50",
    ):
        build_model("resnet21", options={}, seed=0)


def test_options_a_model_does_not_take_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"model 'mlp' does not take the options .*'depth'"):
        build_model("mlp", options={**IMAGES, "depth": 3}, seed=0)


def test_an_import_path_names_a_factory() -> None:
    assert model_factory("torch.nn:Linear") is nn.Linear
    model = build_model("torch.nn:Linear", options={"in_features": 3, "out_features": 2, **IMAGES}, seed=0)
    assert isinstance(model, nn.Linear)


def test_an_import_path_to_something_else_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="model 'math:pi' is a float, expected a function that returns a module"
    ):
        build_model("math:pi", options={}, seed=0)


def test_a_factory_that_returns_no_module_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"returned a int, expected a torch\.nn\.Module"):
        build_model(lambda: 3, options={}, seed=0)  # type: ignore[arg-type,return-value]


def test_classes_and_input_shape_are_offered_not_imposed() -> None:
    def without() -> nn.Module:
        return nn.Linear(2, 2)

    def with_classes(classes: int) -> nn.Module:
        return nn.Linear(2, classes)

    def with_all(**options: Any) -> nn.Module:
        return nn.Linear(math.prod(options["input_shape"]), options["classes"])

    shapes = [build_model(make, options=IMAGES, seed=0).weight.shape for make in (without, with_classes, with_all)]
    assert [tuple(shape) for shape in shapes] == [(2, 2), (10, 2), (10, 3072)]


def test_prunable_layers_are_the_convolutions_and_linear_maps_in_sorted_order() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ConvTranspose1d(2, 2, 3), nn.PReLU(), nn.Linear(2, 2)
    )
    assert prunable_layers(model) == ("0.weight", "2.weight", "4.weight")
    assert prunable_layers(nn.Linear(2, 2)) == ("weight",)
    assert prunable_layers(build_model("resnet20", options=IMAGES, seed=0))[0] == "conv1.weight"
    assert len(prunable_layers(build_model("resnet20", options=IMAGES, seed=0))) == 20


def test_arrays_survive_a_round_trip_and_are_copies() -> None:
    model = build_model("resnet20", options=IMAGES, seed=0)
    arrays = state_arrays(model)
    other = build_model("resnet20", options=IMAGES, seed=1)
    load_arrays(other, arrays)
    assert all(np.array_equal(array, arrays[name]) for name, array in state_arrays(other).items())
    arrays["conv1.weight"][:] = 0
    assert model.conv1.weight.abs().sum() > 0
    assert other.conv1.weight.abs().sum() > 0


def test_half_precision_becomes_float32() -> None:
    arrays = state_arrays(nn.Linear(2, 2).to(torch.bfloat16))
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_wrappers_do_not_change_names() -> None:
    wrapped = nn.Module()
    wrapped.module = nn.Linear(2, 2)
    assert set(state_arrays(wrapped)) == set(named_parameters(wrapped)) == {"weight", "bias"}
    load_arrays(wrapped, {"weight": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)})
    assert wrapped.module.weight.sum() == 4


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(TensorError, match="tensor 'bias' is in the model but not in the ticket"):
        load_arrays(nn.Linear(2, 2), {"weight": np.zeros((2, 2), np.float32)})


def test_another_shape_is_named_and_nothing_is_loaded() -> None:
    model = nn.Linear(2, 2)
    before = state_arrays(model)
    with pytest.raises(TensorError, match=r"tensor 'bias' has shape \(3,\), expected \(2,\)"):
        load_arrays(model, {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(3, np.float32)})
    assert np.array_equal(before["weight"], state_arrays(model)["weight"])


def test_mask_tensors_follow_the_parameter_layout() -> None:
    convolution = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    layer = np.random.default_rng(0).random((4, 4, 3, 3)) < 0.5
    (tensor,) = mask_tensors(Mask(layers={"weight": layer}), named_parameters(convolution))
    assert tensor.stride() == convolution.weight.stride()
    assert np.array_equal(tensor.numpy(), layer)


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(TensorError, match="tensor 'fc' is masked but the model has no weights of its shape"):
        mask_tensors(Mask(layers={"fc": np.ones((2, 2), np.bool_)}), named_parameters(nn.Linear(2, 2)))


def test_a_factory_that_raises_is_not_called_a_bug_of_ours() -> None:
    def factory() -> nn.Module:
        raise RuntimeError("no weights here")

    with pytest.raises(ConfigurationError, match=r"model 'factory' raised RuntimeError \(no weights here\)"):
        build_model(factory, options={}, seed=0)
