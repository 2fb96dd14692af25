from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.pruning.conftest import replace_training
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError, TicketguardError
from ticketguard.models import build_model, load_arrays, state_arrays
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine import stepped
from ticketguard.pruning.engine.batch_norm import batch_statistics
from ticketguard.pruning.engine.concrete_search import ConcreteConfig, ConcreteSearch, TaskLoss
from ticketguard.pruning.methods.cts import cross_entropy
from ticketguard.pruning.methods.cts_kl import reverse_divergence
from ticketguard.ticket import Mask, Ticket
from ticketguard.training import TrainingConfig, loop, train
from ticketguard.training.feeding import generator_for

QUICK = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.05)
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [20, 10]}
SHORT = {"epochs": 1.0, "rewind_epochs": 0.5}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 200, "test_limit": 100})


def problem(data: Dataset, **changes: Any) -> SearchProblem:
    fields: dict[str, Any] = {
        "model": "mlp", "model_options": OPTIONS, "data": data, "data_name": "digits", "density": 0.1,
        "data_options": {"train_limit": 200}, "training": QUICK, "seed": 4, "method_options": SHORT,
    }  # fmt: skip
    return SearchProblem(**{**fields, **changes})


def small_convolutions() -> nn.Module:
    layers = (nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4))
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 10))


def search_of(
    given: SearchProblem, network: nn.Module, *, task: TaskLoss = cross_entropy, **changes: Any
) -> ConcreteSearch:
    layers = given.everything(network)
    config = ConcreteConfig(batch_size=given.training.batch_size, **changes)
    return ConcreteSearch(given, network, config, layers=layers, keep=given.keep(layers.size), task=task)


def expected_density(search: ConcreteSearch) -> float:
    return float(search.tensors()["logits"].sigmoid().mean())


def same(first: Ticket, second: Ticket) -> bool:
    return first.mask == second.mask and all(
        first.weights[name].tobytes() == second.weights[name].tobytes() for name in second.weights
    )


@pytest.mark.parametrize("method", ["cts", "cts_kl"])
@pytest.mark.parametrize("density", [0.1, 0.0567])
def test_the_density_is_met_exactly(digits: Dataset, method: str, density: float) -> None:
    ticket = METHODS[method].find(problem(digits, density=density))
    assert ticket.mask.kept == round(density * ticket.mask.size)
    assert not any(ticket.weights[name][~ticket.mask[name]].any() for name in ticket.mask)
    assert ticket.info.method == method


@pytest.mark.parametrize("method", ["cts", "cts_kl"])
def test_the_mask_is_better_than_its_layers_shuffled(method: str) -> None:
    """What the search finds is which weights, not only how many in each layer (the paper's sanity check)."""
    data = load_data("digits", options={})
    training = TrainingConfig(epochs=3, batch_size=64, learning_rate=0.1)
    given = problem(data, density=0.05, training=training, method_options={"epochs": 12.0, "rewind_epochs": 1.0})
    ticket = METHODS[method].find(given)
    assert ticket.rewind_weights is not None
    assert ticket.info.accuracy is not None
    shuffled = []
    for seed in range(2):
        generator = np.random.default_rng(seed)
        layers = {name: generator.permuted(ticket.mask[name].reshape(-1)) for name in ticket.mask}
        mask = Mask(layers={name: layer.reshape(ticket.mask[name].shape) for name, layer in layers.items()})
        network = given.build()
        load_arrays(network, ticket.rewind_weights)
        shuffled.append(train(network, data, training, seed=given.seed, mask=mask).accuracy)
    assert ticket.info.accuracy > max(shuffled) + 0.02, (ticket.info.accuracy, shuffled)


def test_both_start_from_the_weights_that_ltr_rewinds_to(digits: Dataset) -> None:
    ltr = METHODS["ltr"].find(problem(digits, method_options={"rewind_epochs": 0.5, "prune_fraction": 0.8}))
    cts = METHODS["cts"].find(problem(digits))
    assert ltr.rewind_weights is not None
    assert cts.rewind_weights is not None
    assert all(np.array_equal(cts.rewind_weights[name], ltr.rewind_weights[name]) for name in ltr.rewind_weights)
    given = METHODS["cts"].find(problem(digits, rewind=ltr.rewind_weights, method_options={"epochs": 1.0}))
    assert same(given, cts)


def test_without_a_rewind_point_the_search_is_at_initialisation(digits: Dataset) -> None:
    ticket = METHODS["cts"].find(problem(digits, method_options={"epochs": 1.0, "rewind_epochs": 0.0}))
    initial = state_arrays(build_model("mlp", options=OPTIONS, seed=4))
    assert ticket.rewind_weights is not None
    assert all(np.array_equal(ticket.rewind_weights[name], initial[name]) for name in initial)


