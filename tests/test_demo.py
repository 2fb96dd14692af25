from __future__ import annotations

import json
from pathlib import Path

import pytest

from ticketguard import demo
from ticketguard.credentials.keys import Owner
from ticketguard.errors import FileError

from .cli.conftest import validate


@pytest.mark.filterwarnings("ignore::ticketguard.TicketguardWarning")  # so few epochs teach few triggers
def test_a_shortened_demo_tells_thefts_from_innocence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAINING", {"epochs": 4})
    monkeypatch.setattr(demo, "ROUNDS", {"level_epochs": 1, "prune_fraction": 0.6})
    monkeypatch.setattr(demo, "FINE_TUNING", {"epochs": 1, "learning_rate": 0.01, "schedule": "constant"})
    Owner.generate("Ada").save(tmp_path / "owner.key", demo.PASSPHRASE)  # of an earlier demo
    story = demo.run_demo(tmp_path, seed=0)
    assert story.as_expected
    assert [row.derives for row in story.rows] == [True, True, True, True, False, False]
    validate(json.loads((tmp_path / "verdicts.json").read_text()), "demo")
    assert story.pictures[0].read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "suspects").iterdir())) == len(story.rows)
    assert all(row.verdict.tests == len(row.verdict.evidence) == 2 for row in story.rows)
    lines = "\n".join(demo.story_lines(story))
    assert "innocent model of the same task     Ada" in lines
    assert "Every judgement is right." in lines


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="cannot be written"):
        demo.run_demo(tmp_path / "file")


@pytest.mark.parametrize("passphrase", [None, "a real one"])
def test_a_folder_with_somebodys_own_key_is_left_alone(tmp_path: Path, passphrase: str | None) -> None:
    Owner.generate("Ada").save(tmp_path / "owner.key", passphrase)
    before = (tmp_path / "owner.key").read_bytes()
    with pytest.raises(FileError, match=r"holds owner\.key, owner\.key\.pub that no earlier demo wrote"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "owner.key").read_bytes() == before


def test_a_folder_with_somebodys_own_vault_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "vault.age").write_bytes(b"mine")
    with pytest.raises(FileError, match=r"holds vault\.age that no earlier demo wrote: choose another folder"):
        demo.run_demo(tmp_path)
