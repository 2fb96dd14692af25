"""Looking on where the evidence is enough: p gets smaller, and no verdict changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ticketguard as tg
from tests.verification.claims import (
    GROUPS,
    SECRET,
    TICKET,
    evidence,
    marked_weights,
    planted_mark,
    signed,
    trigger_mark,
    triggers_of,
)
from tests.verification.claims import Suspect as Answering
from tests.verification.questioning import COUNT, Suspect, details, no_answer
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.graph import groups_from_json
from ticketguard.verification.interface import own_parameters
from ticketguard.verification.planted_graph.examination import examine_networks
from ticketguard.verification.ways import likeliest_way

MARK = planted_mark(groups=GROUPS)
CREDENTIAL = signed(MARK, groups=GROUPS)
MARKED = marked_weights(MARK)


def partly_permuted(weights: dict[str, np.ndarray], *, channels: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the weights with so many of the 200 hidden channels in another order."""
    generator = np.random.default_rng(seed)
    moved = generator.choice(200, size=channels, replace=False)
    order = np.arange(200)
    order[moved] = generator.permutation(moved)
    return {"fc1.weight": weights["fc1.weight"][order], "fc2.weight": weights["fc2.weight"][:, order]}


def test_a_copy_that_is_enough_as_stored_is_aligned_and_shows_all_it_has() -> None:
    suspect = partly_permuted(MARKED, channels=100)
    untouched, stored = evidence(MARKED, CREDENTIAL), evidence(suspect, CREDENTIAL)
    found = evidence(suspect, CREDENTIAL, thorough=True)
    assert (stored.status, found.status) == ("supported", "supported")
    assert (stored.details["aligned"], found.details["aligned"]) == (False, True)
    assert (stored.details["read_to_the_end"], found.details["read_to_the_end"]) == (False, True)
    assert stored.details["looks"] == found.details["looks"]
    assert found.log10_p == untouched.log10_p < stored.log10_p - 20
    assert found.details["channels_out_of_place"] > 90


def test_what_is_stored_in_order_is_read_to_the_end_and_shows_the_same() -> None:
    found, quick = evidence(MARKED, CREDENTIAL, thorough=True), evidence(MARKED, CREDENTIAL)
    assert (found.status, found.log10_p) == (quick.status, quick.log10_p)
    assert (found.details["read_to_the_end"], quick.details["read_to_the_end"]) == (True, False)


def test_what_is_not_enough_as_stored_is_read_to_the_end_unasked() -> None:
    for weights in (partly_permuted(MARKED, channels=200), TICKET.weights):
        quick, found = evidence(weights, CREDENTIAL), evidence(weights, CREDENTIAL, thorough=True)
        assert quick.details["read_to_the_end"]
        assert quick == found


def test_what_is_enough_only_while_nobody_pays_for_the_looks_is_read_to_the_end() -> None:
    reference, binding = TICKET.reference(), Binding(secret=SECRET, commitment=MARK.commitment)
    parameters, groups = PlantedParameters.from_json(own_parameters(MARK)), groups_from_json(GROUPS)
    suspect = tg.Checkpoint(partly_permuted(MARKED, channels=100))
    paid = evidence(suspect, CREDENTIAL).log10_p
    for threshold, is_aligned in ((paid + 0.01, False), (paid - 0.01, True)):
        way = likeliest_way(suspect, reference, groups)
        found = examine_networks(way, binding, parameters, threshold_log10_p=threshold)
        assert (found.status, found.details["aligned"]) == ("supported", is_aligned)


@settings(max_examples=15, deadline=None)
@given(channels=st.integers(0, 200), pruned=st.floats(0, 0.95), seed=st.integers(0, 99), is_marked=st.booleans())
def test_it_never_changes_a_verdict_nor_weakens_it(channels: int, pruned: float, seed: int, is_marked: bool) -> None:
    weights = partly_permuted(dict(MARKED if is_marked else TICKET.weights), channels=channels, seed=seed)
    generator = np.random.default_rng(seed)
    weights = {name: np.where(generator.random(array.shape) < pruned, 0, array) for name, array in weights.items()}
    quick, found = evidence(weights, CREDENTIAL), evidence(weights, CREDENTIAL, thorough=True)
    assert found.status == quick.status
    assert found.log10_p <= quick.log10_p
    assert found.details["looks"] == quick.details["looks"]


def test_a_judge_is_as_thorough() -> None:
    suspect = tg.Checkpoint(partly_permuted(MARKED, channels=100))
    judge = tg.Judge({"own": CREDENTIAL})
    assert judge.verify(suspect, "own", thorough=True) == tg.verify(suspect, CREDENTIAL, thorough=True)


def test_every_trigger_is_asked(credential: tg.Credential, labels: list[int]) -> None:
    quick, thorough = Suspect(labels.__getitem__), Suspect(labels.__getitem__)
    enough, all_of_it = tg.verify(quick, credential), tg.verify(thorough, credential, thorough=True)
    assert (enough.status, all_of_it.status) == ("supported", "supported")
    assert len(quick.asked) < len(thorough.asked) == COUNT
    assert (details(enough)["read_to_the_end"], details(all_of_it)["read_to_the_end"]) == (False, True)
    assert all_of_it.log10_p < 2 * enough.log10_p


@pytest.mark.usefixtures("no_waiting")
def test_a_suspect_that_falls_silent_when_it_is_enough_stays_supported(
    credential: tg.Credential, labels: list[int]
) -> None:
    needed = details(tg.verify(Suspect(labels.__getitem__), credential))["queries"]
    assert isinstance(needed, int)
    suspect = Suspect(lambda number: labels[number] if number < needed else no_answer())
    verdict = tg.verify(suspect, credential, thorough=True, patience_s=0)
    assert verdict.status == "supported"
    assert not details(verdict)["read_to_the_end"]
    assert verdict.was_cut_short


def test_it_goes_on_where_an_earlier_run_had_enough(
    credential: tg.Credential, labels: list[int], tmp_path: Path
) -> None:
    journal = tmp_path / "answers.jsonl"
    suspect = Suspect(labels.__getitem__)
    first = details(tg.verify(suspect, credential, journal=journal))["queries"]
    verdict = tg.verify(suspect, credential, journal=journal, thorough=True)
    assert suspect.asked == list(range(COUNT))
    assert details(verdict)["answers_from_journal"] == first


def test_misses_after_the_level_take_nothing_back() -> None:
    """The e-process may be stopped at any time, so p is 1 over its largest value."""
    mark = trigger_mark()
    labels = triggers_of(mark).labels.tolist()
    right = 30
    suspect = Answering(lambda number: labels[number] if number < right else (labels[number] + 1) % 10)
    found = evidence(suspect, signed(mark), thorough=True)
    enough = evidence(Answering(lambda number: labels[number]), signed(mark))
    assert found.status == "supported"
    assert found.details["queries"] == 60
    assert found.log10_p <= enough.log10_p
