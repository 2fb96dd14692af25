from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from ticketguard.data import load_data
from ticketguard.errors import ConfigurationError, FileError, TensorError, TicketguardWarning
from ticketguard.evaluation import runs
from ticketguard.evaluation.arms import has_start
from ticketguard.models import build_model, state_arrays
from ticketguard.pruning.engine.selection import full_mask
from ticketguard.pruning.methods.controls import make_control
from ticketguard.training import NoProgress, train

DATA_OPTIONS = {"train_limit": 300, "test_limit": 200}
QUICK = tg.TrainingConfig(epochs=1, batch_size=32, learning_rate=0.05)
ALL = ("dense", "ticket", "reinitialised", "shuffled", "random_like", "inverted", "scratch_e", "scratch_b", "one_shot")


@pytest.fixture(scope="module")
def ticket() -> tg.Ticket:
    options = {"widths": [20, 10]}
    return tg.find(
        "mlp", data="digits", density=0.3, method="magnitude", training=QUICK, seed=4, model_options=options,
        data_options=DATA_OPTIONS,
    )  # fmt: skip


def changed(ticket: tg.Ticket, **info: Any) -> tg.Ticket:
    return dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, **info))


def cut(ticket: tg.Ticket) -> tg.Ticket:
    """Return a ticket whose first layer is smaller than the model's own."""
    options = {**ticket.info.model_options, "widths": [5, 10]}
    state = state_arrays(build_model("mlp", options=options, seed=0))
    mask = full_mask({name: state[name].shape for name in ticket.mask})
    return changed(dataclasses.replace(ticket, mask=mask, weights=state, rewind_weights=state), structure="channel")


def test_the_arms_are_trained_alike_and_told_as_they_were(ticket: tg.Ticket) -> None:
    check = tg.check_ticket(ticket, seeds=2, arms=ALL)
    assert [arm.name for arm in check.arms] == list(ALL)
    assert check.training == ticket.info.training
    by_name = {arm.name: arm for arm in check.arms}
    assert {name: arm.epochs for name, arm in by_name.items()} == dict.fromkeys(ALL, 1.0) | {"scratch_b": 2.0}
    density = {name: round(arm.density, 2) for name, arm in by_name.items()}
    assert density == dict.fromkeys(ALL, 0.3) | {"dense": 1.0, "inverted": density["inverted"]}
    assert {arm.start for arm in check.arms} == {
        "the ticket's start weights", "a fresh initialisation", "the trained dense network",
    }  # fmt: skip
    data = load_data("digits", options=DATA_OPTIONS)
    for name in ("dense", "ticket", "shuffled", "reinitialised"):
        trial = None if name in ("dense", "ticket") else make_control(name, ticket, seed=1)
        network = build_model("mlp", options=ticket.info.model_options, seed=0)
        start = ticket.start_weights if trial is None else trial.start
        mask = {"dense": None, "ticket": ticket.mask}.get(name, trial and trial.mask)
        runs.load_arrays(network, start)
        assert train(network, data, QUICK, seed=1, mask=mask).accuracy == by_name[name].accuracies[1]


def test_a_ticket_of_imp_wins_and_its_mask_shuffled_does_not(tmp_path: Path) -> None:
    recipe = tg.TrainingConfig(
        epochs=8, batch_size=64, learning_rate=5e-3, optimizer="adam", schedule="constant", weight_decay=0.0
    )
    found = tg.find("mlp", data="digits", density=0.06, training=recipe, method_options={"prune_fraction": 0.75})
    check = tg.check_ticket(found, seeds=2, arms=["dense", "ticket", "reinitialised", "shuffled"])
    assert check.verdict == "winning", check.to_json()
    found.save(tmp_path / "imp.ticket")
    other = tg.find("mlp", data="digits", method="shuffled", training=recipe, seed=5,
                    method_options={"ticket": str(tmp_path / "imp.ticket")})  # fmt: skip
    check = tg.check_ticket(other, seeds=2, arms=["dense", "ticket", "shuffled"])
    assert not any(comparison.holds for comparison in check.comparisons), check.to_json()


