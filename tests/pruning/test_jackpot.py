from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.pruning.conftest import replace_training
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError, TicketguardError
from ticketguard.models import build_model, load_arrays, state_arrays
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine import stepped
from ticketguard.pruning.engine.selection import comparable, full_mask, global_top_k, largest
from ticketguard.pruning.methods.jackpot import exchange
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import Hooks, NoHooks, TrainingConfig, evaluate, train

QUICK = TrainingConfig(epochs=8, batch_size=32, learning_rate=0.05, schedule="cosine", augment=False)
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [100, 40]}
SEARCH = {"epochs": 3.0, "batch_size": 32}


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
    return METHODS["jackpot"].find(problem(data, **changes))


def accuracy_under(mask: Mask, state: Mapping[str, Array], data: Dataset) -> float:
    network = build_model("mlp", options=OPTIONS, seed=0)
    load_arrays(network, {**state, **{name: state[name] * mask[name] for name in mask}})
    return evaluate(network, data)


def one_shot(state: Mapping[str, Array], keep: int) -> Mask:
    magnitudes = {name: np.abs(state[name]) for name in state if name.endswith("weight")}
    return global_top_k(magnitudes, keep, within=full_mask({name: state[name].shape for name in magnitudes}))


def same(first: Ticket, second: Ticket) -> bool:
    return first.mask == second.mask and all(
        first.weights[name].tobytes() == second.weights[name].tobytes() for name in first.weights
    )


def test_a_mask_of_frozen_weights_is_found_and_usable_at_once(digits: Dataset, dense: Mapping[str, Array]) -> None:
    ticket = find(digits, pretrained=dense)
    assert ticket.info.ready
    assert ticket.mask.kept == round(0.08 * ticket.mask.size)
    assert all(np.array_equal(ticket.weights[name], dense[name] * ticket.mask[name]) for name in ticket.mask)
    assert all(np.array_equal(ticket.weights[name], dense[name]) for name in dense if name not in ticket.mask.layers)
    assert ticket.rewind_weights is not None
    assert all(np.array_equal(ticket.rewind_weights[name], dense[name]) for name in dense)
    assert ticket.info.accuracy == accuracy_under(ticket.mask, dense, digits)
    assert ticket.info.accuracy > accuracy_under(one_shot(dense, ticket.mask.kept), dense, digits) + 0.05


def test_layers_share_the_density_by_one_threshold_beside_a_dense_classifier(
    digits: Dataset, dense: Mapping[str, Array]
) -> None:
    ticket = find(digits, pretrained=dense)
    assert ticket.mask["5.weight"].all()
    rest = {name: np.abs(dense[name]) for name in ("1.weight", "3.weight")}
    expected = global_top_k(rest, ticket.mask.kept - 400, within=full_mask({n: rest[n].shape for n in rest}))
    assert {name: int(ticket.mask[name].sum()) for name in rest} == {n: int(expected[n].sum()) for n in rest}
    sparse = find(digits, pretrained=dense, options={"dense_classifier": False})
    assert sparse.mask.kept == ticket.mask.kept
    assert not sparse.mask["5.weight"].all()


@pytest.mark.parametrize("changes", [{"start": "random"}, {"short_restriction": False}])
def test_the_start_and_the_restriction_change_the_ticket(
    digits: Dataset, dense: Mapping[str, Array], changes: dict[str, Any]
) -> None:
    ticket, other = find(digits, pretrained=dense), find(digits, pretrained=dense, options=changes)
    assert {name: int(other.mask[name].sum()) for name in other.mask} == {
        name: int(ticket.mask[name].sum()) for name in ticket.mask
    }
    assert other.mask != ticket.mask


def test_the_first_masks_are_the_largest_weights_or_any(digits: Dataset, dense: Mapping[str, Array]) -> None:
    still = {"epochs": 0.01, "learning_rate": 1e-9, "dense_classifier": False}
    ticket = find(digits, pretrained=dense, options=still)
    assert ticket.mask == one_shot(dense, ticket.mask.kept)
    drawn = find(digits, pretrained=dense, options={**still, "start": "random"})
    shared = sum(int((drawn.mask[name] & ticket.mask[name]).sum()) for name in ticket.mask)
    assert 0.05 < shared / ticket.mask.kept < 0.5


