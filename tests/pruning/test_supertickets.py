from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ticketguard as tg
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError, TicketguardError
from ticketguard.models import build_model, load_arrays, model_of, prunable_layers, state_arrays
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine import stepped
from ticketguard.pruning.engine.selection import full_mask, global_top_k
from ticketguard.pruning.methods import supertickets
from ticketguard.pruning.methods.supernet_channels import living_channels, searched_channels, without_dead
from ticketguard.pruning.methods.supernet_search import Moment, SupernetSearch
from ticketguard.pruning.methods.supertickets import SuperTicketsConfig, schedule
from ticketguard.ticket import Array, Ticket
from ticketguard.training import TrainingConfig, evaluate

SHAPE = (1, 8, 8)
OPTIONS: dict[str, Any] = {
    "classes": 10, "input_shape": list(SHAPE), "widths": [4, 6], "depths": [1, 1], "kernels": [3, 5],
}  # fmt: skip
# Without momentum a pulled scale comes to rest at zero within the few steps that there are.
RECIPE = TrainingConfig(epochs=5, batch_size=32, learning_rate=0.3, momentum=0.0, schedule="cosine", weight_decay=1e-3)
FAST: dict[str, Any] = {
    "penalty": 0.15, "threshold": 0.1, "warmup_epochs": 1, "shrink_every": 1, "prune_every": 1, "prune_step": 0.25,
}  # fmt: skip
SCALE = "cells.{}.branches.kernel{}.depthwise_bn.weight"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 200, "test_limit": 100})


def problem(data: Dataset, **changes: Any) -> SearchProblem:
    fields: dict[str, Any] = {
        "model": "supernet", "model_options": OPTIONS, "data": data, "data_name": "digits", "density": 0.4,
        "data_options": {"train_limit": 200}, "training": RECIPE, "seed": 4, "method_options": FAST,
    }  # fmt: skip
    return SearchProblem(**{**fields, **changes})


def find(data: Dataset, **changes: Any) -> Ticket:
    return METHODS["supertickets"].find(problem(data, **changes))


@pytest.fixture(scope="module")
def ticket(digits: Dataset) -> Ticket:
    return find(digits)


def same(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    return set(first) == set(second) and all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_the_ticket_is_a_smaller_network_of_the_density_asked_for(digits: Dataset, ticket: Ticket) -> None:
    supernet = state_arrays(build_model("supernet", options=OPTIONS, seed=4))
    assert ticket.mask.kept == round(0.4 * ticket.mask.size)
    assert ticket.mask.size < sum(
        supernet[name].size for name in prunable_layers(build_model("supernet", options=OPTIONS, seed=4))
    )
    assert not any(ticket.weights[name][~ticket.mask[name]].any() for name in ticket.mask)
    assert (ticket.info.structure, ticket.info.ready, ticket.rewind_weights) == ("channel", True, None)


def test_its_weights_are_good_as_they_are(digits: Dataset, ticket: Ticket) -> None:
    again = Ticket.from_bytes(ticket.to_bytes())
    model = model_of(again)
    load_arrays(model, again.weights)
    assert evaluate(model, digits) == ticket.info.accuracy


def test_it_learns_while_it_shrinks() -> None:
    digits = load_data("digits", options={"train_limit": 400, "test_limit": 200})
    recipe = dataclasses.replace(RECIPE, epochs=12, momentum=0.9, learning_rate=0.1)
    ticket = find(digits, training=recipe, method_options={**FAST, "penalty": 0.02, "threshold": 0.05})
    assert ticket.info.history[-1]["channels"] < 32
    assert ticket.info.accuracy is not None
    assert ticket.info.accuracy > 0.2  # chance is 0.1, and 200 weights are not many


def test_the_history_says_how_channels_and_weights_went(ticket: Ticket) -> None:
    history = ticket.info.history
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]
    assert [entry["density"] for entry in history] == pytest.approx([0.75, 0.5, 0.4, 0.4, 0.4], abs=2e-3)
    channels = [entry["channels"] for entry in history]
    assert channels == sorted(channels, reverse=True)
    assert channels[-1] < 32
    assert history[-1]["of_supernet"] < 0.4 * history[-1]["macs"] / history[0]["macs"] + 0.4
    assert history[-1]["kept_macs"] < history[-1]["macs"]
    assert history[-1]["accuracy"] == ticket.info.accuracy
    assert ticket.info.cost["steps"] == ticket.info.cost["search_steps"] == 30