def test_a_ready_ticket_is_shown_as_found_and_beside_one_shot_pruning(ticket: tg.Ticket) -> None:
    check = tg.check_ticket(changed(ticket, ready=True), seeds=2)
    assert [arm.name for arm in check.arms][-2:] == ["as_found", "one_shot"]
    assert check.arm("as_found").accuracies == (ticket.info.accuracy,)
    assert check.arm("as_found").epochs == 0


def test_a_network_that_was_cut_is_beside_the_whole_one_and_a_fresh_one_of_its_shape(ticket: tg.Ticket) -> None:
    check = tg.check_ticket(cut(ticket), seeds=2)
    assert [arm.name for arm in check.arms] == ["dense", "ticket", "scratch_e"]
    assert [arm.start for arm in check.arms] == [
        "a fresh initialisation", "the ticket's start weights", "a fresh initialisation",
    ]  # fmt: skip
    assert check.notes == ("its mask keeps whole layers: there is nothing to shuffle or to draw at random",)


def test_a_ticket_without_blocks_is_beside_the_whole_network(ticket: tg.Ticket) -> None:
    options = {"widths": [20, 20, 10]}
    check = tg.check_ticket(
        changed(ticket, structure="block"), seeds=2, dense_options=options, arms=["dense", "ticket"]
    )
    data = load_data("digits", options=DATA_OPTIONS)
    network = build_model("mlp", options={**ticket.info.model_options, **options}, seed=0)
    assert train(network, data, QUICK, seed=0).accuracy == check.arm("dense").accuracies[0]


def test_a_ticket_whose_pruned_weights_are_lost_is_beside_a_fresh_dense_network(ticket: tg.Ticket) -> None:
    bare = dataclasses.replace(ticket, rewind_weights=None)
    with pytest.warns(TicketguardWarning, match="no rewind weights, so that it cannot be told whether it is a winning"):
        check = tg.check_ticket(bare, seeds=2, arms=["dense", "ticket"])
    assert check.arm("dense").start == "a fresh initialisation"
    assert check.arm("ticket").start == "the ticket's trained weights"
    assert check.verdict == "inconclusive"
    begun, helps = check.notes
    assert begun == "the ticket's runs began from trained weights, which is a head start on the others"
    assert helps.startswith("what would help, and only its owner may have: the unmarked ticket, or the weights")


@pytest.mark.parametrize(
    ("rewind", "ready", "structure", "expected"),
    [
        (True, False, "weight", True),
        (False, False, "weight", False),
        (False, True, "weight", False),
        (False, False, "channel", False),
        (False, True, "channel", True),
    ],
)
def test_a_ticket_can_be_checked_that_holds_the_weights_it_is_trained_from(
    ticket: tg.Ticket, rewind: bool, ready: bool, structure: str, expected: bool
) -> None:
    other = changed(ticket, ready=ready, structure=structure)
    assert has_start(other if rewind else dataclasses.replace(other, rewind_weights=None)) is expected


