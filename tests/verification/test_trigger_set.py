"""Questioning a suspect that is down, slow, odd, hostile or another model altogether."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ticketguard as tg
from tests.cli.conftest import unmarked_ticket
from tests.verification.questioning import CLASSES, COUNT, Suspect, details, no_answer, unusable
from ticketguard.errors import ConfigurationError, CredentialError, FileError, PredictorError, UnusableAnswerError
from ticketguard.predictors import patience
from ticketguard.verification import journal as journals
from ticketguard.verification import trigger_set as verification

pytestmark = pytest.mark.usefixtures("no_waiting")


def once_each(faults: set[int], labels: list[int]) -> Callable[[int], int | Exception]:
    """A copy that fails once at each question in *faults*."""
    left = set(faults)

    def answer(number: int) -> int | Exception:
        if number in left:
            left.remove(number)
            return no_answer()
        return labels[number]

    return answer


def test_faults_change_nothing_for_a_copy(credential: tg.Credential, labels: list[int]) -> None:
    smooth = tg.verify(Suspect(labels.__getitem__), credential)
    rough = Suspect(once_each({0, 1, 5, 6, 7, 19}, labels))
    told: list[str] = []
    verdict = tg.verify(rough, credential, note=told.append)
    assert verdict.status == "supported"
    assert verdict.to_json() == smooth.to_json()
    assert len(told) == 6
    assert max(rough.asked) == details(verdict)["queries"] - 1  # type: ignore[operator]


def test_what_was_seen_when_patience_ends_is_the_verdict(credential: tg.Credential, labels: list[int]) -> None:
    suspect = Suspect(lambda number: labels[number] if number < 8 else no_answer())
    verdict = tg.verify(suspect, credential, patience_s=10)
    (evidence,) = verdict.evidence
    assert verdict.status == "inconclusive"
    assert verdict.was_cut_short
    assert (evidence.observed, evidence.details["queries"]) == (8, 8)
    assert -8 < evidence.log10_p < -7
    assert "after 8 of 60 triggers, because predictor 's' answered 502 (bad gateway)" in evidence.details["stopped"]
    assert suspect.asked.count(8) == 7  # 0.25 + 0.5 + 1 + 2 + 4 + 2.25 s, and one last time


@pytest.mark.parametrize("stop", [1, 30, COUNT - 1])
@pytest.mark.parametrize(
    "fault", [no_answer(), PredictorError(target="s", reason="answered 401", hint="h")], ids=["fault", "refusal"]
)
def test_a_questioning_that_was_cut_short_never_says_not_supported(
    credential: tg.Credential, labels: list[int], stop: int, fault: Exception
) -> None:
    suspect = Suspect(lambda number: (labels[number] + 1) % CLASSES if number < stop else fault)
    verdict = tg.verify(suspect, credential, patience_s=0)
    assert (verdict.status, verdict.log10_p) == ("inconclusive", 0.0)
    assert len(suspect.asked) == stop + 1


def test_without_a_single_answer_it_could_not_be_checked(credential: tg.Credential) -> None:
    with pytest.raises(tg.NoAnswerError, match="answered 502"):
        tg.verify(Suspect(lambda number: no_answer()), credential, patience_s=0)


def test_a_later_run_goes_on_and_never_asks_twice(credential: tg.Credential, labels: list[int], tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    smooth = tg.verify(Suspect(labels.__getitem__), credential)
    suspect = Suspect(once_each({4, 9, 15}, labels))
    stops = [tg.verify(suspect, credential, patience_s=0, journal=journal) for _ in range(4)]
    assert [verdict.status for verdict in stops] == ["inconclusive"] * 3 + ["supported"]
    assert stops[-1].log10_p == smooth.log10_p
    queries = details(smooth)["queries"]
    assert suspect.asked == sorted([*range(queries), 4, 9, 15])  # type: ignore[call-overload]
    assert [details(verdict)["answers_from_journal"] for verdict in stops] == [0, 4, 9, 15]


def test_a_complete_journal_is_judged_without_a_question(
    credential: tg.Credential, labels: list[int], tmp_path: Path
) -> None:
    journal = tmp_path / "answers.jsonl"
    first = tg.verify(Suspect(labels.__getitem__), credential, journal=journal)
    silent = Suspect(lambda number: no_answer())
    again = tg.verify(silent, credential, journal=journal)
    assert silent.asked == []
    assert (again.status, again.log10_p) == (first.status, first.log10_p)


def test_recorded_answers_are_final(credential: tg.Credential, labels: list[int], tmp_path: Path) -> None:
    """Nobody can choose among runs: what was a miss stays one."""
    journal = tmp_path / "answers.jsonl"
    suspect = Suspect(lambda number: (labels[number] + 1) % CLASSES if number < 5 else no_answer())
    tg.verify(suspect, credential, patience_s=0, journal=journal)
    suspect.answer = labels.__getitem__
    verdict = tg.verify(suspect, credential, journal=journal)
    assert verdict.status == "supported"
    assert details(verdict)["queries"] == verdict.evidence[0].observed + 5


def test_ctrl_c_leaves_the_answers_in_the_journal(credential: tg.Credential, labels: list[int], tmp_path: Path) -> None:
    def interrupted(number: int) -> int:
        if number == 6:
            raise KeyboardInterrupt
        return labels[number]

    suspect = Suspect(interrupted)
    with pytest.raises(KeyboardInterrupt):
        tg.verify(suspect, credential, journal=tmp_path / "answers.jsonl")
    suspect.answer = labels.__getitem__
    tg.verify(suspect, credential, journal=tmp_path / "answers.jsonl")
    assert suspect.asked[:8] == [0, 1, 2, 3, 4, 5, 6, 6]


def test_a_journal_that_cannot_be_used_is_told_before_anything_is_asked(
    credential: tg.Credential, labels: list[int], tmp_path: Path
) -> None:
    journal = tmp_path / "answers.jsonl"
    journal.write_text("notes\n")
    suspect = Suspect(labels.__getitem__)
    with pytest.raises(FileError, match="is not a journal"):
        tg.verify(suspect, credential, journal=journal)
    assert suspect.asked == []
    assert journal.read_text() == "notes\n"


def test_a_disk_that_fills_up_ends_the_questioning_not_the_verdict(
    credential: tg.Credential, labels: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = iter(range(1000))

    def full(handle: int) -> None:
        if next(written) == 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals.os, "fsync", full)
    verdict = tg.verify(Suspect(labels.__getitem__), credential, journal=tmp_path / "answers.jsonl")
    assert verdict.status == "inconclusive"
    assert verdict.evidence[0].observed == 5
    assert "cannot be written (No space left on device)" in str(details(verdict)["stopped"])


def test_unusable_answers_are_misses_and_do_not_stop_a_copy(credential: tg.Credential, labels: list[int]) -> None:
    odd = {0, 1, 2, 3, 10, 11, 12, 20}
    garbage = tg.verify(Suspect(lambda number: unusable() if number in odd else labels[number]), credential)
    misses = tg.verify(Suspect(lambda n: (labels[n] + 1) % CLASSES if n in odd else labels[n]), credential)
    assert garbage.status == misses.status == "supported"
    assert garbage.log10_p == misses.log10_p
    assert details(garbage)["unusable_answers"] == 8


def test_one_unusable_answer_keeps_a_suspect_from_being_cleared(credential: tg.Credential, labels: list[int]) -> None:
    wrong = tg.verify(Suspect(lambda number: (labels[number] + 1) % CLASSES), credential)
    odd = tg.verify(Suspect(lambda number: unusable() if number == 30 else (labels[number] + 1) % CLASSES), credential)
    assert (wrong.status, odd.status) == ("not_supported", "inconclusive")
    assert details(odd)["doubts"] == ["1 of 60 answers were not predictions"]


def test_a_suspect_that_never_predicts_could_not_be_checked_and_burns_few_triggers(
    credential: tg.Credential, tmp_path: Path
) -> None:
    suspect = Suspect(lambda number: unusable())
    with pytest.raises(UnusableAnswerError, match="answered NaN"):
        tg.verify(suspect, credential, journal=tmp_path / "answers.jsonl")
    assert suspect.asked == [0, 1, 2, 3, 4]
    assert not (tmp_path / "answers.jsonl").exists()


def test_one_answer_to_everything_is_inconclusive(credential: tg.Credential) -> None:
    verdict = tg.verify(Suspect(lambda number: 3), credential)
    assert verdict.status == "inconclusive"
    assert details(verdict)["doubts"] == ["every answer was the same class: it did not depend on the input"]


def test_triggers_that_the_claim_does_not_bind_are_not_asked(credential: tg.Credential, labels: list[int]) -> None:
    (mark,) = credential.claim.marks
    claim = dataclasses.replace(credential.claim, marks=(dataclasses.replace(mark, merkle_root=bytes(32)),))
    suspect = Suspect(labels.__getitem__)
    with pytest.raises(CredentialError, match="do not have the claim's Merkle root"):
        tg.verify(suspect, dataclasses.replace(credential, claim=claim))
    assert suspect.asked == []


def test_a_journal_without_questions_is_a_mistake(credential: tg.Credential, tmp_path: Path) -> None:
    weights = tg.Checkpoint(unmarked_ticket().weights)
    with pytest.raises(ConfigurationError, match="a journal and controls go with a suspect that is asked"):
        tg.verify(weights, credential, journal=tmp_path / "answers.jsonl")
    with pytest.raises(ConfigurationError, match="give a single predictor"):
        tg.verify(Suspect(lambda number: 0), credential, answers=Suspect(lambda number: 0))


class Drawn:
    """Triggers of a fresh key, for a test of many keys."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.labels = generator.integers(CLASSES, size=30)

    def each_input(self) -> list[np.ndarray]:
        return list(np.arange(30, dtype=np.float32)[:, None])


