from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pruning.conftest import replace_training
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError, FileError
from ticketguard.models import build_model, model_of, state_arrays
from ticketguard.pruning import CONTROLS, METHODS, SearchProblem
from ticketguard.pruning.engine.selection import full_mask
from ticketguard.pruning.methods.controls import (
    FRESH_START,
    OWN_START,
    dense_network,
    dense_start,
    fresh_weights,
    inverted,
    make_control,
    random_like,
    shuffled,
)
from ticketguard.ticket import Mask, Ticket
from ticketguard.training import TrainingConfig

QUICK = TrainingConfig(epochs=1, batch_size=32, learning_rate=0.05)
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [20, 10]}
ABOUT_THE_MASK = ["inverted", "random_like", "shuffled"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 200, "test_limit": 100})


def problem(data: Dataset, **changes: Any) -> SearchProblem:
    fields: dict[str, Any] = {
        "model": "mlp", "model_options": OPTIONS, "data": data, "data_name": "digits", "density": None,
        "data_options": {}, "training": QUICK, "seed": 4,
    }  # fmt: skip
    return SearchProblem(**{**fields, **changes})


@pytest.fixture(scope="module")
def ticket(digits: Dataset) -> Ticket:
    return METHODS["magnitude"].find(problem(digits, density=0.3))


def cut(ticket: Ticket) -> Ticket:
    """Return a ticket whose first layer is smaller than the model's own, by its structure."""
    info = dataclasses.replace(ticket.info, structure="filter")
    options = {**OPTIONS, "widths": [5, 10]}
    state = state_arrays(build_model("mlp", options=options, seed=0))
    mask = full_mask({name: state[name].shape for name in ticket.mask})
    return Ticket(mask=mask, weights=state, rewind_weights=state, info=info)


def some_mask(seed: int, *, largest: int = 6) -> Mask:
    generator = np.random.default_rng(seed)
    shapes = [tuple(generator.integers(1, largest, size=generator.integers(1, 4))) for _ in range(3)]
    return Mask(layers={f"{place}": generator.random(shape) < generator.random() for place, shape in enumerate(shapes)})


@given(st.integers(0, 10**6))
def test_a_shuffle_changes_every_layer_that_it_can_and_keeps_its_counts(seed: int) -> None:
    mask = some_mask(seed)
    if all(layer.all() or not layer.any() for layer in mask.layers.values()):
        return
    other = shuffled(mask, np.random.default_rng(seed))
    for name in mask:
        assert other[name].sum() == mask[name].sum()
        assert other[name].shape == mask[name].shape
        if mask[name].any() and not mask[name].all():
            assert not np.array_equal(other[name], mask[name])


def test_a_shuffle_leaves_no_trace_of_where_weights_were() -> None:
    """A public shuffle that only permutes rows would keep what each row counts."""
    mask = Mask(layers={"a": np.arange(400).reshape(20, 20) < 100})
    hits = np.zeros((20, 20))
    for seed in range(400):
        hits += shuffled(mask, np.random.default_rng(seed))["a"]
    # Each place is kept in a quarter of the shuffles: binomial, 400 places, five standard deviations.
    assert np.abs(hits / 400 - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / 400)


@given(st.integers(0, 10**6))
def test_an_inverse_keeps_only_what_the_ticket_prunes(seed: int) -> None:
    mask = some_mask(seed)
    if all(layer.all() or not layer.any() for layer in mask.layers.values()):
        return
    other = inverted(mask, np.random.default_rng(seed))
    for name in mask:
        if mask[name].all():
            assert other[name].all()
            continue
        assert not (other[name] & mask[name]).any()
        assert other[name].sum() == min(mask[name].sum(), (~mask[name]).sum())


def test_a_random_mask_keeps_as_many_weights_and_spreads_them_evenly() -> None:
    mask = Mask(layers={"a": np.ones((20, 20), bool), "b": np.arange(400).reshape(20, 20) == 0})
    other = random_like(mask, np.random.default_rng(0))
    assert other.kept == mask.kept == 401
    assert abs(other["a"].mean() - other["b"].mean()) < 0.15


@pytest.mark.parametrize("change", [inverted, shuffled])
def test_a_mask_of_whole_layers_cannot_be_another_one(change: Any) -> None:
    with pytest.raises(ConfigurationError, match="changes nothing: the ticket keeps whole layers"):
        change(full_mask({"a": (3, 3)}), np.random.default_rng(0))


def test_controls_of_the_mask_start_where_the_ticket_does(ticket: Ticket) -> None:
    assert ticket.rewind_weights is not None
    for name in ABOUT_THE_MASK:
        trial = make_control(name, ticket, seed=1)
        assert trial.origin == OWN_START
        assert all(np.array_equal(trial.start[key], ticket.rewind_weights[key]) for key in ticket.rewind_weights)
        assert trial.mask != ticket.mask
        assert make_control(name, ticket, seed=1).mask == trial.mask != make_control(name, ticket, seed=2).mask


