from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import PIL.Image
import pytest

import ticketguard as tg
from ticketguard.evaluation import runs

from .conftest import Files, Run, validate

QUICK = tg.TrainingConfig(epochs=1, batch_size=32, learning_rate=0.05)


@pytest.fixture(scope="module")
def ticket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "ticket.safetensors"
    options = {"train_limit": 300, "test_limit": 200}
    found = tg.find("mlp", data="digits", density=0.1, method="random", training=QUICK, seed=0, data_options=options)
    found.save(path)
    return path


def test_a_ticket_is_checked_told_and_drawn(run: Run, ticket: Path, tmp_path: Path) -> None:
    picture = tmp_path / "check.png"
    arguments = ("check-ticket", ticket, "--seeds", 2, "--seed", 3, "--out", picture)
    checked = run(*arguments, "--json", code=1)
    document = json.loads(checked.stdout)
    validate(document, "check-ticket")
    assert (document["verdict"], document["seeds"]) == ("neither", [3, 4])
    assert [arm["name"] for arm in document["arms"]] == ["dense", "ticket", "reinitialised", "shuffled", "random_like"]
    with PIL.Image.open(picture) as image:
        image.verify()
    assert "shuffled, seed 4 (2 of 2)" in checked.stderr
    assert not list(tmp_path.glob("*-run"))
    assert "replace it with --force" in run(*arguments, code=2).stderr
    assert run(*arguments, "--force", code=1).stdout.splitlines()[-1] == f"picture: {picture}"


def test_every_recipe_option_changes_what_all_arms_are_trained_by(run: Run, ticket: Path, tmp_path: Path) -> None:
    arguments = ("--arms", "ticket, dense", "--epochs", 0.5, "--lr", 0.1, "--train-limit", 200, "--out")
    checked = run("check-ticket", ticket, "--seeds", 2, *arguments, tmp_path / "a.png", "--json")
    document = json.loads(checked.stdout)
    assert (document["training"]["epochs"], document["training"]["learning_rate"]) == (0.5, 0.1)
    assert document["training"]["batch_size"] == 32
    assert [arm["epochs"] for arm in document["arms"]] == [0.5, 0.5]


def test_a_matching_ticket_is_told_and_what_it_was_not_compared_with(run: Run, ticket: Path, tmp_path: Path) -> None:
    # At so low a rate the whole network learns no more than a part of it.
    arguments = ("--arms", "dense,ticket", "--epochs", 0.3, "--lr", 0.0001, "--seeds", 2)
    told = run("check-ticket", ticket, *arguments, "--out", tmp_path / "b.png")
    assert told.stdout.startswith("MATCHING: as good as the dense network")
    assert "note: not compared with reinitialised and shuffled" in told.stdout


@pytest.mark.filterwarnings("default::ticketguard.TicketguardWarning")
def test_a_ticket_that_was_made_for_release_cannot_be_told(run: Run, ticket: Path, tmp_path: Path) -> None:
    released = tmp_path / "released.safetensors"
    dataclasses.replace(tg.Ticket.load(ticket), rewind_weights=None).save(released)
    arguments = ("check-ticket", released, "--arms", "dense,ticket", "--epochs", 0.3, "--lr", 0.0001, "--seeds", 2)
    checked = run(*arguments, "--out", tmp_path / "a.png", "--json", code=3)
    document = json.loads(checked.stdout)
    validate(document, "check-ticket")
    assert document["verdict"] == "inconclusive"
    assert "warning: the ticket holds no rewind weights" in checked.stderr


def test_an_interrupted_check_goes_on(run: Run, ticket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("check-ticket", ticket, "--seeds", 2, "--arms", "dense,ticket", "--out", tmp_path / "c.png")
    train, calls = runs.train, []

    def interrupted(*given: object, **named: object) -> object:
        calls.append(named)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "train", interrupted)
    stopped = run(*arguments, code=3)
    assert "interrupted" in stopped.stderr
    assert "continue with --resume" in run(*arguments, code=2).stderr
    run(*arguments, "--resume", code=1)
    assert len(calls) == 5
    assert not list(tmp_path.glob("*-run"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--arms", "dense,luck"), 2, "unknown arm 'luck', expected one or more of dense, ticket"),
        (("--seeds", "1"), 2, "is not in the range x>=2"),
        (("--out", "check.pdf"), 2, "expected a name that ends in .png"),
        (("--dense-option", "blocks"), 2, "--dense-option is 'blocks', expected NAME=VALUE"),
        (("--resume",), 2, "there is no run to resume"),
        (("--model", "resnet20"), 3, "is in the model but not in the ticket: name the ticket's own model"),
    ],
)
def test_what_cannot_be_checked_is_told(
    run: Run, ticket: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = run("check-ticket", ticket, "--out", tmp_path / "d.png", *arguments, code=code)
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_ticket_that_does_not_say_what_it_was_found_with_is_told(run: Run, files: Files, tmp_path: Path) -> None:
    result = run("check-ticket", files.unmarked, "--out", tmp_path / "e.png", code=2)
    assert "the ticket does not name its model and data: give both as --model and --data" in result.stderr
