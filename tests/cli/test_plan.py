"""What a mark of which size survives, by the command line, and a mark that is embedded by what it is to survive."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import PIL.Image
import pytest

import ticketguard as tg
from tests.verification.stolen import of_densities

from .conftest import PASSPHRASE, Files, Run, validate

FIND = ("find", "--model", "mlp", "--data", "digits", "--density", "0.25", "--method", "snip", "--epochs", 2)


@pytest.fixture(scope="module")
def ticket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "ticket.safetensors"
    of_densities(0.15, 0.06, 0.4).save(path)
    return path


def test_a_choice_is_told_and_drawn(run: Run, ticket: Path, tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    told = run("plan", ticket, "--survive", "pruned-80", "--picture", picture)
    assert told.stdout.startswith(
        "CHOSEN: planted-graph with share 0.05, secret_share 0.03, the smallest that survives"
    )
    assert "\n>  0.05 " in told.stdout
    with PIL.Image.open(picture) as image:
        image.verify()
    assert "replace it with --force" in run("plan", ticket, "--picture", picture, code=2).stderr
    run("plan", ticket, "--survive", "pruned-80", "--picture", picture, "--force")


def test_the_document_follows_its_schema(run: Run, ticket: Path) -> None:
    arguments = ("--survive", "pruned-80", "--survive", "pruned-50+regrown-20", "--level-bits", 32, "--margin", 2)
    document = json.loads(run("plan", ticket, *arguments, "--marks", "planted-graph", "--json").stdout)
    validate(document, "plan")
    assert document["file"] == str(ticket)
    assert document["survive"] == ["pruned-80", "pruned-50+regrown-20"]
    assert (document["level_bits"], document["tests"], document["margin"]) == (32, 1, 2)
    assert document["needed_log10_p"] == pytest.approx(-9.633, abs=1e-3)
    assert {seen["theft"] for seen in document["sizes"][0]["foreseen"]} >= {"untouched", "rewired-50"}


def test_without_thefts_the_usual_ones_are_to_be_survived(run: Run, ticket: Path) -> None:
    document = json.loads(run("plan", ticket, "--json").stdout)
    assert document["survive"] == ["pruned-80", "regrown-100", "channels-25", "tuned-dense"]
    shown = run("plan", "--help").stdout
    assert "they are pruned-80, regrown-100, channels-25 and tuned-dense, each alone" in " ".join(
        shown.split()
    ).replace("- ", "-")


def test_help_lists_every_theft(run: Run) -> None:
    from ticketguard.verification.thefts import KINDS, TUNED, UNTOUCHED

    shown = run("plan", "--help").stdout
    lines = [line.strip() for line in shown.splitlines()]
    for name in (*(f"{kind}-N" for kind in KINDS), TUNED, UNTOUCHED):
        assert [line for line in lines if line.startswith(f"{name} ")], f"{name} has no line of its own"


def test_a_ticket_in_which_no_size_survives_exits_with_1(run: Run, ticket: Path, tmp_path: Path) -> None:
    told = run("plan", ticket, "--survive", "pruned-99", "--picture", tmp_path / "p.png", code=1)
    assert told.stdout.startswith(
        "NOT CHOSEN: no planted-graph keeps a level of 64 bits in this ticket: with share 0.3"
    )
    assert (tmp_path / "p.png").exists()
    document = json.loads(run("plan", ticket, "--survive", "pruned-99", "--json", code=1).stdout)
    validate(document, "plan")
    assert document["chosen"] is document["command"] is None


@pytest.mark.filterwarnings("default::ticketguard.TicketguardWarning")
def test_a_ticket_that_was_made_for_release_is_warned_of(run: Run, ticket: Path, tmp_path: Path) -> None:
    released = tmp_path / "released.safetensors"
    dataclasses.replace(tg.Ticket.load(ticket), rewind_weights=None).save(released)
    warning = "warning: this ticket looks like one that was made for release, and marked already"
    assert warning in run("plan", released, "--survive", "untouched").stderr
    assert "warning" not in run("plan", ticket, "--survive", "untouched").stderr


def test_a_ticket_without_edges_is_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    of_densities(0.0, 0.0, 0.0).save(path)
    picture = tmp_path / "p.png"
    assert "which has no room for one" in run("plan", path, "--picture", picture, code=1).stdout
    assert not picture.exists()
    validate(json.loads(run("plan", path, "--json", code=1).stdout), "plan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--survive", "melted-50"), "unknown theft 'melted', expected one of channels, pruned, regrown"),
        (("--survive", "pruned-150"), "theft 'pruned-150' has '150' percent, expected more than 0 and at most 99.9"),
        (("--marks", "trigger-set"), "marks are trigger-set: none has a size to choose"),
        (("--margin", "0.5"), "is not in the range x>=1"),
        (("--picture", "plan.pdf"), "expected a name that ends in .png"),
        (("--mark-option", "planted-graph.secret_share=2"), "secret_share is 2"),
    ],
)
def test_what_cannot_be_planned_is_told(run: Run, ticket: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in run("plan", ticket, *arguments, code=2).stderr


def test_what_is_not_a_ticket_is_told(run: Run, files: Files) -> None:
    assert run("plan", files.claim, code=3).stderr.count("\n") == 1


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("owner") / "owner.key"
    tg.Owner.generate("Ada").save(path, PASSPHRASE)
    return path


def test_a_mark_is_embedded_as_planned_either_way(
    run: Run, tmp_path: Path, owner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner.key").write_bytes(owner.read_bytes())
    run(*FIND, "--out", "found.safetensors")
    choose = ("--survive", "pruned-50+regrown-50", "--marks", "planted-graph", "--level-bits", 40)
    document = json.loads(run("plan", "found.safetensors", *choose, "--json").stdout)
    chosen = document["chosen"]
    assert chosen["share"] != 0.05
    expected = {"share_ppm": round(1e6 * chosen["share"]), "secret_ppm": round(1e6 * chosen["secret_share"])}
    program, *planned = shlex.split(document["command"])
    assert program == "ticketguard"
    by_theft = ("embed", "found.safetensors", "--owner", "owner.key", *choose)
    for name, arguments in (("a", by_theft), ("b", planned)):
        outputs = ("--out", f"{name}.safetensors", "--claim", f"{name}.json", "--vault", f"{name}.age")
        embedded = json.loads(run(*arguments, *outputs, "--epochs", 1, "--json").stdout)
        (mark,) = embedded["marks"]
        assert mark["level_bits"] == 40
        assert mark["parameters"].items() >= expected.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--survive", "pruned-80", "--share", "0.05"), "--survive chooses the share: leave out --share."),
        (("--survive", "pruned-99.9"), "no planted-graph keeps a level of 64 bits in this ticket"),
        (("--survive", "pruned"), "theft 'pruned' does not say how much"),
    ],
)
def test_a_mark_that_cannot_survive_is_not_embedded(
    run: Run, ticket: Path, owner: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outputs = ("--out", tmp_path / "m", "--claim", tmp_path / "c", "--vault", tmp_path / "v")
    assert message in run("embed", ticket, "--owner", owner, *outputs, *arguments, code=2).stderr
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_ticket_that_is_too_small_for_the_usual_mark_is_told_how_to_find_one(
    run: Run, owner: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.safetensors"
    of_densities(0.01, 0.01, 0.01).save(path)
    with pytest.raises(tg.TicketguardError, match="'ticketguard plan' says which share would do"):
        tg.prepare(tg.Ticket.load(path), owner=tg.Owner.load(owner, PASSPHRASE), marks=[tg.PlantedGraph(share=0.01)])
    assert "CHOSEN" in run("plan", path, "--survive", "untouched").stdout