@pytest.mark.parametrize("seed", [4, 0])
def test_fresh_weights_are_never_the_tickets_own(ticket: Ticket, seed: int) -> None:
    """The ticket's seed is 4: an initialisation by the same seed would be the one that it was found from."""
    for name in ("reinitialised", "scratch_b", "scratch_e"):
        trial = make_control(name, ticket, seed=seed)
        assert (trial.mask, trial.origin) == (ticket.mask, FRESH_START)
        assert not any(np.array_equal(trial.start[key], ticket.start_weights[key]) for key in ticket.mask)
    taken = dataclasses.replace(ticket.info, seed=1_000_000)
    own = state_arrays(build_model("mlp", options=OPTIONS, seed=1_000_000))
    fresh = fresh_weights(dataclasses.replace(ticket, info=taken), seed=0)
    assert not any(np.array_equal(fresh[key], own[key]) for key in ticket.mask)


def test_where_the_pruned_weights_are_lost_controls_start_afresh(ticket: Ticket) -> None:
    assert dense_start(ticket) is ticket.rewind_weights
    for lost in (None, ticket.weights):
        bare = dataclasses.replace(ticket, rewind_weights=lost)
        assert dense_start(bare) is None
        trial = make_control("shuffled", bare, seed=1)
        assert trial.origin == FRESH_START
        assert all(trial.start[name].all() for name in ticket.mask)


def test_fresh_weights_of_a_network_that_was_cut_have_the_spread_of_its_own_size(ticket: Ticket) -> None:
    small = cut(ticket)
    fresh = fresh_weights(small, seed=0)
    second = "3.weight"
    assert fresh[second].shape == small.mask[second].shape == (10, 5)
    # torch draws linear weights uniformly within 1 / sqrt(inputs); 20 inputs became 5.
    assert 1 / math.sqrt(20) < np.abs(fresh[second]).max() <= 1 / math.sqrt(5)


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_is_a_method(digits: Dataset, ticket: Ticket, name: str, tmp_path: Path) -> None:
    ticket.save(tmp_path / "own.ticket")
    found = METHODS[name].find(problem(digits, method_options={"ticket": str(tmp_path / "own.ticket")}))
    trial = make_control(name, ticket, seed=4)
    assert found.mask == trial.mask
    assert found.rewind_weights is not None
    assert all(np.array_equal(found.rewind_weights[key], trial.start[key]) for key in trial.start)
    assert not any(found.weights[key][~found.mask[key]].any() for key in found.mask)
    assert found.info.method == name
    # 30% of the weights leave less than half of the FLOPs.
    assert found.info.training["epochs"] == (2.0 if name == "scratch_b" else 1.0)


def test_scratch_b_trains_for_the_flops_of_the_dense_network(digits: Dataset, tmp_path: Path) -> None:
    METHODS["magnitude"].find(problem(digits, density=0.8)).save(tmp_path / "own.ticket")
    found = METHODS["scratch_b"].find(problem(digits, method_options={"ticket": str(tmp_path / "own.ticket")}))
    assert found.info.training["epochs"] == pytest.approx(1 / 0.8)


def test_a_control_of_a_cut_network_is_a_fresh_one_of_its_size(digits: Dataset, ticket: Ticket, tmp_path: Path) -> None:
    cut(ticket).save(tmp_path / "cut.ticket")
    found = METHODS["scratch_b"].find(problem(digits, method_options={"ticket": str(tmp_path / "cut.ticket")}))
    assert found.info.structure == "filter"
    assert found.mask.density == 1.0
    assert found.weights["1.weight"].shape == (5, 64)
    assert found.info.training["epochs"] == 2.0
    assert model_of(found).state_dict()["1.weight"].shape == (5, 64)


def test_a_control_takes_the_tickets_own_model_options(digits: Dataset, ticket: Ticket, tmp_path: Path) -> None:
    ticket.save(tmp_path / "own.ticket")
    asked = {name: value for name, value in OPTIONS.items() if name != "widths"}
    search = problem(digits, model_options=asked, method_options={"ticket": str(tmp_path / "own.ticket")})
    assert METHODS["shuffled"].find(search).info.model_options["widths"] == [20, 10]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"method 'shuffled' is a control of a ticket: name its file with --method-option ticket=FILE"),
        ({"density": 0.5}, r"density is 0\.5, but a control has that of ticket '.*own.ticket', 0\.3\d*: leave"),
        ({"model_options": {**OPTIONS, "widths": [7]}}, "own.ticket' does not fit model 'mlp' .*name the ticket's own"),
    ],
)
def test_a_control_that_cannot_be_made_is_refused(
    digits: Dataset, ticket: Ticket, changes: dict[str, Any], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ticket.save(tmp_path / "own.ticket")
    replace_training(monkeypatch, None)
    options = {"ticket": str(tmp_path / "own.ticket")} if changes else {}
    with pytest.raises(ConfigurationError, match=message):
        METHODS["shuffled"].find(problem(digits, method_options=options, **changes))


def test_a_ticket_that_is_not_there_is_told(digits: Dataset) -> None:
    with pytest.raises(FileError, match="'none.ticket': cannot be read"):
        METHODS["shuffled"].find(problem(digits, method_options={"ticket": "none.ticket"}))


def test_the_whole_network_of_a_ticket_without_blocks_must_be_named(ticket: Ticket) -> None:
    blocks = dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, structure="block"))
    with pytest.raises(ConfigurationError, match="leave blocks out, expected those of the whole network too"):
        dense_network(blocks, seed=0)
    whole = dense_network(blocks, seed=0, changes={"widths": [20, 20, 10]})
    assert len(list(whole.parameters())) == 8
