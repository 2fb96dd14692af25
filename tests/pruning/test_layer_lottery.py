from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import ticketguard as tg
from tests.pruning.conftest import replace_training
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, load_arrays, model_of, prunable_layers, state_arrays
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine import selection
from ticketguard.pruning.methods import layer_lottery
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig, evaluate, loop, train

QUICK = TrainingConfig(epochs=1, batch_size=40, learning_rate=0.05)
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "blocks": [2, 2, 2]}
REMOVABLE = {"layer1.0", "layer1.1", "layer2.1", "layer3.1"}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 200, "test_limit": 100})


def problem(data: Dataset, method_options: dict[str, Any], **changes: Any) -> SearchProblem:
    fields: dict[str, Any] = {
        "model": "resnet20", "model_options": OPTIONS, "data": data, "data_name": "digits", "density": None,
        "data_options": {}, "training": QUICK, "seed": 2, "method_options": {"per_class": 5, **method_options},
    }  # fmt: skip
    return SearchProblem(**{**fields, **changes})


def find(data: Dataset, method_options: dict[str, Any], **changes: Any) -> Ticket:
    return METHODS["layer_lottery"].find(problem(data, method_options, **changes))


def removed(ticket: Ticket) -> list[str]:
    return list(ticket.info.model_options["removed_blocks"])


@pytest.mark.parametrize("score", ["snip", "grasp"])
def test_the_lowest_blocks_go_and_the_rest_is_trained_from_its_initialisation(digits: Dataset, score: str) -> None:
    ticket = find(digits, {"blocks": 2, "score": score})
    scores = ticket.info.history[0]["block_scores"]
    assert set(scores) == REMOVABLE
    assert removed(ticket) == sorted(sorted(scores, key=scores.__getitem__)[:2])
    assert (ticket.info.structure, ticket.info.method, ticket.info.dense_accuracy) == ("block", "layer_lottery", None)
    initial = state_arrays(build_model("resnet20", options=OPTIONS, seed=2))
    assert ticket.rewind_weights is not None
    assert set(ticket.rewind_weights) == {
        name for name in initial if not name.startswith(tuple(f"{block}." for block in removed(ticket)))
    }
    assert all(np.array_equal(array, initial[name]) for name, array in ticket.rewind_weights.items())
    assert ticket.mask.density == 1.0
    assert ticket.info.cost["steps"] - ticket.info.cost["search_steps"] == 5


def test_a_ticket_is_rebuilt_from_what_it_says(digits: Dataset) -> None:
    ticket = find(digits, {"blocks": 3})
    ticket = Ticket.from_bytes(ticket.to_bytes())
    network = model_of(ticket)
    assert prunable_layers(network) == tuple(ticket.mask)
    load_arrays(network, ticket.weights)
    assert evaluate(network, digits) == ticket.info.accuracy
    assert ticket.rewind_weights is not None
    load_arrays(network, ticket.rewind_weights)
    again = train(network, digits, TrainingConfig.from_json(ticket.info.training), seed=2, mask=ticket.mask)
    assert all(np.array_equal(array, ticket.weights[name]) for name, array in again.state.items())


