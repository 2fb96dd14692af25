from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.pruning.conftest import replace_training
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError, TicketguardError
from ticketguard.models import build_model, load_arrays, state_arrays
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.methods import grokking
from ticketguard.ticket import Array, Ticket
from ticketguard.training import AccuracyWatch, TrainingConfig, evaluate, loop, train

# Digits are understood as they are learnt: the thresholds say where a network of so few steps "generalises".
QUICK = TrainingConfig(
    epochs=20, batch_size=200, learning_rate=0.02, optimizer="adamw", schedule="constant", augment=False
)
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [40]}
REACHED = {"test_accuracy": 0.8, "max_steps": 60, "evaluate_every": 3}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 200, "test_limit": 100})


def problem(data: Dataset, **changes: Any) -> SearchProblem:
    fields: dict[str, Any] = {
        "model": "mlp", "model_options": OPTIONS, "data": data, "data_name": "digits", "density": 0.5,
        "data_options": {"train_limit": 200}, "training": QUICK, "seed": 4, "method_options": REACHED,
    }  # fmt: skip
    return SearchProblem(**{**fields, **changes})


def find(data: Dataset, **changes: Any) -> Ticket:
    return METHODS["grokking"].find(problem(data, **changes))


def dense(data: Dataset, steps: int) -> dict[str, Array]:
    config = TrainingConfig(**{**QUICK.to_json(), "epochs": steps, "milestones": ()})
    return dict(train(build_model("mlp", options=OPTIONS, seed=4), data, config, seed=4).state)


def accuracy_of(state: dict[str, Array], data: Dataset, part: Any = "test") -> float:
    model = build_model("mlp", options=OPTIONS, seed=4)
    load_arrays(model, state)
    return evaluate(model, data, part=part)


def test_the_mask_is_taken_where_the_network_first_generalises(digits: Dataset) -> None:
    ticket = find(digits)
    steps = ticket.info.history[0]["steps"]
    trained = dense(digits, steps)
    assert accuracy_of(trained, digits) >= 0.8 > accuracy_of(dense(digits, steps - 3), digits)
    kept = np.concatenate([np.abs(trained[name])[ticket.mask[name]] for name in ticket.mask])
    dropped = np.concatenate([np.abs(trained[name])[~ticket.mask[name]] for name in ticket.mask])
    assert kept.min() >= dropped.max()
    assert ticket.mask.kept == round(0.5 * ticket.mask.size)


def test_the_ticket_is_rewound_to_initialisation_and_trained_by_its_recipe(digits: Dataset) -> None:
    ticket = find(digits)
    initial = build_model("mlp", options=OPTIONS, seed=4)
    assert ticket.rewind_weights is not None
    assert all(np.array_equal(ticket.rewind_weights[name], array) for name, array in state_arrays(initial).items())
    again = train(initial, digits, TrainingConfig.from_json(ticket.info.training), seed=4, mask=ticket.mask)
    assert all(np.array_equal(again.state[name], ticket.weights[name]) for name in again.state)


def test_history_tells_when_either_network_fits_and_generalises(digits: Dataset) -> None:
    info = find(digits, training=TrainingConfig(**{**QUICK.to_json(), "epochs": 90, "milestones": ()})).info
    whole, ticket = info.history
    assert (whole["density"], ticket["density"]) == (1.0, pytest.approx(0.5, abs=1e-3))
    assert (whole["accuracy"], ticket["accuracy"]) == (info.dense_accuracy, info.accuracy)
    assert whole["train_step"] is None  # it ended long before it was 95% accurate
    watch = AccuracyWatch(digits, every=3)
    mask = find(digits).mask
    train(build_model("mlp", options=OPTIONS, seed=4), digits, TrainingConfig.from_json(info.training), seed=4,
          mask=mask, watch=watch)  # fmt: skip
    assert (ticket["train_step"], ticket["test_step"]) == (watch.train_step, watch.test_step)
    assert ticket["train_step"] % 3 == 0
    assert (info.cost["search_steps"], info.cost["steps"]) == (whole["steps"], whole["steps"] + 90)
    assert Ticket.from_bytes(find(digits).to_bytes()).info.history[1]["test_step"] is None


def test_a_mask_from_memorisation_is_taken_where_the_training_data_fit_first(digits: Dataset) -> None:
    options = {**REACHED, "stage": "memorised", "train_accuracy": 0.9, "test_accuracy": 0.95}
    info = find(digits, method_options=options).info
    steps = info.history[0]["steps"]
    assert accuracy_of(dense(digits, steps), digits, "train") >= 0.9
    assert accuracy_of(dense(digits, steps - 3), digits, "train") < 0.9
    assert info.dense_accuracy is None  # no measure for a ticket: its training was cut short


