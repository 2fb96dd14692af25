from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.pruning.conftest import replace_training
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, load_arrays, prunable_layers, resize_to, state_arrays
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine import stepped
from ticketguard.pruning.engine.batch_norm import batch_statistics
from ticketguard.pruning.engine.channel_gates import ChannelGates
from ticketguard.pruning.engine.selection import full_mask, global_top_k
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import Hooks, NoHooks, TrainingConfig, evaluate, train

QUICK = TrainingConfig(epochs=8, batch_size=32, learning_rate=0.05, schedule="cosine", augment=False)
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [40, 20]}
SEARCH = {"epochs": 3.0, "batch_size": 32, "learning_rate": 0.05}
LAYERS = ("1.weight", "3.weight", "5.weight")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 600, "test_limit": 300})


@pytest.fixture(scope="module")
def dense(digits: Dataset) -> Mapping[str, Array]:
    return train(build_model("mlp", options=OPTIONS, seed=1), digits, QUICK, seed=1).state


def problem(data: Dataset, **changes: Any) -> SearchProblem:
    options = {**SEARCH, **changes.pop("options", {})}
    fields: dict[str, Any] = {
        "model": "mlp", "model_options": OPTIONS, "data": data, "data_name": "digits", "density": 0.08,
        "data_options": {}, "training": QUICK, "seed": 4, "method_options": options,
    }  # fmt: skip
    return SearchProblem(**{**fields, **changes})


def find(data: Dataset, **changes: Any) -> Ticket:
    return METHODS["bip"].find(problem(data, **changes))


def accuracy_of(state: Mapping[str, Array], data: Dataset) -> float:
    network = build_model("mlp", options=OPTIONS, seed=0)
    load_arrays(network, state)
    return evaluate(network, data)


def one_shot(state: Mapping[str, Array], keep: int) -> Mask:
    return global_top_k(
        {name: np.abs(state[name]) for name in LAYERS}, keep,
        within=full_mask({name: state[name].shape for name in LAYERS}),
    )  # fmt: skip


def same(first: Ticket, second: Ticket) -> bool:
    return first.mask == second.mask and all(
        first.weights[name].tobytes() == second.weights[name].tobytes() for name in first.weights
    )


def test_masks_and_weights_are_learned_together_and_usable_at_once(digits: Dataset, dense: Mapping[str, Array]) -> None:
    ticket = find(digits, pretrained=dense)
    start = ticket.rewind_weights
    assert start is not None
    assert ticket.info.ready
    assert ticket.info.structure == "weight"
    assert ticket.mask.kept == round(0.08 * ticket.mask.size)
    assert all(np.array_equal(ticket.weights[name], start[name] * ticket.mask[name]) for name in ticket.mask)
    assert ticket.info.accuracy == accuracy_of(ticket.weights, digits)
    # What is pruned keeps its trained weight, so that an embedding's edges that move have something to start from.
    assert all((start[name][~ticket.mask[name]] != 0).mean() > 0.9 for name in LAYERS)
    first = one_shot(dense, ticket.mask.kept)
    assert first != ticket.mask
    pruned = {**dense, **{name: dense[name] * first[name] for name in LAYERS}}
    assert ticket.info.accuracy > accuracy_of(pruned, digits) + 0.1


def test_only_kept_weights_are_trained_and_the_mask_follows_the_hypergradient(
    digits: Dataset, dense: Mapping[str, Array]
) -> None:
    """One step, without momentum and decay, against the formulas."""
    plain = {
        "epochs": 1 / 18, "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.2, "mask_learning_rate": 5.0,
        "inverse_gamma": 0.3,
    }  # fmt: skip
    ticket = find(digits, pretrained=dense, options=plain)
    assert ticket.rewind_weights is not None
    from ticketguard.training.feeding import Feeder

    mask = one_shot(dense, ticket.mask.kept)
    network = build_model("mlp", options=OPTIONS, seed=0)

    def gradients(state: Mapping[str, Array], seed: int) -> dict[str, Array]:
        masked = {name: state[name] * mask[name] if name in LAYERS else state[name] for name in state}
        load_arrays(network, masked)
        network.zero_grad()
        feeder = Feeder(digits, batch_size=32, seed=seed, augment=False, device=torch.device("cpu"), process=(0, 1))
        inputs, labels = feeder.batch(0)
        nn.functional.cross_entropy(network(inputs), labels).backward()
        return {name: p.grad.numpy().copy() for name, p in network.named_parameters() if p.grad is not None}

    below = gradients(dense, 4)
    trained = {n: dense[n] - 0.2 * below[n] * (mask[n] if n in LAYERS else 1) for n in dense}
    assert all(np.allclose(ticket.rewind_weights[name], trained[name], atol=1e-6) for name in trained)
    above = gradients(trained, 500_004)
    scores = {
        n: dense[n] - 5.0 * np.sign(dense[n]) * (trained[n] - 0.3 * above[n]) * above[n] for n in LAYERS
    }  # fmt: skip
    expected = one_shot(scores, ticket.mask.kept)
    assert sum(int((expected[n] != ticket.mask[n]).sum()) for n in LAYERS) <= 2  # rounding at the threshold
    assert sum(int((expected[n] != mask[n]).sum()) for n in LAYERS) > 2


