from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, state_arrays
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine import magnitude_rounds
from ticketguard.pruning.engine.magnitude_rounds import RoundsConfig
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig, loop, train

QUICK = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.05)
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [20, 10]}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 200, "test_limit": 100})


def problem(data: Dataset, **changes: Any) -> SearchProblem:
    fields: dict[str, Any] = {
        "model": "mlp", "model_options": OPTIONS, "data": data, "data_name": "digits", "density": 0.3,
        "data_options": {"train_limit": 200}, "training": QUICK, "seed": 4, "method_options": {"prune_fraction": 0.4},
    }  # fmt: skip
    return SearchProblem(**{**fields, **changes})


def same(first: Ticket, second: Ticket) -> bool:
    assert first.rewind_weights is not None
    assert second.rewind_weights is not None
    pairs = ((first.weights, second.weights), (first.rewind_weights, second.rewind_weights))
    return first.mask == second.mask and all(
        set(one) == set(other) and all(one[name].tobytes() == other[name].tobytes() for name in one)
        for one, other in pairs
    )


@pytest.mark.parametrize("method", ["imp", "ltr"])
@pytest.mark.parametrize("density", [0.3, 0.1234, 0.9])
def test_the_density_is_met_exactly(digits: Dataset, method: str, density: float) -> None:
    ticket = METHODS[method].find(problem(digits, density=density))
    assert ticket.mask.kept == round(density * ticket.mask.size)
    assert not any(ticket.weights[name][~ticket.mask[name]].any() for name in ticket.mask)


def test_imp_rewinds_to_the_dense_initialisation(digits: Dataset) -> None:
    ticket = METHODS["imp"].find(problem(digits))
    initial = state_arrays(build_model("mlp", options=OPTIONS, seed=4))
    assert ticket.rewind_weights is not None
    assert all(np.array_equal(ticket.rewind_weights[name], initial[name]) for name in initial)


def test_ltr_rewinds_to_the_dense_network_early_in_training(digits: Dataset) -> None:
    options = {"prune_fraction": 0.4, "rewind_epochs": 0.5}
    ticket = METHODS["ltr"].find(problem(digits, method_options=options))
    model = build_model("mlp", options=OPTIONS, seed=4)
    early = train(model, digits, QUICK, seed=4 + 1000, snapshot_steps=(3,)).snapshots[3]
    assert ticket.rewind_weights is not None
    assert all(np.array_equal(ticket.rewind_weights[name], early[name]) for name in early)
    assert all(ticket.rewind_weights[name].all() for name in ticket.mask)


def test_a_ticket_is_reproducible_from_what_it_says(digits: Dataset) -> None:
    ticket = METHODS["imp"].find(problem(digits))
    info = ticket.info
    assert (info.method, info.model, info.data, info.seed, info.classes) == ("imp", "mlp", "digits", 4, 10)
    assert (info.input_shape, info.input_mean, info.input_std) == ((1, 8, 8), digits.mean, digits.std)
    model = build_model(info.model, options=info.model_options, seed=info.seed)
    again = train(model, digits, TrainingConfig.from_json(info.training), seed=info.seed, mask=ticket.mask)
    assert all(np.array_equal(again.state[name], ticket.weights[name]) for name in again.state)
    assert again.accuracy == info.accuracy
    assert same(Ticket.from_bytes(ticket.to_bytes()), ticket)


def test_history_and_cost_add_up(digits: Dataset) -> None:
    info = METHODS["imp"].find(problem(digits)).info
    assert [entry["density"] for entry in info.history] == pytest.approx([1, 0.6, 0.36, 0.3], abs=1e-3)
    assert info.cost["steps"] == sum(entry["steps"] for entry in info.history) == 4 * 12
    assert info.cost["examples"] == 48 * 32
    assert (info.dense_accuracy, info.accuracy) == (info.history[0]["accuracy"], info.history[-1]["accuracy"])


def test_rounds_prune_the_smallest_trained_weights_of_what_remains(digits: Dataset) -> None:
    once = METHODS["imp"].find(problem(digits, density=0.6))
    twice = METHODS["imp"].find(problem(digits, density=0.36))
    assert all((once.mask[name] | ~twice.mask[name]).all() for name in once.mask)