def search_of(data: Dataset, moments: list[Moment], **changes: Any) -> SupernetSearch:
    given = problem(data, **changes)
    return SupernetSearch(given, given.build(), moments, threshold=1e-3)


def moment(**changes: Any) -> Moment:
    plain: dict[str, Any] = {
        "rate": 0.1, "penalty": 0.0, "sparsity": 0.0, "shrinks": False, "prunes": False, "starts": False,
    }  # fmt: skip
    return Moment(**{**plain, **changes})


def test_pruned_weights_take_no_part_but_learn_and_can_come_back(digits: Dataset) -> None:
    moments = [moment(prunes=number % 5 == 0, sparsity=0.5, rate=0.3) for number in range(11)]
    search = search_of(digits, moments, training=dataclasses.replace(RECIPE, weight_decay=0.0))
    seen: list[Any] = []
    classifier = search.network.classifier
    classifier.register_forward_pre_hook(lambda module, _: seen.append(module.weight.detach().clone()))
    before = classifier.weight.detach().clone()
    search.step(0)
    first = search.mask
    outside = torch.from_numpy(~first["classifier.weight"])
    assert not seen[0][outside].any()
    assert (classifier.weight != before)[outside].all()
    for number in range(1, 11):
        search.step(number)
    last = search.mask
    assert last.kept == first.kept
    came_back = sum(int((last[name] & ~first[name]).sum()) for name in last)
    assert came_back > 0.02 * last.kept


def test_scales_are_pulled_down_by_what_their_channels_cost(digits: Dataset) -> None:
    pulled, free = (search_of(digits, [moment(penalty=penalty)]) for penalty in (0.01, 0.0))
    for search in (pulled, free):
        search.step(0)
    costs = {one.scale: one.cost for one in searched_channels(problem(digits).build(), SHAPE)}
    assert len(costs) == 4
    for scale, cost in costs.items():
        states = [search.network.state_dict()[scale] for search in (pulled, free)]
        torch.testing.assert_close(states[1] - states[0], torch.full_like(states[0], 0.1 * 0.01 * cost))
    # First cell: 8x8 places, 4 inputs, 4 outputs, kernels of 9 and 25. The costs are over the mean channel's.
    assert costs[SCALE.format(0, 5)] / costs[SCALE.format(0, 3)] == pytest.approx((8 + 25) / (8 + 9))
    sizes = {one: len(problem(digits).build().state_dict()[one]) for one in costs}
    assert sum(costs[one] * sizes[one] for one in costs) == pytest.approx(sum(sizes.values()))


def silenced(model: nn.Module, dead: Mapping[str, list[int]]) -> None:
    state = model.state_dict()
    for scale, channels in dead.items():
        state[scale][channels] = 0
        state[scale.replace("weight", "bias")][channels] = 0


def test_a_network_without_its_dead_channels_computes_the_same() -> None:
    dead = {SCALE.format(0, 3): [0, 5], SCALE.format(1, 5): list(range(8)), SCALE.format(1, 3): [0, 1, 2, 3, 4, 7]}
    model = build_model("supernet", options=OPTIONS, seed=0).eval()
    silenced(model, dead)
    inputs = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    before, state = model(inputs).detach(), state_arrays(model)
    searched = searched_channels(model, SHAPE)
    living = living_channels(state, searched, threshold=0.0)
    assert {name: np.flatnonzero(~living[name]).tolist() for name in dead} == dead
    steps: dict[str, Array] = {name: np.array(3.0) for name in state}
    cut = without_dead(model, {"state": state, "steps": steps}, searched, living, input_shape=SHAPE)
    assert not any("cells.1.branches.kernel5" in name for part in cut.values() for name in part)
    assert len(cut["state"][SCALE.format(1, 3)]) == 2
    small = Ticket(
        mask=full_mask({name: array.shape for name, array in cut["state"].items() if array.ndim > 1}),
        weights=cut["state"], rewind_weights=None,
        info=tg.TicketInfo(method="supertickets", model="supernet", model_options=OPTIONS, structure="channel"),
    )  # fmt: skip
    smaller = model_of(small).eval()
    load_arrays(smaller, small.weights)
    torch.testing.assert_close(smaller(inputs).detach(), before)


