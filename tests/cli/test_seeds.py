"""Who sees a search's seed: its owner, and nobody who gets what is public."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ticketguard import seeds
from ticketguard.credentials.keys import Owner
from ticketguard.ticket import Ticket

from .conftest import PASSPHRASE, Run, validate

SMALL = ("--train-limit", 200, "--test-limit", 50, "--epochs", 1, "--batch-size", 32)
FIND = ("find", "--model", "mlp", "--data", "digits", "--density", 0.2, "--method", "snip", *SMALL)
MARKS = ("--marks", "planted-graph", "--level-bits", 16)


pytestmark = pytest.mark.usefixtures("fresh_seeds_are_drawn")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Owner.generate("Ada").save(tmp_path / "owner.key", PASSPHRASE)


def test_the_seed_that_find_prints_finds_the_ticket_again(run: Run) -> None:
    lines = run(*FIND).stdout.splitlines()
    (seed,) = (line.split()[-1] for line in lines if line.startswith("seed "))
    again = json.loads(run(*FIND, "--seed", seed, "--out", "again.safetensors", "--json").stdout)
    validate(again, "find")
    assert again["info"]["seed"] == int(seed) >= seeds.GUESSABLE
    first, second = Ticket.load("ticket.safetensors"), Ticket.load("again.safetensors")
    assert all((first.weights[name] == second.weights[name]).all() for name in first.weights)
    assert run(*FIND, "--out", "other.safetensors").stdout.splitlines() != lines


@pytest.mark.filterwarnings("default::ticketguard.TicketguardWarning")  # a marked ticket cannot be checked
def test_nothing_that_is_public_holds_the_seed(run: Run) -> None:
    seed = str(seeds.GUESSABLE + 987_654_321)
    run(*FIND, "--seed", seed)
    said = [run("embed", "ticket.safetensors", "--owner", "owner.key", *MARKS, "--json").stdout]
    said += [run("export", "marked.safetensors", "--out", "released.safetensors").stdout]
    more = ("--owner", "owner.key", "--claim", "c.json", "--vault", "v.age", "--out", "found.safetensors")
    said += [run(*FIND, "--seed", seed, *MARKS, *more).stdout]
    for marked, claim, vault in (("marked", "claim.json", "vault.age"), ("found", "c.json", "v.age")):
        ticket = f"{marked}.safetensors"
        inspected = run("inspect", ticket, "--json").stdout
        validate(json.loads(inspected), "inspect")
        assert json.loads(inspected)["ticket"]["info"]["seed"] is None
        judged = run("verify", ticket, "--claim", claim, "--vault", vault, "--json").stdout
        run("check-ticket", ticket, "--seeds", 2, "--arms", "dense,ticket", "--out", f"{marked}.png", code=None)
        assert Path(f"{marked}.png").exists()
        said += [inspected, judged, run("inspect", ticket).stdout, run("inspect", claim).stdout]
        for path in (ticket, claim, f"{marked}.png"):
            assert seed.encode() not in Path(path).read_bytes()
    assert seed.encode() not in Path("released.safetensors").read_bytes()
    assert not [text for text in said if seed in text]
    assert not list(Path().glob("*-run"))


@pytest.mark.filterwarnings("always::ticketguard.TicketguardWarning")
def test_a_seed_that_can_be_guessed_is_told_of(run: Run) -> None:
    assert "guessed" not in run(*FIND, "--seed", 0).stderr
    told = run("embed", "ticket.safetensors", "--owner", "owner.key", *MARKS).stderr
    assert "seed 0 can be guessed: who does has the unmarked ticket again, and can remove the mark; find" in told
    told = run(*FIND, *MARKS, "--owner", "owner.key", "--seed", 7, "--out", "found.safetensors", "--force").stderr
    assert "seed 7 can be guessed: who does has the weights that the search starts from" in told


def test_a_seed_that_readers_of_json_would_round_is_refused(run: Run) -> None:
    assert "is not in the range 0<=x<=9007199254740991" in run(*FIND, "--seed", 2**53, code=2).stderr