def test_only_the_ceiling_of_the_share_of_pairs_is_exchanged_best_against_worst() -> None:
    scores = np.array([0.1, 0.9, 0.2, 0.8, 0.95, 0.3, 0.7, 0.85])
    kept = np.array([True, False, True, False, True, True, False, False])
    # Top four by score: 1, 3, 4, 7; so 1, 7, 3 come (highest first) and 0, 2, 5 leave (lowest first).
    for share, expected in ((1e-9, {1, 2, 4, 5}), (0.34, {1, 7, 4, 5}), (1.0, {1, 3, 4, 7}), (0.0, {0, 2, 4, 5})):
        changed = kept.copy()
        exchange(changed, scores, share=share)
        assert set(np.flatnonzero(changed)) == expected


def test_the_ticket_is_the_last_mask_not_the_scores_that_the_restriction_held_back(
    digits: Dataset, dense: Mapping[str, Array], tmp_path: Path
) -> None:
    short = {"epochs": 0.5, "learning_rate": 1.0}
    ticket = find(digits, pretrained=dense, workdir=tmp_path, options=short)
    last = load_file(tmp_path / "jackpot.checkpoint")
    held_back = 0
    for name in ("1.weight", "3.weight"):
        kept, scores = last[f"kept/{name}"].numpy(), last[f"score/{name}"].numpy()
        assert np.array_equal(ticket.mask[name], kept)
        held_back += int((largest(scores.reshape(-1), int(kept.sum())) != kept.reshape(-1)).sum())
    assert held_back > 0


def test_comparable_scores_keep_each_layers_count_and_order() -> None:
    generator = np.random.default_rng(0)
    scores = {"a": generator.random((3, 4)), "b": generator.random((5, 2)) * 100}
    mask = global_top_k(comparable(scores, {"a": 7, "b": 2}), 9, within=full_mask({"a": (3, 4), "b": (5, 2)}))
    for name, count in (("a", 7), ("b", 2)):
        assert set(np.flatnonzero(mask[name])) == set(np.argsort(scores[name].reshape(-1))[-count:])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(inputs))).mean((2, 3)))


def test_batch_normalisation_keeps_its_parameters_and_measures_its_statistics_under_the_mask(digits: Dataset) -> None:
    changes: dict[str, Any] = {"model": Net, "model_options": {}, "density": 0.7}
    ticket = find(digits, options={"pretrain_epochs": 3.0}, **changes)
    assert ticket.rewind_weights is not None
    frozen = [name for name in ticket.weights if name in ("norm.weight", "norm.bias", "first.bias", "last.bias")]
    assert all(np.array_equal(ticket.weights[name], ticket.rewind_weights[name]) for name in frozen)
    network = Net()
    load_arrays(network, ticket.weights)
    with torch.no_grad():
        hidden = network.first(digits.scaled(digits.train_inputs))
    assert np.allclose(ticket.weights["norm.running_mean"], hidden.mean((0, 2, 3)), atol=0.05)
    assert not np.allclose(ticket.rewind_weights["norm.running_mean"], hidden.mean((0, 2, 3)), atol=0.05)