def test_a_cell_keeps_its_strongest_channel_when_all_would_die() -> None:
    model = build_model("supernet", options=OPTIONS, seed=0)
    state = state_arrays(model)
    for kernel in (3, 5):
        state[SCALE.format(1, kernel)][:] = 0.01
    state[SCALE.format(1, 5)][3] = -0.02
    living = living_channels(state, searched_channels(model, SHAPE), threshold=0.1)
    assert not living[SCALE.format(1, 3)].any()
    assert np.flatnonzero(living[SCALE.format(1, 5)]).tolist() == [3]
    assert living[SCALE.format(0, 3)].all()


def test_when_all_channels_would_die_a_network_that_works_is_left(digits: Dataset) -> None:
    ticket = find(
        digits,
        method_options={**FAST, "threshold": 5.0},
    )
    assert ticket.info.history[-1]["channels"] == 2  # one a cell, of 32
    model = model_of(ticket)
    load_arrays(model, ticket.weights)
    assert len(model.cells[0].branches) == 1
    assert evaluate(model, digits) == ticket.info.accuracy
    assert ticket.mask.kept >= len(list(ticket.mask))


def one_branch() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip


def test_any_depthwise_network_can_be_searched_and_keeps_a_channel(digits: Dataset) -> None:
    options = {**FAST, "threshold": 5.0}
    ticket = find(digits, model=one_branch, model_options={}, method_options=options)
    assert {name: ticket.weights[name].shape for name in ticket.mask} == {
        "0.weight": (1, 1, 1, 1), "1.weight": (1, 1, 3, 3), "6.weight": (10, 1),
    }  # fmt: skip


def due(moments: list[Moment], kind: str) -> list[int]:
    return [step for step, moment in enumerate(moments) if getattr(moment, kind)]


def test_the_papers_run_cuts_every_10_and_prunes_every_25_epochs() -> None:
    recipe = TrainingConfig(epochs=350)
    moments = schedule(SuperTicketsConfig(), recipe, density=0.35, steps_per_epoch=2)
    assert due(moments, "shrinks") == list(range(20, 681, 20))
    assert due(moments, "prunes") == list(range(50, 651, 50))
    assert [round(moments[step].sparsity, 6) for step in due(moments, "prunes")] == [
        0.1, 0.2, 0.3, 0.4, 0.5, 0.6, *[0.65] * 7,
    ]  # fmt: skip
    assert moments[-1].sparsity == 0.65
    assert [moments[step].penalty for step in (0, 24, 49, 699)] == pytest.approx([3.6e-6, 9e-5, 1.8e-4, 1.8e-4])
    assert [moments[step].rate for step in (0, 350, 525)] == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.parametrize("order", ["search_first", "prune_first"])
def test_one_after_the_other_gives_each_half_the_epochs_at_twice_the_pace(order: str) -> None:
    recipe = TrainingConfig(epochs=350)
    moments = schedule(SuperTicketsConfig(order=order), recipe, density=0.4, steps_per_epoch=2)
    searching_half, pruning_half = (
        (moments[:350], moments[350:]) if order == "search_first" else (moments[350:], moments[:350])
    )
    assert due(searching_half, "shrinks") == list(range(10, 341, 10))
    assert due(pruning_half, "prunes") == list(range(25, 326, 25))
    assert not due(searching_half, "prunes")
    assert not due(pruning_half, "shrinks")
    assert searching_half[100].penalty == 2 * 1.8e-4
    assert {moment.penalty for moment in pruning_half} == {0}
    assert {moment.sparsity for moment in searching_half} == {0.0 if order == "search_first" else 0.6}
    assert due(moments, "starts") == [0, 350]
    assert moments[0].rate == moments[350].rate == 0.1
    assert moments[-1].sparsity == 0.6


@pytest.mark.parametrize("order", ["search_first", "prune_first"])
def test_the_other_orders_find_tickets_too(digits: Dataset, order: str) -> None:
    options = {**FAST, "order": order, "prune_step": 0.6}
    ticket = find(digits, method_options=options)
    assert ticket.mask.kept == round(0.4 * ticket.mask.size)
    assert ticket.info.history[-1]["channels"] < 32
    assert ticket.info.cost["steps"] == 30


