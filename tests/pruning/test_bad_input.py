"""What cannot be searched is refused before a step is taken, whatever the method."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

import ticketguard as tg
from tests.pruning.conftest import replace_training
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError, FileError
from ticketguard.models import build_model, state_arrays
from ticketguard.pruning import CONTROLS, METHODS, SearchProblem
from ticketguard.pruning.engine import magnitude_rounds, stepped
from ticketguard.ticket import Array
from ticketguard.training import TrainingConfig

QUICK = TrainingConfig(epochs=4, batch_size=64, learning_rate=0.05, augment=False)
SMALL = {"widths": [20, 10]}
SEARCHES = [name for name in METHODS if name not in CONTROLS]
# What a method must be told before it looks at anything else.
OPTIONS: dict[str, dict[str, Any]] = {
    "jackpot": {"pretrain_epochs": 1},
    "bip": {"pretrain_epochs": 1},
    "supertickets": {"shrink_every": 1, "prune_every": 0.1},
}
STARTING_FROM_TRAINED = ["bip", "grokking", "jackpot", "layer_lottery"]
WITHOUT_REWIND = ["bip", "jackpot", *CONTROLS]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 400, "test_limit": 100})


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a step would be taken."""

    def step(*_: Any, **__: Any) -> None:
        pytest.fail("a step was taken")

    # What takes a function's name from elsewhere is replaced first: it would import the replacement, and keep it.
    for name in ("engine.concrete_search", "methods.jackpot", "methods.bip", "methods.supertickets"):
        monkeypatch.setattr(f"ticketguard.pruning.{name}.run_search", step)
    for name in ("engine.at_initialisation", "methods.layer_lottery"):
        monkeypatch.setattr(f"ticketguard.pruning.{name}.train_found", step)
    replace_training(monkeypatch, step)
    monkeypatch.setattr(magnitude_rounds, "train", step)
    monkeypatch.setattr(stepped, "run_search", step)


def find(data: Dataset, method: str = "imp", **changes: Any) -> tg.Ticket:
    options = {**OPTIONS.get(method, {}), **changes.pop("method_options", {})}
    fields: dict[str, Any] = {
        "model": "mlp", "model_options": SMALL, "data": data, "density": 0.3, "training": QUICK,
    }  # fmt: skip
    return tg.find(**{**fields, **changes}, method=method, method_options=options)


def state(**options: Any) -> dict[str, Array]:
    options = {"classes": 10, "input_shape": [1, 8, 8], **SMALL, **options}
    return state_arrays(build_model("mlp", options=options, seed=1))


@pytest.mark.parametrize("method", SEARCHES)
def test_a_density_that_keeps_everything_is_refused(digits: Dataset, method: str) -> None:
    with pytest.raises(ConfigurationError, match=r"density 0\.999999 keeps all 1580 weights: lower it"):
        find(digits, method, density=0.999999)


@pytest.mark.parametrize("method", SEARCHES)
def test_a_model_that_does_not_take_the_data_is_refused(digits: Dataset, method: str) -> None:
    message = r"model 'mlp' raised RuntimeError \(.*\) for an input of shape \(1, 1, 8, 8\) from data 'digits': use"
    with pytest.raises(ConfigurationError, match=message):
        find(digits, method, model_options={**SMALL, "input_shape": [3, 8, 8]})


def linear(inputs: int = 64, classes: int = 10) -> nn.Linear:
    return nn.Linear(inputs, classes)


def network(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *modules)


def tied() -> nn.Module:
    layer = linear(64, 64)
    other = linear(64, 64)
    other.weight = layer.weight
    return network(layer, other, linear())


def frozen() -> nn.Module:
    layer = linear(64, 64)
    layer.weight.requires_grad_(False)
    return network(layer, linear())


def normed() -> nn.Module:
    return network(nn.utils.parametrizations.weight_norm(linear()))


def lazy() -> nn.Module:
    return network(nn.LazyLinear(10))


def wrapped() -> nn.Module:
    return nn.DataParallel(network(linear()))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = linear()

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.head(inputs.flatten(1))
        return scores, scores


def pair() -> nn.Module:
    return Pair()


def too_few() -> nn.Module:
    return network(linear(classes=7))


def maps() -> nn.Module:
    return nn.Conv2d(1, 10, 3)


def out_of_memory() -> nn.Module:
    class Large(Pair):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            raise MemoryError

    return Large()


