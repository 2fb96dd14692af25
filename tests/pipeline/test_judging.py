"""A judge gives the verdicts that `verify` gives, and a screen that is none."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import (
    GROUPS,
    SHAPES,
    TICKET,
    marked_weights,
    permuted,
    planted_mark,
    signed,
    trigger_mark,
    unmarked_ticket,
)
from ticketguard.embedding import planted_graph
from ticketguard.errors import ConfigurationError, CredentialError, UnverifiableError
from ticketguard.ticket import Ticket

MARK = planted_mark(groups=GROUPS)
MARKED = marked_weights(MARK)
OTHER_TICKET = unmarked_ticket(seed=7)
WIDE_TICKET = unmarked_ticket({"conv.weight": (16, 8, 3, 3)}, seed=8)


def credential_of(ticket: Ticket) -> tg.Credential:
    reference = ticket.reference()
    return signed(planted_mark(reference=reference), reference=reference)


@pytest.fixture(scope="module")
def judge() -> tg.Judge:
    return tg.Judge(
        {
            "wide": credential_of(WIDE_TICKET),
            "other": credential_of(OTHER_TICKET),
            "own": signed(MARK, groups=GROUPS),
            "answers only": signed(trigger_mark()),
        }
    )


SUSPECTS: dict[str, dict[str, Any]] = {
    "a copy": MARKED,
    "a permuted copy": permuted(MARKED),
    "a padded copy": {
        "fc1.weight": np.vstack([MARKED["fc1.weight"], MARKED["fc1.weight"][:9]]),
        "fc2.weight": np.hstack([MARKED["fc2.weight"], MARKED["fc2.weight"][:, :9] * 0]),
    },
    "the unmarked ticket": dict(TICKET.weights),
    "an innocent network": dict(OTHER_TICKET.weights),
    "nothing but zeros": {name: np.zeros(shape, dtype=np.float32) for name, shape in SHAPES.items()},
}


@pytest.mark.parametrize("name", SUSPECTS)
def test_a_judges_verdicts_are_those_of_verify_bit_for_bit(judge: tg.Judge, name: str) -> None:
    checkpoint = tg.Checkpoint(SUSPECTS[name])
    for credential_id in ("own", "other"):
        expected = tg.verify(checkpoint, judge.credentials[credential_id], level_bits=200)
        for _ in ("drawn", "from memory"):
            assert judge.verify(checkpoint, credential_id, level_bits=200).to_json() == expected.to_json()


def test_without_memory_verdicts_are_the_same() -> None:
    forgetful = tg.Judge({"own": signed(MARK, groups=GROUPS)}, memory_bytes=0)
    checkpoint = tg.Checkpoint(MARKED)
    assert forgetful.verify(checkpoint, "own") == tg.verify(checkpoint, forgetful.credentials["own"])


def test_secret_edges_are_drawn_for_the_first_suspect_only(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = tg.Judge({"own": signed(MARK, groups=GROUPS)})
    drawn: list[bytes] = []
    draw = planted_graph.secret_edges

    def counted(binding: Any, *arguments: Any, **options: Any) -> Any:
        drawn.append(binding.secret)
        return draw(binding, *arguments, **options)

    monkeypatch.setattr(planted_graph, "secret_edges", counted)
    secret = judge.credentials["own"].vault.secret
    for suspect in SUSPECTS.values():
        judge.verify(tg.Checkpoint(suspect), "own")
        judge.screen(tg.Checkpoint(suspect))
    assert drawn.count(secret) == len(SHAPES)  # decoys are drawn each time


def test_what_stands_out_comes_first_and_what_cannot_be_read_last(judge: tg.Judge) -> None:
    screening = judge.screen(tg.Checkpoint(MARKED))
    assert [found.credential_id for found in screening.candidates] == ["own", "other", "wide", "answers only"]
    assert [found.standing for found in screening.candidates[:2]] == ["stands_out", "unclear"]
    assert screening.worth_verifying() == ("own",)


def test_a_permuted_copy_is_unclear_at_first_sight_and_supported_by_a_verdict(judge: tg.Judge) -> None:
    checkpoint = tg.Checkpoint(permuted(MARKED))
    screening = judge.screen(checkpoint)
    assert screening.worth_verifying() == ()
    assert set(screening.worth_verifying(rebuilt=True)) == {"own", "other"}
    assert judge.verify(checkpoint, "own").status == "supported"


def test_a_padded_copy_is_not_ruled_out(judge: tg.Judge) -> None:
    assert "own" in judge.screen(tg.Checkpoint(SUSPECTS["a padded copy"])).worth_verifying(rebuilt=True)


def test_the_unmarked_ticket_is_worth_a_verdict_which_does_not_support(judge: tg.Judge) -> None:
    checkpoint = tg.Checkpoint(dict(TICKET.weights))
    assert judge.screen(checkpoint).worth_verifying() == ("own",)
    assert judge.verify(checkpoint, "own").status == "not_supported"


def test_what_is_unverifiable_is_what_verify_refuses_with_the_same_reason(judge: tg.Judge) -> None:
    damaged = {name: np.full(shape, np.nan, dtype=np.float32) for name, shape in SHAPES.items()}
    for suspect in (*SUSPECTS.values(), damaged, {"x.weight": np.ones((3, 3), dtype=np.float32)}):
        checkpoint = tg.Checkpoint(suspect)
        for found in judge.screen(checkpoint).candidates:
            if found.standing == "unverifiable":
                with pytest.raises(UnverifiableError) as refused:
                    judge.verify(checkpoint, found.credential_id)
                assert found.reason == str(refused.value)
            else:
                judge.verify(checkpoint, found.credential_id)


def test_a_first_sight_counts_what_the_examination_counts(judge: tg.Judge) -> None:
    """Of a sparse copy it is one of the readings of an examination, before correction."""
    checkpoint = tg.Checkpoint(MARKED)
    (found,) = (each for each in judge.screen(checkpoint).candidates if each.credential_id == "own")
    assert found.glance is not None
    (evidence,) = judge.verify(checkpoint, "own").evidence
    assert found.glance.log10_p == pytest.approx(evidence.details["log10_p_uncorrected"], rel=1e-12)
    assert found.glance.likeness > 0.85


@pytest.mark.parametrize(("count", "bits"), [(1, 64), (2, 65), (3, 66), (4, 66)])
def test_whoever_reports_the_best_of_several_pays_for_all(count: int, bits: int) -> None:
    screening = tg.Judge({str(index): signed(MARK, groups=GROUPS) for index in range(count)}).screen(
        tg.Checkpoint(MARKED)
    )
    assert screening.screened == count
    assert screening.level_bits() == bits
    # All of them together are wrong with probability 2^-64 at most.
    assert screening.screened * 2.0 ** -screening.level_bits() <= 2.0**-64


def test_a_vault_that_is_not_the_claims_is_named() -> None:
    own = signed(MARK, groups=GROUPS)
    wrong = dataclasses.replace(own, vault=dataclasses.replace(own.vault, secret=bytes(32)))
    with pytest.raises(CredentialError, match="credential 'mallory': the vault does not belong to the claim"):
        tg.Judge({"own": own, "mallory": wrong})


def test_a_credential_that_cannot_be_used_does_not_take_the_others_with_it() -> None:
    malformed = ((("fc1.weight", 0, 1, 0, 201),),)
    judge = tg.Judge(
        {"malformed": signed(planted_mark(groups=malformed), groups=malformed), "own": signed(MARK, groups=GROUPS)}
    )
    first, last = judge.screen(tg.Checkpoint(MARKED)).candidates
    assert (first.credential_id, first.standing) == ("own", "stands_out")
    assert (last.credential_id, last.standing) == ("malformed", "unverifiable")
    assert "channel groups are malformed" in last.reason


def test_what_is_given_has_to_be_what_it_says(judge: tg.Judge) -> None:
    with pytest.raises(ConfigurationError, match="there are no credentials, expected one or more"):
        tg.Judge({})
    with pytest.raises(ConfigurationError, match="the credentials is of type list|the credentials"):
        tg.Judge([signed(MARK, groups=GROUPS)])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="credential 'own' is of type str, expected Credential"):
        tg.Judge({"own": "claim.json"})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="memory_bytes is -1, expected 0 or more"):
        tg.Judge({"own": signed(MARK, groups=GROUPS)}, memory_bytes=-1)
    with pytest.raises(ConfigurationError, match="there is no credential 'nobody', expected one of 'wide', 'other'"):
        judge.verify(tg.Checkpoint(MARKED), "nobody")
    with pytest.raises(ConfigurationError, match="the suspect is of type dict, expected Checkpoint"):
        judge.screen(MARKED)  # type: ignore[arg-type]
