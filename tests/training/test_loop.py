from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from runs import SMALL, Watch, half_mask, network, same, stripes
from ticketguard.data import load_data
from ticketguard.errors import ConfigurationError, TensorError, TicketguardError
from ticketguard.models import build_model, state_arrays
from ticketguard.ticket import Mask
from ticketguard.training import TrainingConfig, evaluate, recommended_training, train


def test_the_recommended_recipe_learns_digits() -> None:
    data = load_data("digits", options={})
    model = build_model("mlp", options={"classes": 10, "input_shape": (1, 8, 8)}, seed=0)
    result = train(model, data, recommended_training("mlp", data), seed=0)
    assert result.accuracy > 0.96
    assert result.accuracy == evaluate(model, data)


def test_a_residual_network_learns_stripes() -> None:
    model = build_model("resnet20", options={"classes": 3, "input_shape": (1, 6, 6)}, seed=0)
    assert train(model, stripes(), dataclasses.replace(SMALL, epochs=6), seed=0).accuracy > 0.8


def test_a_run_is_a_function_of_its_arguments() -> None:
    first, second = (train(network(), stripes(), SMALL, seed=3) for _ in range(2))
    assert same(first.state, second.state)
    assert first.accuracy == second.accuracy


@pytest.mark.parametrize("change", ["seed", "weights", "augment"])
def test_what_a_run_depends_on_changes_it(change: str) -> None:
    config = dataclasses.replace(SMALL, augment=change != "augment")
    changed = train(network(int(change == "weights")), stripes(), config, seed=int(change == "seed"))
    assert not same(train(network(), stripes(), SMALL, seed=0).state, changed.state)


def test_global_generators_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    train(network(), stripes(), SMALL, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_pruned_weights_stay_exactly_zero_in_every_step(optimizer: str) -> None:
    mask, watch = half_mask(), Watch()
    config = dataclasses.replace(SMALL, optimizer=optimizer, learning_rate=0.01, weight_decay=0.1, clip_norm=1.0)
    result = train(network(), stripes(), config, seed=0, mask=mask, hooks=watch)
    for state in (*watch.states, result.state):
        assert not any(state[name][~mask[name]].any() for name in mask)
    assert all(result.state[name][mask[name]].all() for name in mask)


def test_a_mask_that_keeps_everything_changes_nothing() -> None:
    everything = Mask(layers={name: np.ones_like(half_mask()[name]) for name in half_mask()})
    dense = train(network(), stripes(), SMALL, seed=0)
    assert same(dense.state, train(network(), stripes(), SMALL, seed=0, mask=everything).state)


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(TensorError, match=r"tensor '9\.weight' is masked but the model has no weights of its shape"):
        train(network(), stripes(), SMALL, seed=0, mask=Mask(layers={"9.weight": np.ones((2, 2), np.bool_)}))


def test_a_masked_layer_that_takes_no_part_is_left_alone() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(36, 3), nn.Linear(3, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.used(inputs.flatten(1))
            return logits

    model = Skipping()
    masks = {"used.weight": np.ones((3, 36), np.bool_), "unused.weight": np.eye(3, dtype=np.bool_)}
    config = dataclasses.replace(SMALL, weight_decay=0.0)
    state = train(model, stripes(), config, seed=0, mask=Mask(layers=masks)).state
    assert not state["unused.weight"][~np.eye(3, dtype=np.bool_)].any()


def test_hooks_start_feed_and_see_every_step() -> None:
    watch = Watch(feed=True)
    result = train(network(), stripes(), SMALL, seed=0, hooks=watch)
    assert (watch.started, watch.steps, result.steps, result.examples) == (1, 12, 12, 12 * 16)
    assert same(watch.states[-1], result.state)
    assert not same(result.state, train(network(), stripes(), SMALL, seed=0, hooks=Watch()).state)


def test_hooks_set_the_weights_training_starts_from() -> None:
    class Start(Watch):
        def start(self, model: nn.Module, *, steps: int) -> None:
            model.load_state_dict(network(9).state_dict())

    started = train(network(0), stripes(), SMALL, seed=0, hooks=Start())
    assert same(started.state, train(network(9), stripes(), SMALL, seed=0).state)


def test_snapshots_are_the_weights_after_those_steps() -> None:
    watch = Watch()
    result = train(network(), stripes(), SMALL, seed=0, hooks=watch, snapshot_steps=(0, 3, 12))
    assert sorted(result.snapshots) == [0, 3, 12]
    assert same(result.snapshots[0], state_arrays(network()))
    assert same(result.snapshots[3], watch.states[2])
    assert same(result.snapshots[12], result.state)


def test_progress_counts_every_step() -> None:
    class Bar:
        def __init__(self) -> None:
            self.calls: list[tuple[object, ...]] = []

        def begin(self, description: str, total: int) -> None:
            self.calls.append((description, total))

        def advance(self, count: int = 1) -> None:
            self.calls.append((count,))

        def end(self) -> None:
            self.calls.append(("end",))

    bar = Bar()
    train(network(), stripes(), SMALL, seed=0, progress=bar, description="round 1")
    assert bar.calls == [("round 1", 12), (0,), *[(1,)] * 12, ("end",)]


def test_divergence_names_step_and_rate(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=30, batch_size=16, learning_rate=1e20)
    with pytest.raises(
        TicketguardError, match=r"training diverged: the loss is nan at step 50 with rate 1e\+20: lower"
    ):
        train(network(), stripes(), config, seed=0, checkpoint=tmp_path / "run")


def test_bf16_trains_and_leaves_the_model_as_it_was() -> None:
    model = network()
    before = set(vars(model))
    result = train(model, stripes(), dataclasses.replace(SMALL, precision="bf16"), seed=0)
    assert set(vars(model)) == before
    assert result.state["5.weight"].dtype == np.float32
    assert not same(result.state, train(network(), stripes(), SMALL, seed=0).state)
    assert model(torch.zeros(1, 1, 6, 6)).dtype == torch.float32


def test_an_interrupted_bf16_run_leaves_the_model_as_it_was() -> None:
    model = network()
    before = set(vars(model))
    with pytest.raises(KeyboardInterrupt):
        train(model, stripes(), dataclasses.replace(SMALL, precision="bf16"), seed=0, hooks=Watch(stop_at=2))
    assert set(vars(model)) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 works there")
def test_fp16_is_refused_where_it_would_silently_be_something_else() -> None:
    with pytest.raises(ConfigurationError, match="precision fp16 does not work on device 'cpu': use fp32 or bf16"):
        train(network(), stripes(), dataclasses.replace(SMALL, precision="fp16"), seed=0)


def test_another_precision_follows_in_the_same_process() -> None:
    for precision in ("bf16", "fp32", "bf16"):
        train(network(), stripes(), dataclasses.replace(SMALL, epochs=0.3, precision=precision), seed=0)


def test_evaluation_counts_right_answers_and_keeps_the_mode() -> None:
    data, model = stripes(), network().train()
    accuracy = evaluate(model, data, batch_size=7)
    assert model.training
    model.eval()
    right = model(data.scaled(data.test_inputs)).argmax(dim=1) == data.test_labels
    assert accuracy == float(right.sum()) / 30