def test_cost_counts_both_batches_and_the_recipe_is_the_problems(digits: Dataset, dense: Mapping[str, Array]) -> None:
    info = find(digits, pretrained=dense).info
    assert info.cost["steps"] == 2 * 3 * (600 // 32)
    assert info.cost["examples"] == info.cost["steps"] * 32
    assert info.training == QUICK.to_json()
    tuned = find(digits, pretrained=dense, options={"fine_tune_epochs": 1.0}).info
    assert not tuned.ready
    assert tuned.training["epochs"] == 1.0
    assert tuned.cost["steps"] - tuned.cost["search_steps"] == 600 // 32


class Net(nn.Module):
    """Normalised, biased, flattened: everything a channel can be zero in; the last group is too small to halve."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.pool = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.MaxPool2d(4)
        self.after, self.last = nn.BatchNorm2d(6), nn.Linear(24, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.sigmoid(self.norm(self.first(inputs)))
        return self.last(self.pool(torch.relu(self.after(self.second(hidden)))).flatten(1))


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    state = model.state_dict()
    return {name: tuple(state[name].shape) for name in prunable_layers(model)}


@pytest.mark.parametrize("structure", ["filter", "channel"])
def test_a_structured_ticket_is_physically_smaller_and_within_the_density(digits: Dataset, structure: str) -> None:
    options = {"structure": structure, "pretrain_epochs": 3.0}
    changes: dict[str, Any] = {"model": Net, "model_options": {}, "density": 0.4, "options": options}
    ticket = find(digits, **changes)
    whole = sum(int(np.prod(shape)) for shape in shapes(Net()).values())
    assert ticket.info.structure == structure
    assert ticket.mask.density == 1.0
    second, first = ticket.weights["second.weight"].shape[:2]
    # Another channel of either group would be more than the density keeps.
    assert ticket.mask.size <= 0.4 * whole < ticket.mask.size + min(9 + 9 * second, 9 * first + 40)
    network = Net()
    resize_to(network, {name: array.shape for name, array in ticket.weights.items()})
    load_arrays(network, ticket.weights)
    assert evaluate(network, digits) == ticket.info.accuracy
    assert ticket.info.accuracy is not None
    assert ticket.info.accuracy > 0.3
    assert Ticket.from_bytes(ticket.to_bytes()).info.structure == structure


@pytest.mark.parametrize("structure", ["filter", "channel"])
@pytest.mark.parametrize("model", ["resnet20", "mlp", "net"])
def test_under_the_gates_a_network_computes_what_the_smaller_one_does(
    digits: Dataset, model: str, structure: str
) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return Net() if model == "net" else build_model(model, options=OPTIONS if model == "mlp" else IMAGES, seed=0)

    network, smaller = build(), build()
    searched = problem(digits, density=0.5)
    gates = ChannelGates(searched, network, full_mask(shapes(network)), structure=structure)
    state = state_arrays(network)
    scores = {name: np.random.default_rng(0).normal(size=shape) for name, shape in shapes(network).items()}
    masks = gates.masks(scores)
    load_arrays(network, {n: state[n] * masks[n] if n in masks else state[n] for n in state})
    cut = gates.cut(state, scores)
    # A channel that is gone is zero in every parameter that knows it, biases and normalisation among them.
    parameters = [name for name, _ in network.named_parameters() if cut[name].size < state[name].size]
    assert [int(masks[name].sum()) for name in parameters] == [cut[name].size for name in parameters]
    resize_to(smaller, {name: array.shape for name, array in cut.items()})
    load_arrays(smaller, cut)
    inputs = digits.scaled(digits.train_inputs[:40])
    with torch.no_grad(), batch_statistics(network), batch_statistics(smaller):
        torch.testing.assert_close(network(inputs), smaller(inputs), atol=1e-4, rtol=1e-4)
    assert sum(parameter.numel() for parameter in smaller.parameters()) < 0.6 * sum(
        parameter.numel() for parameter in network.parameters()
    )


IMAGES = {"classes": 10, "input_shape": [1, 8, 8]}


def test_filters_are_scored_by_the_weights_that_make_them_and_channels_by_those_that_read_them(digits: Dataset) -> None:
    network = build_model("mlp", options=OPTIONS, seed=0)
    scores = {name: np.ones(shape) for name, shape in shapes(network).items()}
    scores["1.weight"][:10] = -2.0  # made by these
    scores["3.weight"][:, 30:] = 2.0  # read by these
    kept = {
        structure: ChannelGates(
            problem(digits, density=0.2), network, full_mask(shapes(network)), structure=structure
        ).kept(scores)
        for structure in ("filter", "channel")
    }
    first = {structure: max(groups, key=len) for structure, groups in kept.items()}
    assert set(first["filter"]) <= set(range(10))
    assert set(first["channel"]) <= set(range(30, 40))


def test_every_group_keeps_the_same_share_of_its_channels(digits: Dataset) -> None:
    ticket = find(digits, density=0.3, options={"structure": "filter", "pretrain_epochs": 1.0, "epochs": 0.1})
    first, second = ticket.weights["1.weight"].shape[0], ticket.weights["3.weight"].shape[0]
    assert abs(first / 40 - second / 20) <= 1 / 20
    assert ticket.weights["3.weight"].shape[1] == first


class Marks:
    """Stands for marks that are planted while the ticket is found, at the layers' first positions."""

    identity = "test"

    def begin(self, start: Mapping[str, Array], everything: Mask) -> Mapping[str, Array]:
        return start

    def bind(self, start: Mapping[str, Array], everything: Mask) -> Marks:
        self.bound = start
        return self

    def choose(self, scores: Mapping[str, Array], keep: int, *, within: Mask) -> Mask:
        preferred = {name: np.array(scores[name]) for name in scores}
        for layer in preferred.values():
            layer.reshape(-1)[:3] = layer.max() + 1
        return global_top_k(preferred, keep, within=within)

    def plan(self, mask: Mask) -> Hooks:
        return NoHooks()


def test_planted_edges_are_kept_and_learned_by_training(digits: Dataset, dense: Mapping[str, Array]) -> None:
    marks = Marks()
    ticket = find(digits, pretrained=dense, planting=marks, density=0.2, options={"fine_tune_epochs": 1.0})
    assert all(ticket.mask[name].reshape(-1)[:3].all() for name in ticket.mask)
    assert ticket.rewind_weights is not None
    assert all(np.array_equal(marks.bound[name], ticket.rewind_weights[name]) for name in marks.bound)
    assert not ticket.info.ready


@pytest.mark.parametrize(("structure", "stop_at"), [("weight", 1), ("weight", 27), ("weight", 54), ("filter", 2)])
def test_an_interrupted_search_resumes_to_the_same_ticket(
    digits: Dataset,
    dense: Mapping[str, Array],
    structure: str,
    stop_at: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes: dict[str, Any] = {"pretrained": dense, "density": 0.3, "options": {"structure": structure}}
    whole = find(digits, **changes)
    monkeypatch.setattr(stepped, "CHECKPOINT_SECONDS", -1.0)
    write = stepped.save_run

    def interrupted(path: Path, state: Any, **named: Any) -> None:
        if state.step == stop_at:
            raise KeyboardInterrupt
        write(path, state, **named)

    monkeypatch.setattr(stepped, "save_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find(digits, workdir=tmp_path, **changes)
    monkeypatch.setattr(stepped, "save_run", write)
    assert same(find(digits, workdir=tmp_path, resume=True, **changes), whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "method 'bip' starts from a trained dense network: give it as --pretrained"),
        ({"options": {"batch_size": 601}}, "has 600 training examples, fewer than a batch of 601"),
        ({"options": {"structure": "block"}}, "'structure' is 'block', expected one of weight, filter, channel"),
        ({"options": {"structure": "filter"}, "density": 0.001}, "keeps 4 weights, but with one channel of each of 2"),
        (
            {"options": {"structure": "filter"}, "planting": Marks()},
            "structure 'filter' does not choose single weights, so no",
        ),
        ({"options": {"structure": "filter"}, "density": None}, "this method needs a density"),
        (
            {"options": {"structure": "channel"}, "model_options": {**OPTIONS, "widths": []}},
            "no channels of this model can be cut out",
        ),
        ({"options": {"mask_learning_rate": 0.0}}, "'mask_learning_rate' is 0, expected above 0"),
        ({"options": {"inverse_gamma": -1.0}}, "'inverse_gamma' is -1, expected at least 0"),
        ({"options": {"momentum": 1.0}}, "'momentum' is 1, expected at least 0 and below 1"),
        ({"options": {"batch_size": 0}}, "'batch_size' is 0, expected at least 1"),
    ],
)
def test_what_cannot_be_found_is_refused_before_training(
    digits: Dataset, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_training(monkeypatch, None)
    with pytest.raises(ConfigurationError, match=message):
        find(digits, **{**changes, "options": dict(changes.get("options", {}))})
