"""A search draws a seed that nobody can guess, keeps it for its owner, and gives it to nobody else."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from ticketguard import seeds
from ticketguard.errors import ConfigurationError, FileError, TicketguardWarning
from ticketguard.pipeline import finding
from ticketguard.training import loop

SEARCH: dict[str, Any] = {
    "data": "digits",
    "density": 0.2,
    "method": "snip",
    "training": {"epochs": 1, "batch_size": 32},
    "data_options": {"train_limit": 200, "test_limit": 50},
    "model_options": {"widths": [100]},
}
ROUNDS = {**SEARCH, "method": "imp", "method_options": {"prune_fraction": 0.6}}
GRAPH = [tg.PlantedGraph()]
MARKING: dict[str, Any] = {"marks": GRAPH, "level_bits": 16}
OWNER = tg.Owner.generate("Ada")
SECRET = bytes(range(32))

pytestmark = pytest.mark.usefixtures("fresh_seeds_are_drawn")


def same(first: tg.Ticket, second: tg.Ticket) -> bool:
    return all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_two_searches_without_a_seed_start_from_other_weights() -> None:
    first, second = (tg.find("mlp", **SEARCH) for _ in range(2))
    assert first.info.seed != second.info.seed
    assert not same(first, second)


def test_the_seed_that_was_drawn_finds_the_ticket_again() -> None:
    first = tg.find("mlp", **SEARCH)
    again = tg.find("mlp", **SEARCH, seed=first.info.seed)
    assert same(first, again)
    assert first.mask == again.mask


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, take_step = 0, loop._Run._take_step

    def interrupted(run: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            raise KeyboardInterrupt
        take_step(run)

    monkeypatch.setattr(loop._Run, "_take_step", interrupted)


def test_a_search_that_is_resumed_has_the_seed_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = [seeds.GUESSABLE + 5, seeds.GUESSABLE + 6]
    monkeypatch.setattr(finding, "drawn_seed", lambda: drawn.pop(0))
    with monkeypatch.context() as broken:
        interrupt_at(10, broken)  # in the second round
        with pytest.raises(KeyboardInterrupt):
            tg.find("mlp", **ROUNDS, workdir=tmp_path / "run")
    assert (tmp_path / "run" / "run.seed").stat().st_mode & 0o077 == 0
    resumed = tg.find("mlp", **ROUNDS, workdir=tmp_path / "run", resume=True)
    assert resumed.info.seed == seeds.GUESSABLE + 5
    assert same(resumed, tg.find("mlp", **ROUNDS, seed=seeds.GUESSABLE + 5))
    with pytest.raises(ConfigurationError, match="is another search"):
        tg.find("mlp", **ROUNDS, workdir=tmp_path / "run", resume=True, seed=9)
    assert tg.find("mlp", **ROUNDS, workdir=tmp_path / "run", resume=True).info.seed == seeds.GUESSABLE + 5
    assert tg.find("mlp", **ROUNDS, workdir=tmp_path / "run").info.seed == seeds.GUESSABLE + 6


@pytest.mark.parametrize("content", ["seven", "-1", str(2**60), "7" * 70])
def test_a_damaged_seed_is_told_when_a_search_is_resumed(content: str, tmp_path: Path) -> None:
    tg.find("mlp", **SEARCH, workdir=tmp_path)
    (tmp_path / "run.seed").write_text(content)
    with pytest.raises(FileError, match="does not hold a seed|has more than 64 bytes"):
        tg.find("mlp", **SEARCH, workdir=tmp_path, resume=True)


def test_a_search_with_an_owner_follows_from_the_secret() -> None:
    marked, credential = tg.find_marked("mlp", owner=OWNER, secret=SECRET, **MARKING, **SEARCH)
    again, _ = tg.find_marked("mlp", owner=OWNER, secret=credential.vault.secret, **MARKING, **SEARCH)
    other, _ = tg.find_marked("mlp", owner=OWNER, secret=bytes(32), **MARKING, **SEARCH)
    given, _ = tg.find_marked("mlp", owner=OWNER, secret=SECRET, **MARKING, **SEARCH, seed=seeds.seed_of(SECRET))
    assert same(marked, again)
    assert same(marked, given)
    assert not same(marked, other)


def test_embedding_follows_from_the_secret() -> None:
    ticket = tg.find("mlp", **SEARCH)
    marked, again = (tg.embed(ticket, owner=OWNER, secret=SECRET, **MARKING)[0] for _ in range(2))
    given, _ = tg.embed(ticket, owner=OWNER, secret=SECRET, seed=seeds.seed_of(SECRET), **MARKING)
    other, _ = tg.embed(ticket, owner=OWNER, secret=SECRET, seed=5, **MARKING)
    assert same(marked, again)
    assert same(marked, given)
    assert not same(marked, other)


def test_no_ticket_that_is_made_for_release_says_its_seed(tmp_path: Path) -> None:
    seed = seeds.GUESSABLE + 987_654_321
    ticket = tg.find("mlp", **SEARCH, seed=seed)
    embedded, embedding = tg.embed(ticket, owner=OWNER, seed=seed, **MARKING)
    found, finding_ = tg.find_marked("mlp", owner=OWNER, **MARKING, **SEARCH, seed=seed)
    ticket.save(tmp_path / "unmarked")
    assert str(seed).encode() in (tmp_path / "unmarked").read_bytes()
    for marked, credential in ((embedded, embedding), (found, finding_)):
        assert marked.info == dataclasses.replace(ticket.info, seed=None, **measured(marked))
        marked.save(tmp_path / "marked", release=True)
        credential.save(tmp_path / "claim", tmp_path / "vault", OWNER, "one two")
        for path in (tmp_path / "marked", tmp_path / "claim"):
            content = path.read_bytes()
            assert str(seed).encode() not in content
            assert seed.to_bytes(8, "little") not in content
        loaded = tg.Ticket.load(tmp_path / "marked")
        assert loaded.info.seed is None
        verdict = tg.verify(tg.Checkpoint(tmp_path / "marked"), credential)
        assert verdict.status == "supported"
        assert str(seed) not in str(verdict.to_json())
        with pytest.warns(TicketguardWarning, match="the ticket holds no rewind weights"):
            check = tg.check_ticket(loaded, seeds=2, arms=["dense", "ticket", "reinitialised"])
        assert (len(check.arms), check.verdict) == (3, "inconclusive")


def measured(marked: tg.Ticket) -> dict[str, Any]:
    """Return what another run measures otherwise."""
    return {"accuracy": marked.info.accuracy, "cost": marked.info.cost, "history": marked.info.history}


def test_a_mark_beside_a_seed_that_can_be_guessed_is_warned_of() -> None:
    ticket = tg.find("mlp", **SEARCH, seed=0)
    with pytest.warns(TicketguardWarning, match="seed 0 can be guessed: who does has the unmarked ticket again"):
        tg.embed(ticket, owner=OWNER, **MARKING)
    with pytest.warns(TicketguardWarning, match="seed 4294967295 can be guessed: who does has the weights that the"):
        tg.find_marked("mlp", owner=OWNER, **MARKING, **SEARCH, seed=seeds.GUESSABLE - 1)


def test_nothing_is_said_of_seeds_that_give_nothing_away() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tg.embed(tg.find("mlp", **SEARCH, seed=seeds.GUESSABLE), owner=OWNER, **MARKING)
        ticket = tg.find("mlp", **SEARCH, seed=0)
        # Triggers are in no weight.
        tg.prepare(ticket, owner=OWNER, marks=[tg.TriggerSet()])
        # A search from weights that were given draws the order of the data by its seed, and signs alone hide no edges.
        given = {"rewind": ticket.start_weights, "seed": 0}
        tg.find_marked("mlp", owner=OWNER, **MARKING, **SEARCH, **given)
        tg.find_marked("mlp", owner=OWNER, marks=[tg.KeyedSigns()], level_bits=16, **SEARCH, seed=0)
