"""What passes say together, told from made-up passes: when the second is made, what is paid, and what leaves doubts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from ticketguard.graph.alignment import Alignment
from ticketguard.verification import doubts
from ticketguard.verification.decoys import LEAST_DECOYS, MOST_DECOYS, decoy_bindings
from ticketguard.verification.outcome import Outcome
from ticketguard.verification.passes import Passes
from ticketguard.verification.verdict import Evidence

CLEAR = Alignment(streams=(), orders=(), overlap=0.9, deviations=50.0, is_found=True, is_clear=True)
LOST = dataclasses.replace(CLEAR, overlap=0.1, deviations=0.2, is_found=False, is_clear=False)
UNCLEAR = dataclasses.replace(CLEAR, is_clear=False)
NOTHING_AMISS: dict[str, Any] = {
    "missing_layers": [],
    "unreadable_layers": [],
    "unreadable_networks": [],
    "values_not_finite": [],
}
THRESHOLD = -20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """What a made-up pass shows."""

    log10_p: float
    attainable_log10_p: float = -100.0


class MadeUp:
    """One pass as stored, and one aligned, which are counted as they are."""

    def __init__(
        self, *, stored: Shown, aligned: Shown, thorough: bool = False, alignments: Sequence[Alignment] = (CLEAR,)
    ) -> None:
        self.thorough, self.alignments = thorough, alignments
        self._stored, self._aligned = stored, aligned
        self.was_aligned = False

    @property
    def stored(self) -> Any:
        return ((self._stored, "as stored", None),)

    @property
    def aligned(self) -> Any:
        self.was_aligned = True
        return ((self._aligned, "aligned", self.alignments[0]),)


def outcome_of(passes: MadeUp, *, looks: int = 10) -> Outcome[Shown]:
    return Outcome.of(cast(Passes[Shown], passes), lambda seen: seen, looks=looks, threshold_log10_p=THRESHOLD)


def said(outcome: Outcome[Shown], **details: Any) -> Evidence:
    return outcome.evidence(
        mark="a mark",
        reading={"reading": "as stored"},
        statistic="edges",
        observed=3,
        expected=1.5,
        details={**NOTHING_AMISS, **details},
        assumptions=("none",),
    )


def of_one(log10_p: float, *, attainable: float = -100.0, alignments: Sequence[Alignment] = (CLEAR,)) -> Evidence:
    shown = Shown(log10_p=log10_p, attainable_log10_p=attainable)
    return said(outcome_of(MadeUp(stored=shown, aligned=shown, alignments=alignments)))


@pytest.mark.parametrize(
    ("stored", "thorough", "is_aligned"),
    [
        (-21.0, False, False),  # at the threshold once ten looks are paid for
        (-20.99, False, True),
        (-20.0, False, True),
        (-99.0, True, True),
    ],
)
def test_a_suspect_is_aligned_where_what_is_stored_does_not_pay_for_all_looks(
    stored: float, thorough: bool, is_aligned: bool
) -> None:
    passes = MadeUp(stored=Shown(log10_p=stored), aligned=Shown(log10_p=-1.0), thorough=thorough)
    outcome = outcome_of(passes)
    assert passes.was_aligned == is_aligned
    assert list(outcome.alignments) == ([CLEAR] if is_aligned else [])
    found = said(outcome)
    assert found.details["read_to_the_end"] == is_aligned
    # The weaker pass changes nothing.
    assert (found.log10_p, found.details["looks"], found.details["aligned"]) == (stored + 1, 10, False)
    assert found.details["log10_p_uncorrected"] == stored
    assert found.status == ("supported" if stored + 1 <= THRESHOLD else "inconclusive")


def test_the_stronger_pass_is_what_evidence_rests_on() -> None:
    outcome = outcome_of(MadeUp(stored=Shown(log10_p=-2.0), aligned=Shown(log10_p=-40.0)))
    assert outcome.best.log10_p == -40.0
    assert cast(Any, outcome.network) == "aligned"
    assert outcome.alignment is CLEAR
    found = said(outcome)
    assert (found.status, found.log10_p, found.details["aligned"]) == ("supported", -39.0, True)


@pytest.mark.parametrize(("stored", "aligned"), [(-30.0, -4.0), (-4.0, -30.0)])
def test_a_copy_could_have_shown_what_the_most_powerful_pass_would(stored: float, aligned: float) -> None:
    passes = MadeUp(
        stored=Shown(log10_p=-1.0, attainable_log10_p=stored), aligned=Shown(log10_p=-1.5, attainable_log10_p=aligned)
    )
    outcome = outcome_of(passes)
    assert outcome.attainable_log10_p == -30.0
    assert said(outcome).status == "not_supported"


def test_no_p_is_above_one() -> None:
    found = of_one(-0.25)
    assert found.log10_p == 0.0
    assert outcome_of(MadeUp(stored=Shown(log10_p=-3), aligned=Shown(log10_p=-3))).corrected(-0.5) == 0.0


@pytest.mark.parametrize(("attainable", "is_short"), [(-21.0, False), (-20.99, True), (-20.0, True), (-0.1, True)])
def test_an_untouched_copy_pays_for_the_same_looks(attainable: float, is_short: bool) -> None:
    found = of_one(-1.0, attainable=attainable)
    assert found.status == ("inconclusive" if is_short else "not_supported")
    assert found.details.get("why") == ([doubts.TOO_LITTLE] if is_short else None)
    assert found.details["attainable_log10_p"] == min(0.0, attainable + 1)


def test_what_is_above_chance_and_below_the_level_says_so() -> None:
    assert of_one(-7.0).details["why"] == [doubts.IN_BETWEEN]
    assert of_one(-7.0, attainable=-2.0).details["why"] == [doubts.TOO_LITTLE]
    assert "why" not in of_one(-6.9).details


def test_a_supported_claim_has_no_doubts() -> None:
    passes = MadeUp(stored=Shown(log10_p=-50.0), aligned=Shown(log10_p=-50.0), alignments=(LOST,), thorough=True)
    found = said(outcome_of(passes), missing_layers=["fc2.weight"])
    assert (found.status, "why" in found.details) == ("supported", False)


PART = dataclasses.replace(LOST, is_part=True)


@pytest.mark.parametrize(
    ("alignments", "why"),
    [
        ((CLEAR, CLEAR), []),
        ((LOST, LOST), [doubts.NOT_ALIGNED]),
        ((CLEAR, LOST), [doubts.ONE_NOT_ALIGNED]),
        ((CLEAR, UNCLEAR), [doubts.PARTLY_ALIGNED]),
        ((LOST, dataclasses.replace(LOST, complete=False)), [doubts.NOT_ALIGNED, doubts.CUT_SHORT]),
        ((CLEAR, dataclasses.replace(UNCLEAR, complete=False)), [doubts.PARTLY_ALIGNED, doubts.CUT_SHORT]),
        # Where all of it was recognised nothing is left to look for.
        ((CLEAR, dataclasses.replace(CLEAR, complete=False)), []),
        ((CLEAR, PART), [doubts.ONE_NOT_ALIGNED, doubts.ONLY_PART]),
    ],
)
def test_what_was_not_recognised_acquits_nobody(alignments: Sequence[Alignment], why: list[str]) -> None:
    found = of_one(-1.0, alignments=alignments)
    assert found.details.get("why", []) == why
    assert found.status == ("inconclusive" if why else "not_supported")
    assert found.details["read_to_the_end"] == (PART not in alignments)


@pytest.mark.parametrize(
    ("details", "is_doubted"),
    [
        ({"missing_layers": ["a"]}, True),
        ({"unreadable_layers": [{"layer": "a", "reason": "b"}]}, True),
        ({"unreadable_networks": ["a."]}, True),
        ({"values_not_finite": [{"layer": "a", "values": 5, "of": 10}]}, True),
        ({"values_not_finite": [{"layer": "a", "values": 4, "of": 10}]}, False),
        (
            {
                "values_not_finite": [
                    {"layer": "a", "values": 1, "of": 10},
                    {"layer": "b", "values": 9, "of": 10},
                ]
            },
            True,
        ),
    ],
)
def test_what_could_not_be_read_acquits_nobody(details: dict[str, Any], is_doubted: bool) -> None:
    shown = Shown(log10_p=-1.0)
    found = said(outcome_of(MadeUp(stored=shown, aligned=shown)), **details)
    assert found.details.get("why", []) == ([doubts.LAYERS_ARE_MISSING] if is_doubted else [])
    assert found.status == ("inconclusive" if is_doubted else "not_supported")


def test_how_a_suspect_lay_is_said_of_what_evidence_rests_on() -> None:
    """Of what was read as stored, the overlap of the alignment that recognised most, and no channel out of place."""
    moved = dataclasses.replace(CLEAR, orders=(np.array([1, 0, 2]),))
    first = said(outcome_of(MadeUp(stored=Shown(log10_p=-2), aligned=Shown(log10_p=-1), alignments=(LOST, moved))))
    shown = (first.details["channels_out_of_place"], first.details["alignment_overlap"])
    assert (*shown, first.details["alignment_deviations"]) == (0, 0.9, 50.0)
    second = said(outcome_of(MadeUp(stored=Shown(log10_p=-1), aligned=Shown(log10_p=-2), alignments=(moved, LOST))))
    assert (second.details["channels_out_of_place"], second.details["alignment_overlap"]) == (2, 0.9)
    third = said(outcome_of(MadeUp(stored=Shown(log10_p=-1), aligned=Shown(log10_p=-2), alignments=(LOST, moved))))
    assert (third.details["channels_out_of_place"], third.details["alignment_overlap"]) == (0, 0.1)


@pytest.mark.usefixtures("all_decoys")
@pytest.mark.parametrize(
    ("positions", "count"), [(1, MOST_DECOYS), (0, MOST_DECOYS), (1000, 7), (1001, 6), (9000, LEAST_DECOYS)]
)
def test_decoys_are_few_where_one_costs_much_and_nobodys(positions: int, count: int) -> None:
    commitment = bytes(range(32))
    decoys = decoy_bindings(commitment, positions=positions, most_positions=7000)
    assert len({decoy.secret for decoy in decoys}) == len(decoys) == count
    assert {decoy.commitment for decoy in decoys} == {commitment}
    other = decoy_bindings(bytes(32), positions=positions, most_positions=7000)
    assert not {decoy.secret for decoy in decoys} & {decoy.secret for decoy in other}
    assert math.log2(len(decoys[0].secret)) == 5