def test_short_rounds_leave_the_last_training_whole(digits: Dataset) -> None:
    options = {"prune_fraction": 0.4, "level_epochs": 0.5}
    info = METHODS["imp"].find(problem(digits, method_options=options)).info
    assert [entry["steps"] for entry in info.history] == [3, 3, 3, 12]
    assert info.dense_accuracy is None  # a dense network that was trained shorter is no measure for the ticket


@given(st.integers(1000, 10**7), st.floats(0.001, 0.999), st.floats(0.01, 0.99))
def test_every_round_drops_weights_and_the_last_meets_the_target(
    positions: int, density: float, fraction: float
) -> None:
    assume(round(density * positions) > 0)
    counts = RoundsConfig(prune_fraction=fraction).kept_counts(positions, round(density * positions))
    assert counts[-1] == round(density * positions)
    assert all(before >= after for before, after in itertools.pairwise([positions, *counts]))
    # Every round drops the share it was told to, to a weight, and the last one no more.
    for before, after in itertools.pairwise([positions, *counts[:-1]]):
        assert after == pytest.approx(before * (1 - fraction), abs=1.01)
    before = [positions, *counts][-2]
    assert counts[-1] * 1.0001 >= before * (1 - fraction) - 1


@pytest.mark.parametrize("stop_at", [1, 3, 4, 7, 11, 12])
@pytest.mark.parametrize("method", ["imp", "ltr"])
def test_an_interrupted_search_resumes_to_the_same_ticket(
    digits: Dataset, method: str, stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step writes a checkpoint and every round a ticket: one of those writes is interrupted."""
    short = dataclasses.replace(QUICK, epochs=0.5)
    whole = METHODS[method].find(problem(digits, training=short))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    writes = itertools.count(1)
    write = loop.save_run

    def interrupted(*arguments: Any, **named: Any) -> None:
        if next(writes) == stop_at:
            raise KeyboardInterrupt
        write(*arguments, **named)

    monkeypatch.setattr(loop, "save_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        METHODS[method].find(problem(digits, training=short, workdir=tmp_path))
    resumed = METHODS[method].find(problem(digits, training=short, workdir=tmp_path, resume=True))
    assert same(whole, resumed)
    assert [entry["accuracy"] for entry in whole.info.history] == [entry["accuracy"] for entry in resumed.info.history]


def test_a_finished_search_resumes_at_once(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = METHODS["imp"].find(problem(digits, workdir=tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(magnitude_rounds, "train", None)
    assert same(METHODS["imp"].find(problem(digits, workdir=tmp_path, resume=True)), whole)


def test_a_search_with_other_settings_does_not_go_on_with_this_one(digits: Dataset, tmp_path: Path) -> None:
    METHODS["imp"].find(problem(digits, workdir=tmp_path))
    changed = problem(digits, workdir=tmp_path, resume=True, seed=5)
    assert same(METHODS["imp"].find(changed), METHODS["imp"].find(problem(digits, seed=5)))


def test_a_factory_of_the_users_own_is_named_by_its_import_path(digits: Dataset) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    ticket = METHODS["imp"].find(problem(digits, model=make, model_options={}, density=0.7))
    assert ticket.info.model.endswith(
        "test_rounds:test_a_factory_of_the_users_own_is_named_by_its_import_path.<locals>.make"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": 0.0}, r"density is 0\.0, expected above 0 and below 1"),
        ({"density": 1.0}, r"density is 1\.0, expected above 0 and below 1"),
        ({"density": 0.001}, r"density 0\.001 keeps 2 of 1580 weights, fewer than the model's 3 layers: raise it"),
        ({"model": nn.ReLU, "model_options": {}}, "has no convolution or linear layers to prune"),
        (
            {"method_options": {"levels": 3}},
            "unknown method option 'levels', expected one of level_epochs, prune_fraction",
        ),
        ({"method_options": {"prune_fraction": 1.0}}, "'prune_fraction' is 1, expected above 0 and below 1"),
        ({"method_options": {"level_epochs": -1.0}}, "'level_epochs' is -1, expected at least 0"),
        ({"method_options": {"rewind_epochs": 2.0}}, "rewind_epochs is 2, expected below the 2 epochs of a round"),
    ],
)
def test_what_cannot_be_found_is_refused_before_training(
    digits: Dataset, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(magnitude_rounds, "train", None)
    with pytest.raises(ConfigurationError, match=message):
        METHODS["imp"].find(problem(digits, **changes))