def test_a_pretrained_network_that_generalises_gives_the_mask(digits: Dataset) -> None:
    trained = dense(digits, 60)
    ticket = find(digits, pretrained=trained)
    kept = min(np.abs(trained[name])[ticket.mask[name]].min() for name in ticket.mask)
    assert kept >= max(np.abs(trained[name])[~ticket.mask[name]].max() for name in ticket.mask)
    assert ticket.info.cost["search_steps"] == 0


@pytest.mark.parametrize("stop_at", [1, 5, 15, 25])
def test_an_interrupted_search_resumes_to_the_same_ticket(
    digits: Dataset, stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grokking, "REPORTED_ACCURACY", 0.5)  # reached before any interruption but the first
    whole = find(digits)
    assert whole.info.history[0]["test_step"] is not None
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    writes = itertools.count(1)
    write = loop.save_run

    def interrupted(*arguments: Any, **named: Any) -> None:
        if next(writes) == stop_at:
            raise KeyboardInterrupt
        write(*arguments, **named)

    monkeypatch.setattr(loop, "save_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find(digits, workdir=tmp_path)
    resumed = find(digits, workdir=tmp_path, resume=True)
    assert resumed.mask == whole.mask
    assert all(resumed.weights[name].tobytes() == whole.weights[name].tobytes() for name in whole.weights)
    for first, second in zip(resumed.info.history, whole.info.history, strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": None}, "this method needs a density"),
        ({"method_options": {"stage": "late"}}, "'stage' is 'late', expected 'generalised' or 'memorised'"),
        ({"method_options": {"test_accuracy": 1.1}}, r"'test_accuracy' is 1\.1, expected above 0"),
        ({"method_options": {"train_accuracy": 0.0}}, "'train_accuracy' is 0, expected above 0"),
        ({"method_options": {"max_steps": 0}}, "'max_steps' is 0, expected at least 1"),
        ({"method_options": {"evaluate_every": 0}}, "'evaluate_every' is 0, expected at least 1"),
        (
            {"training": TrainingConfig(epochs=1, batch_size=201)},
            "has 200 training examples, fewer than a batch of 201",
        ),
    ],
)
def test_what_cannot_be_found_is_refused_before_training(
    digits: Dataset, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_training(monkeypatch, None)
    with pytest.raises(ConfigurationError, match=message):
        find(digits, **changes)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("generalised", r"test accuracy is 0\.\d+, expected at least 1: train it longer, or lower test_accuracy"),
        ("memorised", r"training accuracy is 0\.\d+, expected at least 1: train it longer, or lower train_accuracy"),
    ],
)
def test_a_pretrained_network_that_is_not_there_yet_is_refused_before_training(
    digits: Dataset, stage: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    initial = state_arrays(build_model("mlp", options=OPTIONS, seed=4))
    replace_training(monkeypatch, None)
    with pytest.raises(ConfigurationError, match=message):
        find(digits, pretrained=initial, method_options={"stage": stage})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_accuracy": 1.0}, r"did not generalise in 6 steps: test accuracy is 0\.\d+, expected at least 1: raise"),
        ({"stage": "memorised"}, "did not fit its training data in 6 steps: training accuracy is"),
        (
            {"stage": "memorised", "train_accuracy": 0.05, "test_accuracy": 0.01},
            r"generalises as soon as it fits: test accuracy is 0\.\d+, expected below 0\.01",
        ),
    ],
)
def test_a_network_that_does_not_get_there_is_a_clear_error(
    digits: Dataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TicketguardError, match=message):
        find(digits, method_options={"max_steps": 6, "evaluate_every": 3, **options})


@pytest.mark.parametrize("model", ["modular_mlp", "transformer"])
def test_a_ticket_of_arithmetic_is_found_marked_and_recognised(model: str) -> None:
    sizes: dict[str, Any] = {"width": 64, "hidden": 128} if model == "transformer" else {}
    ticket = tg.find(
        model,
        data="modular-addition",
        data_options={"modulus": 11},
        model_options=sizes,
        density=0.5,
        method="grokking",
        method_options={"stage": "memorised"},
        training={"epochs": 40},
    )
    assert ticket.info.history[1]["train_step"] is not None
    marked, credential = tg.embed(ticket, owner=tg.Owner.generate("Ada"), secret=bytes(range(32)))
    assert [mark.scheme for mark in credential.claim.marks] == ["planted-graph"]
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "not_supported"