def test_cost_counts_rewind_search_and_training(digits: Dataset) -> None:
    cts, divergence = (METHODS[method].find(problem(digits)).info.cost for method in ("cts", "cts_kl"))
    assert cts["search_steps"] == 3 + 6
    assert cts["search_examples"] == 9 * 32
    assert divergence["search_examples"] == 3 * 32 + 6 * 32 * 4 / 3  # the dense network's forward pass
    assert cts["steps"] == 9 + 12


def test_history_tells_each_epochs_density_loss_and_multiplier(digits: Dataset) -> None:
    history = METHODS["cts"].find(problem(digits, method_options={**SHORT, "epochs": 2.5})).info.history
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert all(0 < entry["expected_density"] < 1 and entry["task_loss"] > 0 for entry in history)
    assert all(entry["multiplier"] >= 0 for entry in history)


@pytest.mark.parametrize("balance", ["grad_balance", "lagrange"])
def test_the_expected_density_is_held_at_its_target(digits: Dataset, balance: str) -> None:
    given = problem(digits)
    network = given.build()
    search = search_of(given, network, epochs=100.0, balance=balance, multiplier_rate=1e-2)
    for number in range(search.steps):
        search.step(number)
    assert expected_density(search) == pytest.approx(1.1 * 0.1, rel=0.1)
    search = search_of(given, given.build(), epochs=100.0, balance="lagrange", multiplier_rate=1e-30)
    for number in range(200):
        search.step(number)
    assert expected_density(search) > 0.2  # what happens without a sparsity term


