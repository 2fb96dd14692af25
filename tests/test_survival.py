"""The benchmark that makes and reads thefts: its rules, and that what it calls exact is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.shared.fleet import DeviceData, Fleet, Outcome, Run, Task
from benchmarks.shared.thefts import masks
from benchmarks.shared.thefts.disguise import Disguise, fitted
from benchmarks.shared.thefts.structure import filters_flipped
from benchmarks.shared.thefts.table import budget_of, judged_row, summary
from ticketguard.data import load_data
from ticketguard.graph import channel_groups
from ticketguard.models import build_model, prunable_layers, state_arrays
from ticketguard.models.blocks import remove_blocks
from ticketguard.ticket import Array, Mask
from ticketguard.training import TrainingConfig

READ = {"as made": {"status": "supported"}, "permuted and rescaled": {"status": "supported"}}
UNREAD = {**READ, "permuted and rescaled": {"status": "inconclusive"}}


@pytest.mark.parametrize(
    ("found", "accuracy", "scratch", "removed"),
    [
        (UNREAD, 0.86, 0.80, True),
        (UNREAD, 0.86, None, True),  # nobody trained from scratch at that budget
        (READ, 0.86, 0.80, False),
        (UNREAD, 0.81, 0.80, False),  # the copy lost more than five points
        (UNREAD, 0.86, 0.87, False),  # nothing was stolen that was not paid for again
    ],
)
def test_a_removal_succeeds_only_if_the_copy_is_unread_useful_and_better_than_from_scratch(
    found: Mapping[str, Mapping[str, str]], accuracy: float, scratch: float | None, removed: bool
) -> None:
    record = judged_row({"accuracy": accuracy, **found}, stolen=0.87, scratch=scratch)
    assert record["removed"] is removed


@pytest.mark.parametrize(
    ("row", "budget"),
    [
        ("pruned 50%", None),
        ("int4", None),
        ("Torch-Pruning 20%, 10 000 images", "1 epochs of 10000 images"),
        ("pruned 80%, 2 epochs", "2 epochs"),
        ("pruned 50%, LoRA merged", "2 epochs"),
        ("50% rewired, new weights", "a ticket's budget"),
        ("new weights", "a ticket's budget"),
        ("70% rewired, new weights, 80 epochs", "80 epochs"),
        ("overwritten 8 times", "80 epochs"),
    ],
)
def test_a_row_is_held_against_training_from_scratch_at_its_own_budget(row: str, budget: str | None) -> None:
    assert budget_of(row) == budget


def test_the_weakest_seed_is_the_one_with_the_largest_p() -> None:
    told = summary([-100.0, -80.0, -120.0])
    assert (told["mean"], told["weakest"], told["seeds"]) == (-100.0, -80.0, 3)
    assert told["half_width"] == pytest.approx(4.303 * 20 / math.sqrt(3), abs=0.01)
    assert summary([-5.0])["half_width"] is None


def small_resnet() -> nn.Module:
    torch.manual_seed(0)
    model = build_model("resnet20", options={"classes": 10, "input_shape": (1, 8, 8), "width": 4}, seed=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def disguised(model: nn.Module, state: Mapping[str, Array]) -> dict[str, Array]:
    inputs = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Disguise(fitted(model, state), state, inputs, np.random.default_rng(0)).put_on(state)


@pytest.mark.parametrize("block", [None, "layer2.1"])
def test_a_disguise_moves_and_scales_every_layer_and_changes_no_answer(block: str | None) -> None:
    model = small_resnet()
    if block is not None:
        remove_blocks(model, [block])
    state = state_arrays(model)
    hidden = disguised(small_resnet(), state)  # raises if the answers change
    for name in prunable_layers(model):
        if name != "fc.weight":
            assert not np.allclose(np.sort(np.abs(hidden[name]), axis=None), np.sort(np.abs(state[name]), axis=None))


def test_filters_that_are_flipped_behind_norms_change_no_answer() -> None:
    model = small_resnet()
    state, inputs = state_arrays(model), torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    groups = tuple(channel_groups(model, inputs[:1]))
    turned = filters_flipped(state, groups, np.random.default_rng(0))
    with torch.no_grad():
        assert torch.allclose(fitted(small_resnet(), turned)(inputs), model(inputs), atol=1e-5)
    for name in ("conv1.weight", "layer2.1.conv2.weight"):
        signs = (turned[name] / state[name]).reshape(len(state[name]), -1)
        assert np.array_equal(np.abs(signs), np.ones_like(signs))
        assert {-1.0, 1.0} == set(signs[:, 0])
        assert (signs == signs[:, :1]).all()


@pytest.fixture(scope="module")
def digits() -> DeviceData:
    return DeviceData(load_data("digits", options={}), torch.device("cpu"))


RECIPE = TrainingConfig(epochs=6, batch_size=64, learning_rate=0.1, momentum=0.9, augment=False)


def network() -> nn.Module:
    return build_model("mlp", options={"classes": 10, "input_shape": (1, 8, 8)}, seed=0)


def test_a_fleet_trains_under_the_mask_and_gives_each_task_its_outcome(digits: DeviceData) -> None:
    model = network()
    layers = {
        name: np.random.default_rng(0).random(state_arrays(model)[name].shape) < 0.3 for name in prunable_layers(model)
    }
    mask, found = Mask(layers=layers), list[Outcome]()

    def task() -> Task:
        found.append((yield Run(model=model, data=digits, training=RECIPE, seed=0, mask=mask, snapshot_step=3)))
        found.append((yield Run(model=network(), data=digits, training=RECIPE, seed=0, examples=200)))

    fleet = Fleet(width=2, deadline=math.inf)
    fleet.add("two", task(), priority=0)
    assert fleet.run() == []
    first, second = found
    assert first.accuracy > 0.8
    assert all(not first.state[name][~mask[name]].any() for name in mask)
    assert first.snapshot is not None
    assert not np.array_equal(first.snapshot["1.weight"], first.state["1.weight"])
    assert second.steps == 6 * (200 // 64)


def test_a_task_that_fails_is_named_and_stops_no_other(digits: DeviceData, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []

    def fails() -> Task:
        yield Run(model=network(), data=digits, training=RECIPE, seed=0, examples=64)
        raise RuntimeError("no such channel")

    def works(name: str) -> Task:
        yield Run(model=network(), data=digits, training=RECIPE, seed=0, examples=64)
        done.append(name)

    fleet = Fleet(width=1, deadline=math.inf)
    fleet.add("fails", fails(), priority=1)
    fleet.add("last", works("last"), priority=2)
    fleet.add("first", works("first"), priority=0)
    assert fleet.run() == ["fails"]
    assert done == ["first", "last"]
    assert "fails failed" in capsys.readouterr().out


def test_after_the_deadline_nothing_is_trained(digits: DeviceData) -> None:
    fleet = Fleet(width=1, deadline=-math.inf)
    fleet.add("late", iter(()), priority=0)  # type: ignore[arg-type]
    assert fleet.run() == ["late"]


def test_moved_edges_keep_every_layers_density() -> None:
    generator = np.random.default_rng(0)
    mask = Mask(layers={name: generator.random((20, 30)) < 0.2 for name in ("a", "b")})
    weights = {name: generator.standard_normal((20, 30)).astype(np.float32) * mask[name] for name in mask}
    gone = masks.weakest(weights, mask, 0.5)
    rewired = masks.moved(mask, gone, generator)
    for name in mask:
        assert rewired[name].sum() == mask[name].sum()
        assert not (rewired[name] & gone[name]).any()
    assert sum(int(gone[name].sum()) for name in mask) == round(0.5 * sum(int(mask[name].sum()) for name in mask))
