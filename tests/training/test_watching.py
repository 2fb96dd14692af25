from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from runs import SMALL, Watch, half_mask, network, same, stripes
from ticketguard.errors import ConfigurationError, FileError
from ticketguard.training import AccuracyWatch, TrainingResult, evaluate, loop, train

LONG = dataclasses.replace(SMALL, epochs=5, schedule="constant")  # 20 steps


def watched(**changes: object) -> AccuracyWatch:
    return AccuracyWatch(stripes(), **{"every": 2, "level": 0.6, **changes})  # type: ignore[arg-type]


def run(
    watch: AccuracyWatch | None, path: Path | None = None, *, stop_at: int | None = None, resume: bool = False
) -> TrainingResult:
    return train(
        network(), stripes(), LONG, seed=0, mask=half_mask(), hooks=Watch(stop_at=stop_at), watch=watch,
        snapshot_steps=range(1, 21), checkpoint=path, resume=resume,
    )  # fmt: skip


def accuracies(result: TrainingResult, part: str) -> dict[int, float]:
    """Return the accuracy after each step, measured anew."""
    model, measured = network(), {}
    for step, state in result.snapshots.items():
        model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        measured[step] = evaluate(model, stripes(), part=part)  # type: ignore[arg-type]
    return measured


def test_the_first_steps_at_the_level_are_noted() -> None:
    watch = watched()
    whole = run(watch)
    for part, noted in (("train", watch.train_step), ("test", watch.test_step)):
        measured = accuracies(whole, part)
        assert noted == min(step for step in range(2, 21, 2) if measured[step] >= 0.6)
    assert same(whole.state, run(None).state)  # who looks on changes nothing


def test_a_level_that_is_never_reached_has_no_step() -> None:
    watch = watched(level=1.01)
    assert run(watch).steps == 20
    assert (watch.train_step, watch.test_step) == (None, None)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_run_ends_where_it_is_accurate_enough(part: str) -> None:
    measured = accuracies(run(None), part)
    ended = run(watched(**{f"until_{part}": 0.6}))
    assert ended.steps == min(step for step in range(2, 21, 2) if measured[step] >= 0.6) < 20
    assert ended.examples == ended.steps * 16
    assert len(ended.snapshots) == ended.steps


def test_two_ends_must_both_be_reached() -> None:
    assert run(watched(until_train=0.5, until_test=1.01)).steps == 20


@pytest.mark.parametrize("stop_at", [1, 4, 7, 10])
def test_an_interrupted_watch_goes_on_as_if_it_were_not(
    tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    settings = {"every": 1, "level": 0.25, "until_test": 0.8}
    first, second = watched(**settings), watched(**settings)
    whole = run(first)
    assert stop_at < whole.steps
    assert first.test_step is not None
    assert first.test_step < 10  # before the last interruption
    with pytest.raises(KeyboardInterrupt):
        run(watched(**settings), tmp_path / "part", stop_at=stop_at)
    resumed = run(second, tmp_path / "part", resume=True)
    assert same(whole.state, resumed.state)
    assert resumed.steps == whole.steps
    assert (first.train_step, first.test_step) == (second.train_step, second.test_step)


def test_a_checkpoint_is_not_gone_on_with_under_another_watch(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(watched(until_test=0.8), tmp_path / "part", stop_at=3)
    with pytest.raises(FileError, match="belongs to a run with other settings"):
        run(watched(until_train=0.8), tmp_path / "part", resume=True)


def test_a_network_is_left_in_its_training_mode() -> None:
    model: nn.Module = network().train()
    watched().after_step(2, model)
    assert model.training


def test_watching_never_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="watched every 0 steps, expected 1 or more"):
        watched(every=0)