# Dense and ticket train once a seed, one-shot twice: the dense network first. So many are finished when one is stopped.
@pytest.mark.parametrize(("stop_at", "finished", "left"), [(2, 1, 7), (5, 4, 4), (6, 4, 4), (8, 5, 2)])
def test_an_interrupted_check_goes_on_to_the_same_numbers(
    ticket: tg.Ticket, stop_at: int, finished: int, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = ["dense", "ticket", "one_shot"]
    whole = tg.check_ticket(ticket, seeds=2, arms=arms)
    trained: list[str] = []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        trained.append(named["description"])
        if len(trained) == stop_at:
            raise KeyboardInterrupt
        return train(*arguments, **named)

    monkeypatch.setattr(runs, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tg.check_ticket(ticket, seeds=2, arms=arms, workdir=tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == finished
    trained = [""] * stop_at
    assert tg.check_ticket(ticket, seeds=2, arms=arms, workdir=tmp_path, resume=True) == whole
    assert len(trained) - stop_at == left
    assert not list(tmp_path.glob("*.checkpoint"))


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{}", '{"accuracy": 0.5}', "[" * 9999, " " * 5000,
     '{"accuracy": "\\u001b[2KSUPPORTED", "density": 1, "epochs": 1, "start": ""}',
     '{"accuracy": 7, "density": 1, "epochs": 1, "start": ""}',
     '{"accuracy": 0.5, "density": 1, "epochs": 1, "start": 3}'],
)  # fmt: skip
def test_a_damaged_result_of_a_run_is_told(ticket: tg.Ticket, content: str, tmp_path: Path) -> None:
    kept = runs.Runs(
        ticket, load_data("digits", options=DATA_OPTIONS), QUICK, model=None, dense_options=None, workdir=tmp_path,
        resume=True, progress=NoProgress(),
    )._kept("dense-0", "json")  # fmt: skip
    assert kept is not None
    kept.write_text(content)
    with pytest.raises(FileError, match=r"(is not the result of a run|has more than 4096 bytes)"):
        tg.check_ticket(ticket, seeds=2, arms=["dense", "ticket"], workdir=tmp_path, resume=True)


def test_finished_runs_of_another_recipe_are_not_taken(ticket: tg.Ticket, tmp_path: Path) -> None:
    arms = ["dense", "ticket"]
    tg.check_ticket(ticket, seeds=2, arms=arms, workdir=tmp_path)
    longer = tg.check_ticket(ticket, seeds=2, arms=arms, workdir=tmp_path, resume=True, training={"epochs": 2.0})
    assert longer == tg.check_ticket(ticket, seeds=2, arms=arms, training={"epochs": 2.0})


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"model": ""}, {}, "the ticket does not name its model and data: give both as --model and --data"),
        ({"data": ""}, {}, "the ticket does not name its model and data: give both as --model and --data"),
        ({}, {"seeds": 1}, r"seeds are \[0\], expected two or more, all different"),
        ({}, {"seeds": (3, 3)}, r"seeds are \[3, 3\], expected two or more, all different"),
        ({}, {"arms": ["dense", "ticket", "luck"]}, "unknown arm 'luck', expected one or more of dense, ticket"),
        ({}, {"arms": ["ticket"]}, "arm 'dense' is missing"),
        ({}, {"arms": ["dense", "shuffled"]}, "arm 'ticket' is missing"),
        ({"structure": "block"}, {}, "leave blocks out, expected those of the whole network too"),
        ({"structure": "channel"}, {"arms": ["dense", "ticket", "one_shot"]}, "arm 'one_shot' prunes single weights"),
        ({}, {"training": {"epochs": -1.0}}, "epochs is -1.0, expected above 0"),
    ],
)
def test_what_cannot_be_checked_is_refused_before_training(
    ticket: tg.Ticket, changes: dict[str, Any], options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "train", None)
    with pytest.raises(ConfigurationError, match=message):
        tg.check_ticket(changed(ticket, **changes), **options)


def test_a_shuffle_of_whole_layers_is_refused(ticket: tg.Ticket) -> None:
    with pytest.raises(ConfigurationError, match="arm 'shuffled' is the ticket's own mask, which keeps whole layers"):
        tg.check_ticket(cut(ticket), arms=["dense", "ticket", "shuffled"])


def test_a_ticket_of_another_model_is_refused(ticket: tg.Ticket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "train", None)
    other = {**ticket.info.model_options, "widths": [30, 10]}
    with pytest.raises(TensorError, match="has shape .* expected"):
        tg.check_ticket(changed(ticket, model_options=other))


def test_a_check_can_be_told_model_data_and_seeds(ticket: tg.Ticket) -> None:
    nameless = changed(ticket, model="", data="", data_options={}, training={})
    check = tg.check_ticket(
        nameless, model="mlp", data="digits", data_options=DATA_OPTIONS, training=QUICK, seeds=(5, 7),
        arms=["dense", "ticket"],
    )  # fmt: skip
    assert check.seeds == (5, 7)
    same = tg.check_ticket(ticket, seeds=(5, 7), arms=["dense", "ticket"])
    assert np.array_equal(check.arm("ticket").accuracies, same.arm("ticket").accuracies)