def test_a_ticket_is_retrained_by_the_papers_fine_tuning(digits: Dataset, dense: Mapping[str, Array]) -> None:
    recipe = TrainingConfig.from_json(find(digits, pretrained=dense).info.training)
    assert (recipe.learning_rate, recipe.epochs, recipe.weight_decay, recipe.batch_size) == (0.01, 10, 0.0, 32)
    tuned = find(digits, pretrained=dense, options={"fine_tune_epochs": 2.0})
    assert not tuned.info.ready
    assert tuned.info.training["epochs"] == 2.0
    assert tuned.info.cost["steps"] - tuned.info.cost["search_steps"] == 2 * (600 // 32)
    assert not any(tuned.weights[name][~tuned.mask[name]].any() for name in tuned.mask)


def test_cost_counts_the_dense_network_only_where_it_was_trained_here(
    digits: Dataset, dense: Mapping[str, Array]
) -> None:
    search = 3 * (600 // 32)
    assert find(digits, pretrained=dense).info.cost["steps"] == search
    trained = find(digits, options={"pretrain_epochs": 1.0}).info
    assert trained.cost["steps"] == search + 600 // 32
    assert trained.cost["examples"] == trained.cost["steps"] * 32
    assert trained.dense_accuracy is not None


class Marks:
    """Stands for marks that are planted while the ticket is found: a quota of it is at the layer's first positions."""

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


def test_planted_edges_are_kept_and_learned_by_fine_tuning(digits: Dataset, dense: Mapping[str, Array]) -> None:
    marks = Marks()
    ticket = find(digits, pretrained=dense, planting=marks)
    assert all(ticket.mask[name].reshape(-1)[:3].all() for name in ticket.mask)
    assert all(np.array_equal(marks.bound[name], dense[name]) for name in dense)
    assert not ticket.info.ready
    assert ticket.info.cost["steps"] - ticket.info.cost["search_steps"] == 10 * (600 // 32)


@pytest.mark.parametrize("stop_at", [1, 2, 20, 54])
def test_an_interrupted_search_resumes_to_the_same_ticket(
    digits: Dataset, dense: Mapping[str, Array], stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find(digits, pretrained=dense)
    monkeypatch.setattr(stepped, "CHECKPOINT_SECONDS", -1.0)
    write = stepped.save_run

    def interrupted(path: Path, state: Any, **named: Any) -> None:
        if state.step == stop_at:
            raise KeyboardInterrupt
        write(path, state, **named)

    monkeypatch.setattr(stepped, "save_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find(digits, pretrained=dense, workdir=tmp_path)
    monkeypatch.setattr(stepped, "save_run", write)
    assert same(find(digits, pretrained=dense, workdir=tmp_path, resume=True), whole)


def test_a_search_in_another_dense_network_is_not_gone_on_with(
    digits: Dataset, dense: Mapping[str, Array], tmp_path: Path
) -> None:
    find(digits, pretrained=dense, workdir=tmp_path)
    other = state_arrays(build_model("mlp", options=OPTIONS, seed=9))
    with pytest.raises(TicketguardError, match="belongs to a run with other settings"):
        find(digits, pretrained=other, workdir=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "method 'jackpot' starts from a trained dense network: give it as --pretrained"),
        ({"options": {"batch_size": 601}}, "has 600 training examples, fewer than a batch of 601"),
        ({"density": 0.03}, "keeps 324 of 10800 weights, expected the dense classifier's 400 .'5.weight'. and more"),
        (
            {"model_options": {**OPTIONS, "widths": []}},
            "and more for 0 other layers: raise it, or set dense_classifier",
        ),
        ({"density": None}, "this method needs a density"),
        ({"options": {"start": "best"}}, "'start' is 'best', expected one of magnitude, random"),
        ({"options": {"momentum": 1.0}}, "'momentum' is 1, expected at least 0 and below 1"),
        ({"options": {"epochs": 0.0}}, "'epochs' is 0, expected above 0"),
        ({"options": {"fine_tune_epochs": -1.0}}, "'fine_tune_epochs' is -1, expected at least 0"),
        ({"options": {"batch_size": 0}}, "'batch_size' is 0, expected at least 1"),
    ],
)
def test_what_cannot_be_found_is_refused_before_training(
    digits: Dataset, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_training(monkeypatch, None)
    changes = {**changes, "options": {**changes.get("options", {})}}
    with pytest.raises(ConfigurationError, match=message):
        find(digits, **changes)


def test_a_search_that_diverges_says_so(digits: Dataset, dense: Mapping[str, Array]) -> None:
    # Finite, but too large for the logits.
    broken = {**dense, "5.weight": np.full_like(dense["5.weight"], 3e38)}
    with pytest.raises(TicketguardError, match="the search diverged: the loss is nan at step 0: lower its"):
        find(digits, pretrained=broken)


def test_a_dense_network_is_trained_by_the_problems_recipe_and_resumed(digits: Dataset, tmp_path: Path) -> None:
    options = {"pretrain_epochs": 2.0}
    whole = find(digits, options=options, workdir=tmp_path)
    network = build_model("mlp", options=OPTIONS, seed=4)
    expected = train(network, digits, dataclasses.replace(QUICK, epochs=2.0), seed=4)
    assert whole.info.dense_accuracy == expected.accuracy
    again = find(digits, options=options, workdir=tmp_path, resume=True)
    assert same(again, whole)
    assert again.info.cost["steps"] == whole.info.cost["steps"]