BAD_MODELS: list[tuple[Callable[[], nn.Module], str]] = [
    (tied, r"layer '1.weight' of model '.*:tied' is shared or reparametrised, expected a parameter of its own: untie"),
    (normed, "layer '1.weight' of model '.*:normed' is shared or reparametrised"),
    (frozen, "layer '1.weight' of model '.*:frozen' is frozen, expected one that trains"),
    (lazy, "tensor '1.weight' of model '.*:lazy' is not initialised yet, expected one with a shape"),
    (wrapped, "layer 'module.1.weight' of model '.*:wrapped' is named as in a wrapper, expected the model itself"),
    (pair, r"model '.*:pair' returned a tuple, expected a tensor of shape \(1, 10\) for an input of shape"),
    (too_few, r"gave outputs of shape \(1, 7\) for an input of shape \(1, 1, 8, 8\), expected \(1, 10\), a score"),
    (maps, r"gave outputs of shape \(1, 10, 6, 6\) .* set its number of classes"),
]


@pytest.mark.parametrize(("model", "message"), BAD_MODELS)
def test_a_model_that_cannot_be_pruned_is_refused(
    digits: Dataset, model: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        find(digits, model=model, model_options={})


def test_memory_that_runs_out_is_no_fault_of_the_model(digits: Dataset) -> None:
    with pytest.raises(MemoryError):
        find(digits, model=out_of_memory, model_options={})


class Nosy(nn.Module):
    """Draws, counts and writes to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm = linear(), nn.BatchNorm1d(64).eval()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        torch.rand(3)
        scores: torch.Tensor = self.head(self.norm(inputs.mul_(2).flatten(1)))
        return scores


def nosy() -> nn.Module:
    return Nosy()


def test_looking_at_a_model_changes_nothing() -> None:
    inputs = torch.rand(4, 64)
    labels = torch.arange(4) % 2
    data = Dataset(
        name="own", train_inputs=inputs.clone(), train_labels=labels, test_inputs=inputs, test_labels=labels,
        classes=2, mean=(), std=(),
    )  # fmt: skip
    before = torch.get_rng_state()
    problem = SearchProblem(
        model=nosy, model_options={}, data=data, data_name="own", data_options={}, density=0.3,
        training=TrainingConfig(epochs=1, batch_size=4),
    )  # fmt: skip
    built = problem.build()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(data.train_inputs, inputs)
    assert float(built.get_buffer("calls")) == 0
    assert [module.training for module in built.modules()] == [True, True, False]


def normalised() -> nn.Module:
    return network(linear(64, 20), nn.BatchNorm1d(20), linear(20))


def test_batches_of_one_are_refused_where_batches_are_normalised(digits: Dataset) -> None:
    alone = TrainingConfig(epochs=1, batch_size=1, learning_rate=0.05, augment=False)
    message = "normalises batches and cannot train on one example at a time .*: raise the training's batch_size"
    with pytest.raises(ConfigurationError, match=message):
        find(digits, model=normalised, model_options={}, training=alone)
    with pytest.raises(ConfigurationError, match="at a time .*: raise method option 'examples'"):
        find(digits, "snip", model=normalised, model_options={}, method_options={"examples": 1})
    # Images of several pixels are a batch of their own, and some models do not normalise.
    for model, options in (("resnet20", {"blocks": [1, 1, 1]}), ("mlp", SMALL)):
        with pytest.raises(pytest.fail.Exception, match="a step was taken"):
            find(digits, model=model, model_options=options, training=alone)


@pytest.mark.parametrize(
    ("method", "option"),
    [(name, "batch_size") for name in ("bip", "cts", "cts_kl", "jackpot")]
    + [("layer_lottery", "examples"), ("snip", "examples")],
)
def test_an_option_that_asks_for_too_large_a_batch_is_named(digits: Dataset, method: str, option: str) -> None:
    message = f"400 training examples, fewer than a batch of 401: lower method option '{option}', or use more data"
    with pytest.raises(ConfigurationError, match=message):
        find(digits, method, method_options={option: 401, **({"score": "snip"} if method == "layer_lottery" else {})})


def test_a_training_batch_that_is_too_large_is_named(digits: Dataset) -> None:
    with pytest.raises(ConfigurationError, match="fewer than a batch of 401: lower the training's batch_size, or"):
        find(digits, training={"batch_size": 401})


FOREIGN: list[tuple[Mapping[str, Array], str]] = [
    (
        state(widths=[20, 10, 10]),
        "weights have tensor '7.weight', which model 'mlp' does not have: name the model they",
    ),
    (state(widths=[20]), "weights lack tensor '5.weight' of model 'mlp': name the model they belong to"),
    (state(widths=[9, 10]), r"of the {} weights has shape \(9, 64\), expected \(20, 64\) as in model 'mlp': name"),
    ({}, "weights lack tensor '1.weight' of model 'mlp'"),
    ({**state(), "3.bias": np.full(10, np.nan, np.float32)}, "tensor '3.bias' of the {} weights has values that are"),
    ({**state(), "1.bias": np.full(20, np.inf, np.float32)}, "NaN or infinite, expected finite ones: give weights"),
]


@pytest.mark.parametrize(("given", "message"), FOREIGN)
@pytest.mark.parametrize(
    ("method", "which"),
    [(name, which) for name in METHODS for which in sorted(METHODS[name].takes)],
)
def test_weights_of_another_model_are_refused(
    digits: Dataset, method: str, which: str, given: Mapping[str, Array], message: str
) -> None:
    options: dict[str, Any] = {"cts": {"rewind_epochs": 0.0}, "layer_lottery": {"score_after": "training"}}
    with pytest.raises(ConfigurationError, match=message.format(which)) as refused:
        find(digits, method, method_options=options.get(method, {}), **{which: given})
    assert which in str(refused.value)


@pytest.mark.parametrize(("method", "which"), [("jackpot", "pretrained"), ("ltr", "rewind")])
def test_a_file_of_weights_that_are_no_numbers_is_named(
    digits: Dataset, method: str, which: str, tmp_path: Path
) -> None:
    file = tmp_path / "diverged.safetensors"
    save_file({**state(), "3.bias": np.full(10, np.nan, np.float32)}, file)
    with pytest.raises(FileError, match=r"diverged.safetensors': tensor '3.bias' has values .* give weights that a"):
        find(digits, method, **{which: file})


def test_a_deeper_network_of_the_same_kind_is_told(digits: Dataset) -> None:
    shape = {"classes": 10, "input_shape": [1, 8, 8]}
    deeper = state_arrays(build_model("resnet56", options=shape, seed=0))
    message = "the pretrained weights have tensor 'layer1.3.conv1.weight', which model 'resnet20' does not have"
    with pytest.raises(ConfigurationError, match=message):
        find(digits, "jackpot", model="resnet20", model_options={}, pretrained=deeper)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_of_a_wrapped_model_with_counters_are_its_own(digits: Dataset, prefix: str) -> None:
    counted = {**state(), "2.num_batches_tracked": np.array(7)}
    given = {f"{prefix}{name}": array for name, array in counted.items()}
    problem = SearchProblem(
        model="mlp", model_options={"classes": 10, "input_shape": [1, 8, 8], **SMALL}, data=digits, data_name="digits",
        data_options={}, density=0.3, training=QUICK, pretrained=given, rewind=given,
    )  # fmt: skip
    start = problem.start_state(problem.build())
    assert all(np.array_equal(start[name], array) for name, array in state().items())


def test_methods_say_which_weights_they_take() -> None:
    assert [name for name in sorted(METHODS) if "pretrained" in METHODS[name].takes] == STARTING_FROM_TRAINED
    assert {name for name in METHODS if "rewind" not in METHODS[name].takes} == set(WITHOUT_REWIND)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in STARTING_FROM_TRAINED])
def test_a_trained_network_that_would_be_ignored_is_refused(digits: Dataset, method: str) -> None:
    message = rf"method '{method}' does not start from a trained network: leave --pretrained \(pretrained=\) out"
    with pytest.raises(ConfigurationError, match=message):
        find(digits, method, pretrained=state())


@pytest.mark.parametrize("method", WITHOUT_REWIND)
def test_rewind_weights_that_would_be_ignored_are_refused(digits: Dataset, method: str) -> None:
    instead = r", or give them as --pretrained \(pretrained=\)$" if method not in CONTROLS else "$"
    message = rf"method '{method}' does not take rewind weights: leave --rewind \(rewind=\) out{instead}"
    with pytest.raises(ConfigurationError, match=message):
        find(digits, method, rewind=state())


def test_a_trained_network_is_refused_where_blocks_are_scored_before_training(digits: Dataset) -> None:
    shape = {"classes": 10, "input_shape": [1, 8, 8]}
    trained = state_arrays(build_model("resnet20", options=shape, seed=0))
    with pytest.raises(ConfigurationError, match="'score_after' is 'init', which does not use a trained network"):
        find(digits, "layer_lottery", model="resnet20", model_options={}, pretrained=trained)


@pytest.mark.parametrize("method", CONTROLS)
def test_a_control_looks_at_its_model_too(digits: Dataset, method: str, tmp_path: Path) -> None:
    network = functools.partial(build_model, "mlp", seed=0)
    options = {"classes": 7, "input_shape": [1, 8, 8], **SMALL}
    arrays = state_arrays(network(options=options))
    mask = tg.Mask(layers={name: array > 0 for name, array in arrays.items() if array.ndim == 2})
    info = tg.TicketInfo(method="imp", model="mlp", model_options=options)
    tg.Ticket(mask=mask, weights=arrays, rewind_weights=arrays, info=info).save(tmp_path / "own.ticket")
    with pytest.raises(ConfigurationError, match=r"gave outputs of shape \(1, 7\)"):
        find(
            digits, method, density=None, model_options={**SMALL, "classes": 7},
            method_options={"ticket": str(tmp_path / "own.ticket")},
        )  # fmt: skip
