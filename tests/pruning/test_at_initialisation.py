"""SNIP, GraSP and SynFlow against their definitions, measured the slow way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.pruning.conftest import replace_training
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, named_parameters
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine.selection import full_mask, global_top_k
from ticketguard.pruning.methods.grasp import balanced_sample
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import TrainingConfig
from ticketguard.training.feeding import Feeder

QUICK = TrainingConfig(epochs=1, batch_size=32, learning_rate=0.05)
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [20, 10]}
METHODS_AT_INITIALISATION = ["grasp", "magnitude", "random", "snip", "synflow"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 400, "test_limit": 100})


def problem(data: Dataset, **changes: Any) -> SearchProblem:
    fields: dict[str, Any] = {
        "model": "mlp", "model_options": OPTIONS, "data": data, "data_name": "digits", "density": 0.2,
        "data_options": {}, "training": QUICK, "seed": 4,
    }  # fmt: skip
    return SearchProblem(**{**fields, **changes})


def normalised_net() -> nn.Module:
    """A convolution, batch normalisation and dropout: what scoring must leave as it was."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(384, 10)
    )


def scored(method: str, search: SearchProblem) -> tuple[Ticket, nn.Module, list[str]]:
    """Return what *method* finds, and the initial network that it scored."""
    ticket = METHODS[method].find(search)
    network = build_model(search.model, options=search.model_options, seed=search.seed)
    return ticket, network, list(ticket.mask)


def top(scores: dict[str, Array], keep: int) -> Mask:
    return global_top_k(scores, keep, within=full_mask({name: scores[name].shape for name in scores}))


@pytest.mark.parametrize("method", METHODS_AT_INITIALISATION)
@pytest.mark.parametrize("model", ["mlp", normalised_net])
def test_the_density_is_exact_and_the_start_is_the_initialisation(digits: Dataset, method: str, model: Any) -> None:
    options = OPTIONS if model == "mlp" else {}
    search = problem(digits, model=model, model_options=options, density=0.0567)
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    ticket, network, _ = scored(method, search)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert ticket.mask.kept == round(0.0567 * ticket.mask.size)
    assert ticket.rewind_weights is not None
    for name, tensor in network.state_dict().items():
        assert np.array_equal(ticket.rewind_weights[name], tensor.numpy())
    assert METHODS[method].find(search).mask == ticket.mask
    assert ticket.info.method == method
    assert all(0 < ticket.mask[name].mean() < 1 for name in ticket.mask)


@pytest.mark.parametrize("method", ["grasp", "snip"])
def test_other_data_give_another_mask(digits: Dataset, method: str) -> None:
    """The seed fixes initialisation and batch alike; the same initialisation on other data is scored anew."""
    other = load_data("digits", options={"train_limit": 300, "test_limit": 100, "seed": 1})
    assert METHODS[method].find(problem(digits)).mask != METHODS[method].find(problem(other)).mask


def test_snip_keeps_the_weights_that_a_small_change_of_their_mask_moves_the_loss_by_most(digits: Dataset) -> None:
    search = problem(digits, model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), model_options={})
    ticket, network, (name,) = scored("snip", search)
    network.double()
    batch = Feeder(digits, batch_size=128, seed=4, augment=False, device=torch.device("cpu"), process=(0, 1)).batch(0)
    weight = named_parameters(network)[name]
    changes = np.zeros(weight.shape)
    with torch.no_grad():
        for place in np.ndindex(*weight.shape):
            value = weight[place].item()
            losses = []
            for factor in (1 - 1e-4, 1 + 1e-4):
                weight[place] = value * factor
                losses.append(float(nn.functional.cross_entropy(network(batch[0].double()), batch[1])))
            weight[place] = value
            changes[place] = abs(losses[1] - losses[0])
    assert (top({name: changes}, ticket.mask.kept)[name] == ticket.mask[name]).mean() > 0.995


def test_grasp_drops_the_weights_whose_removal_raises_gradient_flow(digits: Dataset) -> None:
    """The change of the squared gradient norm when a weight shrinks, by finite differences, orders the weights."""
    search = problem(
        digits, model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10)),
        model_options={}, density=0.3,
    )  # fmt: skip
    ticket, network, names = scored("grasp", search)
    network.double()
    chosen = balanced_sample(digits, per_class=25, seed=4)
    inputs, labels = digits.scaled(digits.train_inputs[chosen]).double(), digits.train_labels[chosen]
    weights = [named_parameters(network)[name] for name in names]

    def flow() -> float:
        loss = nn.functional.cross_entropy(network(inputs) / 200.0, labels)
        return float(sum((gradient**2).sum() for gradient in torch.autograd.grad(loss, weights)))

    kept_if = {}
    for name, weight in zip(names, weights, strict=True):
        rise = np.zeros(weight.shape)
        for place in np.ndindex(*weight.shape):
            value = weight.data[place].item()
            weight.data[place] = value * (1 - 1e-4)
            less = flow()
            weight.data[place] = value * (1 + 1e-4)
            rise[place] = less - flow()
            weight.data[place] = value
        kept_if[name] = -rise
    expected = top(kept_if, ticket.mask.kept)
    agreement = np.mean([(expected[name] == ticket.mask[name]).mean() for name in names])
    assert agreement > 0.99