class Evasive:
    """Answers constantly, now and then with garbage, and not at all after a while: whatever helps it."""

    target = "evasive"

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def predict(self, inputs: np.ndarray, *, classes: int) -> int:
        chance = self.generator.random()
        if inputs.item() and chance < 0.05:
            raise PredictorError(target="s", reason="answered 403", hint="h")
        if chance < 0.2:
            raise UnusableAnswerError(target="s", reason="answered NaN", hint="h")
        return 3 if chance < 0.6 else int(self.generator.integers(classes))


def test_no_way_to_answer_or_to_stop_reaches_a_level_more_often_than_it_says() -> None:
    generator = np.random.default_rng(0)
    threshold, statuses = np.log10(0.05), []
    for _ in range(400):
        witness = verification.Witness(predictor=Evasive(generator), classes=CLASSES, patience=patience.Patience(0))
        try:
            evidence = verification.interrogate(
                witness,
                Drawn(generator),  # type: ignore[arg-type]
                journals.Journal(),
                threshold_log10_p=threshold,
                controls=None,
            )
        except PredictorError:
            continue  # it never gave an answer that could be used
        statuses.append(evidence.status)
    supported = statuses.count("supported") / 400
    assert 0 < supported <= 0.05
    assert statuses.count("not_supported") / 400 < 0.05  # only of those that answered every trigger