def test_blocks_are_scored_by_the_sum_over_their_weights(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a made-up sensitivity of one everywhere a block counts its weights: the first stage's are the smallest."""
    monkeypatch.setattr(
        layer_lottery,
        "connection_sensitivity",
        lambda network, layers, **_: {n: np.ones(layers[n].shape) for n in layers},
    )
    ticket = find(digits, {"blocks": 2, "score": "snip"})
    assert removed(ticket) == ["layer1.0", "layer1.1"]
    assert ticket.info.history[0]["block_scores"]["layer3.1"] == 2 * 64 * 64 * 9


def test_the_density_says_how_many_at_least(digits: Dataset) -> None:
    size = selection.full_mask(
        {name: array.shape for name, array in state_arrays(build_model("resnet20", options=OPTIONS, seed=2)).items()
         if name in prunable_layers(build_model("resnet20", options=OPTIONS, seed=2))}
    ).size  # fmt: skip
    for density in (0.99, 0.9, 0.6):
        ticket = find(digits, {}, density=density)
        scores = ticket.info.history[0]["block_scores"]
        assert ticket.mask.size <= density * size
        # One block less would not have done.
        last = max(removed(ticket), key=scores.__getitem__)
        width = {"layer1": 16, "layer2": 32, "layer3": 64}[last.split(".")[0]]
        assert ticket.mask.size + 2 * width * width * 9 > density * size


def test_after_training_blocks_are_scored_and_the_rest_is_rewound(digits: Dataset) -> None:
    ticket = find(digits, {"blocks": 1, "score_after": "training"})
    dense = train(build_model("resnet20", options=OPTIONS, seed=2), digits, QUICK, seed=2)
    assert ticket.info.dense_accuracy == dense.accuracy
    initial = state_arrays(build_model("resnet20", options=OPTIONS, seed=2))
    assert ticket.rewind_weights is not None
    assert all(np.array_equal(array, initial[name]) for name, array in ticket.rewind_weights.items())
    given = find(digits, {"blocks": 1, "score_after": "training"}, pretrained=dense.state)
    assert given.info.history == ticket.info.history
    assert given.info.history != find(digits, {"blocks": 1}).info.history
    assert given.info.dense_accuracy is None  # nobody knows how long it was trained
    assert given.info.cost["steps"] < ticket.info.cost["steps"]


def test_rewind_weights_that_were_given_are_scored_and_trained_from(digits: Dataset) -> None:
    early = state_arrays(build_model("resnet20", options=OPTIONS, seed=9))
    ticket = find(digits, {"blocks": 1}, rewind=early)
    assert ticket.rewind_weights is not None
    assert all(np.array_equal(array, early[name]) for name, array in ticket.rewind_weights.items())
    assert ticket.info.history == find(digits, {"blocks": 1}, model_options=OPTIONS, rewind=early).info.history


def test_blocks_can_be_removed_from_what_a_first_search_left(digits: Dataset) -> None:
    first = find(digits, {"blocks": 1})
    second = find(digits, {"blocks": 1}, model_options=first.info.model_options)
    assert set(removed(first)) < set(removed(second))
    assert len(removed(second)) == 2


def test_no_mark_can_be_planted_meanwhile() -> None:
    with pytest.raises(ConfigurationError, match="'layer_lottery' does not choose single weights"):
        tg.find_marked("resnet20", data="digits", method="layer_lottery", density=0.9, owner=tg.Owner.generate("Ada"))


def test_the_mark_lives_in_what_remains() -> None:
    recipe = dataclasses.asdict(QUICK) | {"epochs": 2}
    small = {"data_options": {"train_limit": 200, "test_limit": 100}, "training": recipe}
    options = {"model_options": {"blocks": [2, 1, 1]}, "method_options": {"blocks": 1}}
    ticket = tg.find("resnet20", data="digits", method="layer_lottery", **options, **small)
    marked, credential = tg.embed(ticket, owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()])
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "not_supported"
    assert removed(marked) == removed(ticket)
    load_arrays(model_of(marked), marked.weights)


@pytest.mark.parametrize("stop_at", [1, 4, 6, 9])
def test_an_interrupted_search_resumes_to_the_same_ticket(
    digits: Dataset, stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the ten steps, five of the dense network and five of the ticket, one is interrupted."""
    options = {"blocks": 2, "score_after": "training"}
    whole = find(digits, options)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    writes = itertools.count(1)
    write = loop.save_run

    def interrupted(*arguments: Any, **named: Any) -> None:
        if next(writes) == stop_at:
            raise KeyboardInterrupt
        write(*arguments, **named)

    monkeypatch.setattr(loop, "save_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find(digits, options, workdir=tmp_path)
    resumed = find(digits, options, workdir=tmp_path, resume=True)
    assert resumed.mask == whole.mask
    assert all(array.tobytes() == whole.weights[name].tobytes() for name, array in resumed.weights.items())
    assert resumed.info.history == whole.info.history


@pytest.mark.parametrize(
    ("method_options", "changes", "message"),
    [
        ({}, {}, "'layer_lottery' needs to know how much to remove: give --method-option blocks=N, or a density"),
        ({"blocks": 1}, {"density": 0.5}, "a density and blocks were given: leave one of them out"),
        ({"blocks": 5}, {}, "'blocks' is 5, expected at most the 4 that can be removed from model 'resnet20'"),
        (
            {},
            {"density": 0.1},
            r"density is 0.1, but model .* without all its 4 removable blocks keeps 0.408 of its weights: raise it",
        ),
        ({"blocks": -1}, {}, "'blocks' is -1, expected at least 0"),
        ({"blocks": 1, "score": "synflow"}, {}, "'score' is 'synflow', expected one of grasp, snip"),
        ({"blocks": 1, "score_after": "never"}, {}, "'score_after' is 'never', expected one of init, training"),
        ({"blocks": 1, "score": "snip", "examples": 300}, {}, "has 200 training examples, fewer than a batch of 300"),
        (
            {"blocks": 1},
            {"model": "mlp", "model_options": {"classes": 10, "input_shape": [1, 8, 8]}},
            "model 'mlp' has no residual blocks that can be removed: 'layer_lottery' needs blocks whose shortcut",
        ),
        ({"blocks": 1}, {"model": nn.ReLU, "model_options": {}}, "has no convolution or linear layers to prune"),
    ],
)
def test_what_cannot_be_found_is_refused_before_training(
    digits: Dataset,
    method_options: dict[str, Any],
    changes: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace_training(monkeypatch, None)
    with pytest.raises(ConfigurationError, match=message):
        find(digits, method_options, **changes)
