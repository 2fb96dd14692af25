"""What a run keeps in its folder, and what it makes sure of before it starts."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import ticketguard as tg
from ticketguard.errors import ConfigurationError, FileError
from ticketguard.pipeline import runs
from ticketguard.pipeline.runs import in_work_folder, moment_of_run, require_room_to_end, secret_of_run
from ticketguard.training import TrainingConfig

SECRET, OTHER = bytes(range(32)), bytes(32)


def test_the_moment_that_was_kept_is_the_runs_and_nobody_elses_to_read(tmp_path: Path) -> None:
    first = moment_of_run(tmp_path)
    assert moment_of_run(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "embed.created").stat().st_mode) == 0o600
    assert moment_of_run(None) > first


@pytest.mark.parametrize("content", [b"", b"yesterday", b"\xff", b"2001-02-03T04:05:06+00:00" + b" " * 64])
def test_a_damaged_moment_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "embed.created").write_bytes(content)
    with pytest.raises(
        FileError, match=r"embed\.created': (does not hold a date: delete it, and resume|has more than 64)"
    ):
        moment_of_run(tmp_path)


def test_a_run_that_goes_on_has_the_kept_secret_and_another_a_new_one(tmp_path: Path) -> None:
    assert secret_of_run(SECRET, tmp_path, resume=True) == SECRET
    assert len(secret_of_run(None, tmp_path, resume=True)) == 32
    (tmp_path / "embed.secret").write_bytes(OTHER)
    assert secret_of_run(None, tmp_path, resume=True) == OTHER
    assert secret_of_run(OTHER, tmp_path, resume=True) == OTHER
    assert secret_of_run(SECRET, tmp_path, resume=False) == SECRET
    assert secret_of_run(None, tmp_path, resume=False) != OTHER


@pytest.mark.parametrize("resume", [False, True])
def test_the_secret_is_on_disk_before_the_work_starts(tmp_path: Path, resume: bool) -> None:
    kept = tmp_path / "run" / "embed.secret"
    with in_work_folder(tmp_path / "run", resume=resume, secret=SECRET):
        assert kept.read_bytes() == SECRET
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with in_work_folder(tmp_path / "run", resume=False, secret=OTHER):
        assert kept.read_bytes() == OTHER


def test_a_folder_that_another_run_took_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    with in_work_folder(tmp_path / "run", resume=False, secret=OTHER):
        pass
    with (
        pytest.raises(ConfigurationError, match="another run was started in '.*run': choose another name"),
        in_work_folder(tmp_path / "run", resume=True, secret=SECRET),
    ):
        pytest.fail("it went on")
    assert (tmp_path / "run" / "embed.secret").read_bytes() == OTHER


@pytest.mark.parametrize(
    ("recipe", "states", "resume", "expected"),
    [
        ({"optimizer": "sgd", "momentum": 0.0}, 1, False, {"ticket": 80, "checkpoint": 80}),
        ({"optimizer": "sgd", "momentum": 0.9}, 1, False, {"ticket": 80, "checkpoint": 80 + 40}),
        ({"optimizer": "adam"}, 2, False, {"ticket": 160, "checkpoint": 80 + 80}),
        ({"optimizer": "adamw"}, 1, True, {"ticket": 80}),
    ],
)
def test_there_is_room_for_what_a_run_is_certain_to_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: dict[str, object],
    states: int,
    resume: bool,
    expected: dict[str, int],
) -> None:
    asked: dict[str, int] = {}

    def note(sizes: Mapping[Path, int]) -> None:
        asked.update({path.name: size for path, size in sizes.items()})

    monkeypatch.setattr(runs, "require_room", note)
    network = nn.Linear(4, 2)  # ten parameters of four bytes, and as much in a buffer
    network.register_buffer("mean", network.weight.new_zeros(10))
    config = TrainingConfig(epochs=1, **recipe)
    require_room_to_end(None, network, config, resume=resume, states=states)
    assert asked == {}
    require_room_to_end(tmp_path, network, config, resume=resume, states=states)
    assert asked == expected


@pytest.mark.parametrize("changes", [{"density": 0.3}, {"seed": 1}, {"training": {"epochs": 1}}])
def test_a_search_is_not_resumed_as_another_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"data": "digits", "density": 0.25, "training": {"epochs": 0.5}, "workdir": tmp_path}
    found = tg.find("mlp", **settings)
    kept = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="is another search, of other settings, data or marks"):
        tg.find("mlp", **{**settings, **changes}, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    assert tg.find("mlp", **settings, resume=True).mask == found.mask


def test_a_search_is_not_resumed_for_another_owner(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": "digits", "density": 0.25, "method": "snip", "training": {"epochs": 0.5}}
    settings["marks"] = [tg.PlantedGraph()]
    tg.find_marked("mlp", owner=tg.Owner.generate("Ada"), workdir=tmp_path, **settings)
    with pytest.raises(ConfigurationError, match="is another search, of other settings, data or marks"):
        tg.find_marked("mlp", owner=tg.Owner.generate("Eve"), workdir=tmp_path, resume=True, **settings)
