from __future__ import annotations

import dataclasses
import errno
import stat
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from runs import SMALL, Watch, half_mask, network, same, stripes
from ticketguard.errors import FileError, UnknownVersionError
from ticketguard.models import build_model, state_arrays
from ticketguard.training import TrainingConfig, TrainingResult, loop, train

ADAM = dataclasses.replace(SMALL, optimizer="adam", learning_rate=0.01, clip_norm=1.0, schedule="cosine")
ADAMW = dataclasses.replace(ADAM, optimizer="adamw", precision="bf16")


@pytest.fixture(autouse=True)
def _keep_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)


def run(
    path: Path, config: TrainingConfig = SMALL, *, stop_at: int | None = None, resume: bool = False
) -> TrainingResult:
    return train(
        network(), stripes(), config, seed=0, mask=half_mask(), hooks=Watch(stop_at=stop_at, feed=True),
        snapshot_steps=(0, 2, 7), checkpoint=path, resume=resume,
    )  # fmt: skip


@pytest.mark.parametrize("config", [SMALL, ADAM, ADAMW], ids=["sgd", "adam", "adamw-bf16"])
@pytest.mark.parametrize("stop_at", [1, 2, 5, 8, 12])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path, config: TrainingConfig, stop_at: int) -> None:
    whole = run(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", config, stop_at=stop_at)
    resumed = run(tmp_path / "part", config, resume=True)
    assert same(whole.state, resumed.state)
    assert sorted(whole.snapshots) == sorted(resumed.snapshots)
    assert all(same(whole.snapshots[step], resumed.snapshots[step]) for step in whole.snapshots)
    assert (whole.accuracy, whole.steps, whole.examples) == (resumed.accuracy, resumed.steps, resumed.examples)


@pytest.mark.parametrize("config", [SMALL, ADAM], ids=["sgd", "adam"])
def test_what_the_optimiser_remembers_of_channels_last_weights_is_resumed_in_their_order(
    tmp_path: Path, config: TrainingConfig
) -> None:
    """Only kernels with several inputs lie otherwise in memory than they are written to the file."""

    def two_convolutions() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 3))

    path = tmp_path / "part"
    whole, broken, resumed = (build_model(two_convolutions, options={}, seed=0) for _ in range(3))
    train(whole, stripes(), config, seed=0)
    with pytest.raises(KeyboardInterrupt):
        train(broken, stripes(), config, seed=0, hooks=Watch(stop_at=3), checkpoint=path)
    train(resumed, stripes(), config, seed=0, checkpoint=path, resume=True)
    assert same(state_arrays(whole), state_arrays(resumed))


def test_a_run_interrupted_again_and_again_still_arrives(tmp_path: Path) -> None:
    for stop_at in (2, 3, 7, 9):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "part", stop_at=stop_at, resume=True)
    assert same(run(tmp_path / "part", resume=True).state, run(tmp_path / "whole").state)


def test_hooks_are_told_where_a_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(network(), stripes(), SMALL, seed=0, hooks=Watch(stop_at=6), checkpoint=tmp_path / "part")
    watch = Watch()
    train(network(), stripes(), SMALL, seed=0, hooks=watch, checkpoint=tmp_path / "part", resume=True)
    assert (watch.started, watch.sought, len(watch.states)) == (1, 5, 7)
    assert (watch.to_take, watch.state_sought) == (12, {"twice": [10, 7]})


def test_a_finished_run_is_kept_and_takes_no_step_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has not saved the result yet may be interrupted, or find the disk full."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 60.0)
    whole = run(tmp_path / "run")
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o600
    watch = Watch()
    again = train(
        network(), stripes(), SMALL, seed=0, mask=half_mask(), hooks=watch, snapshot_steps=(0, 2, 7),
        checkpoint=tmp_path / "run", resume=True,
    )  # fmt: skip
    assert watch.states == []
    assert same(whole.state, again.state)
    assert (whole.accuracy, whole.steps, sorted(whole.snapshots)) == (again.accuracy, again.steps, [0, 2, 7])


class EndsAt:
    """A watch that ends a run."""

    identity = "ends at"

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, step: int, model: nn.Module) -> bool:
        return step == self.step

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def load(self, tensors: object) -> None:
        pass


def test_a_run_that_its_watch_ended_does_not_go_on(tmp_path: Path) -> None:
    first, second = (
        train(network(), stripes(), SMALL, seed=0, watch=EndsAt(4), checkpoint=tmp_path / "run", resume=resume)
        for resume in (False, True)
    )
    assert first.steps == second.steps == 4
    assert same(first.state, second.state)


def test_a_full_disk_leaves_the_checkpoint_before_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", stop_at=4)
    before = (tmp_path / "part").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(FileError, match=r"No space left on device.*free some space.*continue with --resume"):
            run(tmp_path / "part", resume=True)
    assert (tmp_path / "part").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part", "whole"]
    assert same(run(tmp_path / "part", resume=True).state, whole.state)


def test_without_resume_a_run_starts_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", stop_at=4)
    assert same(run(tmp_path / "part").state, run(tmp_path / "whole").state)


def test_resuming_what_was_never_begun_starts_it(tmp_path: Path) -> None:
    assert same(run(tmp_path / "new", resume=True).state, run(tmp_path / "whole").state)


def test_the_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", stop_at=4)
    with pytest.raises(FileError, match="part': belongs to a run with other settings: resume with the settings"):
        run(tmp_path / "part", dataclasses.replace(SMALL, learning_rate=0.01), resume=True)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", stop_at=4)
    whole = (tmp_path / "part").read_bytes()
    (tmp_path / "part").write_bytes(whole[:-100])
    with pytest.raises(FileError, match="part': is not a whole checkpoint .*delete it to start again"):
        run(tmp_path / "part", resume=True)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "part", metadata={"version": "ticketguard.other/9"})
    with pytest.raises(UnknownVersionError, match=r"has version 'ticketguard\.other/9', expected ticketguard"):
        run(tmp_path / "part", resume=True)


def test_an_interruption_while_writing_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", stop_at=4)
    before = (tmp_path / "part").read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "part", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    assert (tmp_path / "part").read_bytes() == before
