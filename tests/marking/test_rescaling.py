"""Weights before normalisations are made larger: which, by how much, and that nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ticketguard.marking.rescaling import FACTOR, TOLERANCE, rescaled
from ticketguard.models import build_model, load_arrays, state_arrays
from ticketguard.models.answers import scores_of
from ticketguard.ticket import Array

SHAPE, CLASSES = (3, 8, 8), 5


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model running statistics that are not those it starts with, some of dead channels, and random biases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 2)
                tensor[0] = 0.0
                tensor[-1] = 1e-6  # far below eps
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model.eval()


def inputs(count: int = 6, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)


def grown(model: nn.Module, weights: Mapping[str, Array], after: Mapping[str, Array]) -> set[str]:
    """Return the parameters that are `FACTOR` times as large; all others are the same, bit for bit."""
    larger = {name for name in weights if not np.array_equal(weights[name], after[name])}
    statistics = {name for name in larger if name.endswith(("running_mean", "running_var"))}
    for name in larger - statistics:
        assert np.array_equal(after[name], weights[name] * np.float32(FACTOR))
    assert bool(larger) == bool(statistics)
    return larger - statistics


def double_scores(model: nn.Module, weights: Mapping[str, Array], given: torch.Tensor) -> torch.Tensor:
    network = copy.deepcopy(model).double().eval()
    load_arrays(network, weights)
    with torch.no_grad():
        return scores_of(network(given.double()))


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 6, 3, padding=1, bias=False), norm(6)
        self.conv1, self.norm1 = nn.Conv2d(6, 6, 3, padding=1), norm(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), norm(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm0(self.stem(images)))
        hidden = torch.relu(hidden + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(hidden))))))
        scores: torch.Tensor = self.head(hidden.mean(dim=(2, 3)))
        return scores


class Seen(Residual):
    """The first convolution's output goes into the classifier too: its scale shows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        hidden = torch.relu(self.norm1(self.conv1(torch.relu(self.norm0(features)))))
        scores: torch.Tensor = self.head((hidden + features).mean(dim=(2, 3)))
        return scores


class TwoBranches(Residual):
    """One convolution for two normalisations, and one normalisation for two convolutions."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        hidden = torch.relu(self.norm0(features)) + self.norm1(features)
        hidden = self.norm2(self.conv1(hidden)) * self.norm2(self.conv2(hidden))
        scores: torch.Tensor = self.head(hidden.mean(dim=(2, 3)))
        return scores


class HalfShared(Residual):
    """A normalisation is used again for something that no weight scales: its statistics must stay."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.norm1(self.conv1(torch.relu(self.norm0(self.stem(images)))))
        scores: torch.Tensor = self.head(self.norm1(torch.sigmoid(hidden)).mean(dim=(2, 3)))
        return scores


class Returned(Residual):
    """The features are returned beside the scores."""

    def forward(self, images: torch.Tensor) -> Any:
        features = self.conv1(torch.relu(self.norm0(self.stem(images))))
        return {"logits": self.head(self.norm1(features).mean(dim=(2, 3))), "features": features}


def plain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