def test_grasp_takes_as_many_of_each_class_and_all_of_a_small_one(digits: Dataset) -> None:
    chosen = balanced_sample(digits, per_class=30, seed=0)
    there = np.bincount(digits.train_labels.numpy())
    assert np.bincount(digits.train_labels[chosen].numpy()).tolist() == np.minimum(there, 30).tolist()
    assert len(set(chosen.tolist())) == len(chosen)
    assert sorted(digits.train_labels[chosen[:10]].tolist()) == list(range(10))
    assert not torch.equal(chosen, balanced_sample(digits, per_class=30, seed=1))


def test_grasp_in_parts_is_grasp_at_once(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = METHODS["grasp"].find(problem(digits))
    monkeypatch.setattr("ticketguard.pruning.methods.grasp.PART", 60)
    parts = METHODS["grasp"].find(problem(digits))
    assert np.mean([(whole.mask[name] == parts.mask[name]).mean() for name in whole.mask]) > 0.999
    assert (whole.info.cost["search_steps"], parts.info.cost["search_steps"]) == (3, 15)


def test_synflow_in_one_round_keeps_the_weights_on_the_widest_paths(digits: Dataset) -> None:
    """In a linear network the flow through a weight is the sum over its paths of the products of |θ|."""
    search = problem(
        digits, model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 6, bias=False), nn.Linear(6, 10, bias=False)),
        model_options={}, method_options={"rounds": 1},
    )  # fmt: skip
    ticket, network, (lower, upper) = scored("synflow", search)
    first, second = (named_parameters(network)[name].detach().double().abs().numpy() for name in (lower, upper))
    expected = {lower: second.sum(0)[:, None] * first, upper: second * first.sum(1)[None, :]}
    assert top(expected, ticket.mask.kept) == ticket.mask


def test_synflow_in_rounds_prunes_exponentially_within_the_mask_so_far(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = []

    def recorded(scores: dict[str, Array], keep: int, *, within: Mask) -> Mask:
        masks.append(global_top_k(scores, keep, within=within))
        assert all((within[name] | ~masks[-1][name]).all() for name in within)
        return masks[-1]

    monkeypatch.setattr("ticketguard.pruning.methods.synflow.global_top_k", recorded)
    ticket = METHODS["synflow"].find(problem(digits, density=0.01, method_options={"rounds": 10}))
    assert [mask.density for mask in masks] == pytest.approx([0.01 ** (k / 10) for k in range(1, 10)], rel=0.02)
    assert all((masks[-1][name] | ~ticket.mask[name]).all() for name in ticket.mask)


def test_what_a_search_took_is_told(digits: Dataset) -> None:
    costs = {name: METHODS[name].find(problem(digits)).info.cost for name in METHODS_AT_INITIALISATION}
    assert {name: cost["search_examples"] for name, cost in costs.items()} == {
        "grasp": 3 * 250, "magnitude": 0, "random": 0, "snip": 128, "synflow": 100,
    }  # fmt: skip
    assert all(cost["steps"] == cost["search_steps"] + 12 for cost in costs.values())


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("snip", {"examples": 0}, "'examples' is 0, expected at least 1"),
        ("snip", {"examples": 500}, "'digits' has 400 training examples, fewer than a batch of 500"),
        ("grasp", {"per_class": 0}, "'per_class' is 0, expected at least 1"),
        ("grasp", {"temperature": 0.0}, "'temperature' is 0, expected above 0"),
        ("synflow", {"rounds": 0}, "'rounds' is 0, expected at least 1"),
        ("synflow", {"levels": 3}, "unknown method option 'levels', expected one of rounds"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    digits: Dataset, method: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_training(monkeypatch, None)
    with pytest.raises(ConfigurationError, match=message):
        METHODS[method].find(problem(digits, method_options=options))


def test_grasp_refuses_data_without_examples_of_a_class(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_training(monkeypatch, None)
    there = digits.train_labels != 3
    lacking = Dataset(
        name="lacking", train_inputs=digits.train_inputs[there], train_labels=digits.train_labels[there],
        test_inputs=digits.test_inputs, test_labels=digits.test_labels, classes=10, mean=digits.mean, std=digits.std,
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="'lacking' has no training examples of class 3: 'grasp' needs some"):
        METHODS["grasp"].find(problem(lacking))