def test_the_relaxed_gradient_is_the_finite_difference(digits: Dataset) -> None:
    given = problem(digits, model=small_convolutions, model_options={})
    network = given.build()
    initial = {name: torch.from_numpy(array) for name, array in state_arrays(network).items()}
    search = search_of(given, network)
    start = search.scores()
    images, labels = digits.scaled(digits.train_inputs), digits.train_labels
    noise = search._packing.unpack(search.noise(0))

    def relaxed_loss(logits: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of the definition, in float64, layer by layer."""
        names = sorted(logits)
        gates = {name: 1 / (1 + torch.exp(-(noise[name].double() + logits[name]))) for name in names}
        reference = small_convolutions().double()
        order = torch.randperm(200, generator=generator_for(4, 0, 0))[:32]
        weights = {name: tensor.double() for name, tensor in initial.items()}
        weights |= {name: weights[name] * gates[name] for name in names}
        with batch_statistics(reference.eval()):
            outputs = torch.func.functional_call(reference, weights, (images[order].double(),))
        return functional.cross_entropy(outputs, labels[order])

    with batch_statistics(network.eval()):
        search.step(0)
    gradient = search._packing.unpack(search._logits.grad)  # type: ignore[arg-type]
    base = {name: torch.from_numpy(array).double() for name, array in start.items()}
    generator = np.random.default_rng(0)
    for name in sorted(base):
        for _ in range(3):
            place = tuple(int(generator.integers(size)) for size in base[name].shape)
            up, down = ({key: value.clone() for key, value in base.items()} for _ in range(2))
            up[name][place] += 1e-4
            down[name][place] -= 1e-4
            difference = 100 * float(relaxed_loss(up) - relaxed_loss(down)) / 2e-4
            assert float(gradient[name][place]) == pytest.approx(difference, rel=1e-2, abs=1e-4)


def test_grad_balance_follows_its_definition(digits: Dataset) -> None:
    given = problem(digits)
    search = search_of(given, given.build())
    with torch.no_grad():
        search._logits.add_(1.0)  # too many are kept
    task, sparsity = torch.tensor([3.0, 4.0]), torch.tensor([0.6, 0.8])
    search._update_multiplier(task, sparsity, torch.tensor(1.0), decay=1.0)
    assert float(search.tensors()["multiplier"]) == pytest.approx(0.01 * 5)
    search._update_multiplier(task, sparsity, torch.tensor(-1.0), decay=1.0)
    assert float(search.tensors()["multiplier"]) == pytest.approx(0.99 * 0.01 * 5)


def test_logits_start_at_the_density_and_noise_is_logistic_over_the_temperature(digits: Dataset) -> None:
    given = problem(digits, model_options={**OPTIONS, "widths": [400]})
    search = search_of(given, given.build())
    assert expected_density(search) == pytest.approx(0.1, rel=1e-3)
    noise = search.noise(7)
    assert torch.equal(noise, search.noise(7))
    assert not torch.equal(noise, search.noise(8))
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.05)
    # A logistic variable's deviation is pi / sqrt(3).
    assert float(noise.std()) == pytest.approx(1.5 * math.pi / math.sqrt(3), rel=0.03)


def test_the_divergence_is_the_reverse_one_and_vanishes_for_the_whole_mask(digits: Dataset) -> None:
    given = problem(digits, model=small_convolutions, model_options={})
    network = given.build()
    search = search_of(given, network, task=reverse_divergence)
    inputs = digits.scaled(digits.train_inputs[:32])
    with batch_statistics(network.eval()):
        whole = torch.func.functional_call(network, search._packing.unpack(search._weights), (inputs,))
        divergence = reverse_divergence(whole.detach(), lambda: search._dense(inputs), torch.empty(0))
    assert float(divergence) == pytest.approx(0.0, abs=1e-6)
    sparse, dense = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[0.0, 0.0]])
    known = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert float(reverse_divergence(sparse, lambda: dense, torch.empty(0))) == pytest.approx(known)


def test_a_search_changes_no_weight_and_no_running_statistic(digits: Dataset) -> None:
    """The network's own statistics come from its training alone, and dropout sleeps while the mask is searched."""
    given = problem(digits, model=small_convolutions, model_options={}, method_options={"epochs": 2.0})
    network = given.build()
    before = state_arrays(network)
    search = search_of(given, network)
    with batch_statistics(network.eval()):
        for number in range(5):
            search.step(number)
    assert all(before[name].tobytes() == array.tobytes() for name, array in state_arrays(network).items())
    ticket = METHODS["cts"].find(given)
    assert ticket.info.accuracy is not None
    assert all(np.isfinite(array).all() for array in ticket.weights.values())


@pytest.mark.parametrize("method", ["cts", "cts_kl"])
@pytest.mark.parametrize("stop_at", [1, 3, 6, 7, 8, 12, 17])
def test_an_interrupted_search_resumes_to_the_same_ticket(
    digits: Dataset, method: str, stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of rewind training, search and training writes a checkpoint: one of those writes is interrupted."""
    whole = METHODS[method].find(problem(digits))
    writes = itertools.count(1)
    for module in (stepped, loop):
        monkeypatch.setattr(module, "CHECKPOINT_SECONDS", -1.0)
        write = module.save_run

        def interrupted(*arguments: Any, write: Any = write, **named: Any) -> None:
            if next(writes) == stop_at:
                raise KeyboardInterrupt
            write(*arguments, **named)

        monkeypatch.setattr(module, "save_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        METHODS[method].find(problem(digits, workdir=tmp_path))
    resumed = METHODS[method].find(problem(digits, workdir=tmp_path, resume=True))
    assert same(whole, resumed)
    assert resumed.info.history == whole.info.history


def test_a_search_that_diverges_says_so(digits: Dataset) -> None:
    class Broken(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) * float("nan")

    def broken() -> nn.Module:
        return nn.Sequential(nn.Flatten(), Broken(64, 10))

    given = problem(digits, model=broken, model_options={}, method_options={"epochs": 1.0, "rewind_epochs": 0.0})
    with pytest.raises(TicketguardError, match="the search diverged: its logits are not numbers with rate 0.1"):
        METHODS["cts"].find(given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": None}, "this method needs a density: give the kept share of the weights as --density"),
        ({"density": 0.001}, "keeps 2 of 1580 weights, fewer than the model's 3 layers: raise it"),
        ({"method_options": {"epochs": 0.0}}, "'epochs' is 0, expected above 0"),
        ({"method_options": {"overshoot": 0.9}}, "'overshoot' is 0.9, expected at least 1"),
        ({"method_options": {"batch_size": -1}}, "'batch_size' is -1, expected at least 0"),
        ({"method_options": {"batch_size": 201}}, "has 200 training examples, fewer than a batch of 201"),
        ({"method_options": {"balance": "none"}}, "'balance' is 'none', expected one of grad_balance, lagrange"),
        ({"method_options": {"rewind_epochs": 2.0}}, "rewind_epochs is 2, expected below the 2 epochs of the training"),
        ({"rewind": {}, "method_options": SHORT}, "rewind weights were given, and rewind_epochs too"),
    ],
)
def test_what_cannot_be_found_is_refused_before_training(
    digits: Dataset, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_training(monkeypatch, None)
    with pytest.raises(ConfigurationError, match=message):
        METHODS["cts"].find(problem(digits, **changes))


def test_training_that_stops_early_is_the_start_of_the_whole_run(digits: Dataset) -> None:
    recipe = dataclasses.replace(QUICK, schedule="cosine")
    whole = train(build_model("mlp", options=OPTIONS, seed=4), digits, recipe, seed=1, snapshot_steps=(5,))
    stopped = train(build_model("mlp", options=OPTIONS, seed=4), digits, recipe, seed=1, stop_step=5)
    assert (stopped.steps, stopped.examples) == (5, 5 * 32)
    assert all(whole.snapshots[5][name].tobytes() == array.tobytes() for name, array in stopped.state.items())