PERCEPTRON = (nn.Flatten(), nn.Linear(192, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 9, bias=False))
TAIL = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
STEM = {"stem.weight"}
FIRST = {"conv1.weight", "conv1.bias"}
SECOND = {"conv2.weight", "conv2.bias"}
CASES: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "residual": (Residual, STEM | FIRST | SECOND),
    "its output is seen elsewhere": (Seen, FIRST),
    "two branches": (TwoBranches, STEM | FIRST | SECOND),
    "a norm of something else": (HalfShared, STEM),
    "its output is returned": (Returned, STEM),
    "perceptron": (
        lambda: plain(*copy.deepcopy(PERCEPTRON), nn.BatchNorm1d(9, affine=False), nn.Linear(9, CLASSES)),
        {"1.weight", "1.bias", "4.weight"},
    ),
    "without norms": (lambda: plain(nn.Conv2d(3, 4, 3), nn.ReLU(), *TAIL, nn.Linear(4, CLASSES)), set()),
    "pooled before the norm": (
        lambda: plain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), norm(4), *TAIL, nn.Linear(4, CLASSES)),
        {"0.weight", "0.bias"},
    ),
    "depthwise, transposed": (
        lambda: plain(
            nn.Conv2d(3, 6, 3, groups=3), norm(6), nn.ConvTranspose2d(6, 4, 2), norm(4), *TAIL, nn.Linear(4, CLASSES)
        ),
        {"0.weight", "0.bias", "2.weight", "2.bias"},
    ),
    "something between": (
        lambda: plain(nn.Conv2d(3, 4, 3), nn.Sigmoid(), norm(4), *TAIL, nn.Linear(4, CLASSES)),
        set(),
    ),
    "convolution after convolution": (
        lambda: plain(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), norm(6), *TAIL, nn.Linear(6, CLASSES)),
        {"1.weight", "1.bias"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_before_norms_grow_and_the_function_stays(case: str) -> None:
    make, expected = CASES[case]
    torch.manual_seed(0)
    model = trained(make())
    weights = state_arrays(model)
    before = {name: array.copy() for name, array in weights.items()}
    after = rescaled(model, weights, inputs())
    assert grown(model, weights, after) == expected
    # Inputs of any size, not those it was tried on: behind batch norms nothing depends on them.
    for size in (1e-3, 1.0, 1e3):
        given = torch.from_numpy(np.random.default_rng(2).normal(size=(4, *SHAPE)) * size)
        one, other = (double_scores(model, state, given) for state in (weights, after))
        assert float((one - other).abs().max()) <= 1e-6 * float(one.abs().max())
    assert all(np.array_equal(before[name], weights[name]) for name in before)
    assert all(np.array_equal(before[name], array) for name, array in state_arrays(model).items())


NORMS_OF_THE_EXAMPLE: dict[str, Callable[[float], nn.Module]] = {
    "group": lambda eps: nn.GroupNorm(2, 6, eps=eps),
    "instance": lambda eps: nn.InstanceNorm2d(6, eps=eps),
    "layer": lambda eps: nn.LayerNorm((6, 6, 6), eps=eps),
    "batch, without running statistics": lambda eps: nn.BatchNorm2d(6, eps=eps, track_running_stats=False),
}


@pytest.mark.parametrize("kind", NORMS_OF_THE_EXAMPLE)
def test_layers_before_norms_of_the_example_grow_only_where_eps_does_not_show(kind: str) -> None:
    torch.manual_seed(0)
    tail = (nn.Conv2d(6, 4, 3), norm(4), *TAIL, nn.Linear(4, CLASSES))
    for eps, expected in ((1e-12, {"0.weight", "0.bias", "2.weight", "2.bias"}), (1e-2, {"2.weight", "2.bias"})):
        model = trained(plain(nn.Conv2d(3, 6, 3), NORMS_OF_THE_EXAMPLE[kind](eps), *tail))
        weights = state_arrays(model)
        after = rescaled(model, weights, inputs())
        assert grown(model, weights, after) == expected
        given = torch.from_numpy(inputs())
        one, other = (double_scores(model, state, given) for state in (weights, after))
        assert float((one - other).abs().max()) <= TOLERANCE * float(one.abs().max())


@settings(max_examples=50, deadline=None)
@given(
    variance=st.floats(0, 1e6),
    mean=st.floats(-1e3, 1e3),
    eps=st.sampled_from([1e-5, 1e-3, 1.0]),
    factor=st.floats(1.0, 100.0),
)
def test_a_batch_norm_computes_the_same_of_its_grown_input(
    variance: float, mean: float, eps: float, factor: float
) -> None:
    model = plain(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=eps), nn.Flatten()).double().eval()
    with torch.no_grad():
        model[1].running_var.fill_(variance)
        model[1].running_mean.fill_(mean)
    weights = state_arrays(model)
    after = rescaled(model, weights, inputs(2, (1, 1, 1)), factor=factor)
    assert np.array_equal(after["0.weight"], weights["0.weight"] * factor)
    given = torch.from_numpy(inputs(4, (1, 1, 1)))
    one, other = (double_scores(model, state, given) for state in (weights, after))
    assert float((one - other).abs().max()) <= 1e-10 * max(1.0, float(one.abs().max()))


def test_a_step_turns_a_grown_filter_a_sixteenth_as_far() -> None:
    torch.manual_seed(0)
    model = trained(Residual())
    weights = state_arrays(model)
    turned = []
    for state in (weights, rescaled(model, weights, inputs())):
        network = copy.deepcopy(model).double().train()
        load_arrays(network, state)
        scores = network(torch.from_numpy(inputs(16)).double())
        nn.functional.cross_entropy(scores, torch.arange(16) % CLASSES).backward()
        weight, gradient = network.conv2.weight.detach(), network.conv2.weight.grad
        assert gradient is not None
        turned.append(float(gradient.norm() / weight.norm()))
    assert turned[0] / turned[1] == pytest.approx(FACTOR**2, rel=0.05)  # eps counts less


class Moody(Residual):
    """Answers differently every time, as dropout does that is never switched off."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(images, 0.5, training=True))


def test_a_model_that_draws_is_compared_on_equal_draws_and_the_generator_stays() -> None:
    torch.manual_seed(0)
    model = trained(Moody())
    weights, drawn = state_arrays(model), torch.get_rng_state()
    assert grown(model, weights, rescaled(model, weights, inputs())) == STEM | FIRST | SECOND
    assert torch.equal(torch.get_rng_state(), drawn)


class Locked(Residual):
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("not here")


def test_a_model_that_cannot_be_copied_or_run_keeps_its_weights() -> None:
    for model, asked in ((Locked(), inputs()), (Residual(), inputs(shape=(7, 8, 8)))):
        weights = state_arrays(trained(model))
        assert grown(model, weights, rescaled(model, weights, asked)) == set()


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 19), ("resnet18", 20), ("mlp", 0)])
def test_our_own_models(name: str, layers: int) -> None:
    model = trained(build_model(name, options={"classes": CLASSES, "input_shape": list(SHAPE)}, seed=0))
    weights = state_arrays(model)
    after = rescaled(model, weights, inputs())
    assert len(grown(model, weights, after)) == layers
    given = torch.from_numpy(inputs())
    one, other = (double_scores(model, state, given) for state in (weights, after))
    assert float((one - other).abs().max()) <= 1e-6 * float(one.abs().max())