@pytest.mark.parametrize(("optimizer", "stop_at"), [("sgd", 6), ("sgd", 30), ("adam", 20)])
def test_an_interrupted_search_resumes_to_the_same_ticket(
    digits: Dataset, optimizer: Any, stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first cut, after the last step, and in between."""
    recipe = dataclasses.replace(
        RECIPE, optimizer=optimizer, momentum=0.9, learning_rate=0.1 if optimizer == "sgd" else 0.15
    )
    whole = find(digits, training=recipe)
    monkeypatch.setattr(stepped, "CHECKPOINT_SECONDS", -1.0)
    writes, write = itertools.count(1), stepped.save_run

    def interrupted(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        if next(writes) == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(stepped, "save_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find(digits, training=recipe, workdir=tmp_path)
    resumed = find(digits, training=recipe, workdir=tmp_path, resume=True)
    assert whole.info.history[-1]["channels"] < 32
    assert whole.mask == resumed.mask
    assert same(whole.weights, resumed.weights)
    assert whole.info.history == resumed.info.history


def test_it_starts_from_rewind_weights_that_are_given(digits: Dataset) -> None:
    start = state_arrays(build_model("supernet", options=OPTIONS, seed=9))
    options = {**FAST, "penalty": 0.0, "threshold": 0.0}
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-9)
    ticket = find(digits, rewind=start, method_options=options, training=recipe)
    everything = full_mask({name: start[name].shape for name in ticket.mask})
    expected = global_top_k({name: np.abs(start[name]) for name in everything}, ticket.mask.kept, within=everything)
    assert ticket.mask == expected


def test_a_mark_cannot_be_planted_meanwhile(digits: Dataset) -> None:
    with pytest.raises(ConfigurationError, match="find the ticket first, then mark it with embed"):
        tg.find_marked("supernet", data=digits, method="supertickets", density=0.4, owner=tg.Owner.generate("Ada"))


def test_a_found_ticket_can_be_marked_and_verified() -> None:
    ticket = tg.find(
        "supernet",
        data="digits",
        method="supertickets",
        model_options={"widths": [12, 16], "depths": [1, 1]},
        data_options={"train_limit": 400, "test_limit": 100},
        density=0.5,
        training=dataclasses.replace(RECIPE, epochs=4),
        method_options=FAST,
    )
    assert ticket.info.history[-1]["channels"] < 48 + 48
    owner = tg.Owner.generate("Ada")
    marks = [tg.PlantedGraph(share=0.1)]
    marked, credential = tg.embed(
        ticket, owner=owner, marks=marks, level_bits=20, secret=bytes(range(32)), training={"epochs": 2}
    )
    assert {name: marked.weights[name].shape for name in marked.weights} == {
        name: ticket.weights[name].shape for name in ticket.weights
    }
    verdict = tg.verify(tg.Checkpoint(dict(marked.weights)), credential, level_bits=20)
    assert (verdict.status, verdict.log10_p < -10) == ("supported", True)
    assert tg.verify(tg.Checkpoint(dict(ticket.weights)), credential, level_bits=20).status == "not_supported"


def depthwise_without_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4 * 36, 10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": None}, "this method needs a density"),
        ({"model": "mlp", "model_options": {"classes": 10, "input_shape": [1, 8, 8]}}, "use model 'supernet'"),
        ({"model": depthwise_without_norm, "model_options": {}}, "no depthwise convolution with a batch normalisation"),
        ({"method_options": {"order": "both"}}, "'order' is 'both', expected one of joint, search_first, prune_first"),
        ({"method_options": {"penalty": -1.0}}, "'penalty' is -1, expected at least 0"),
        ({"method_options": {"prune_every": 0.0}}, "'prune_every' is 0, expected above 0"),
        ({"method_options": {"prune_step": 1.0}}, "'prune_step' is 1, expected above 0 and below 1"),
        (
            {"method_options": {}},
            "5 epochs are too few for a cut, expected 20 or more: .* lower method option 'shrink_every'",
        ),
        (
            {"method_options": {"shrink_every": 1.0}},
            "5 epochs are too few for the 6 prunings that density 0.4 takes, expected 175 or more: .* 'prune_every'",
        ),
        ({"training": dataclasses.replace(RECIPE, precision="fp16")}, "fp32 or bf16, got fp16: choose one"),
    ],
)
def test_what_cannot_be_found_is_refused_before_training(
    digits: Dataset, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supertickets, "run_search", None)
    with pytest.raises(ConfigurationError, match=message):
        find(digits, **changes)


def test_a_diverging_run_says_so(digits: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30, epochs=10)
    with pytest.raises(TicketguardError, match="diverged.*: lower the learning rate"):
        find(digits, training=recipe)
