from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ticketguard.verification.verdict import (
    GREY_LOG10_P,
    Evidence,
    Status,
    Unchecked,
    Verdict,
    conclude,
    decide,
    level_log10,
)


def evidence(status: Status, log10_p: float = 0.0) -> Evidence:
    return Evidence(
        mark="planted-graph",
        status=status,
        statistic="edges",
        observed=0,
        expected=0.0,
        log10_p=log10_p,
        threshold_log10_p=-19.6,
        details={},
        assumptions=(),
    )


@pytest.mark.parametrize(
    ("log10_p", "attainable", "status"),
    [
        (-20.0, -99.0, "supported"),  # at the threshold
        (-20.0, 0.0, "supported"),
        (-19.99, -99.0, "inconclusive"),  # far stronger than chance
        (GREY_LOG10_P, -99.0, "inconclusive"),
        (GREY_LOG10_P + 0.01, -99.0, "not_supported"),
        (GREY_LOG10_P + 0.01, -20.0, "not_supported"),  # a copy would have reached the threshold exactly
        (GREY_LOG10_P + 0.01, -19.99, "inconclusive"),  # a copy would not have
    ],
)
def test_the_three_states_meet_where_they_are_said_to(log10_p: float, attainable: float, status: Status) -> None:
    assert decide(log10_p, threshold_log10_p=-20.0, attainable_log10_p=attainable) == status


MISSING = Unchecked(mark="trigger-set", reason="the endpoint is down")


@pytest.mark.parametrize(
    ("statuses", "unchecked", "together"),
    [
        (["supported", "not_supported"], [], "supported"),
        (["inconclusive", "supported"], [], "supported"),
        (["supported"], [MISSING], "supported"),
        (["not_supported", "not_supported"], [], "not_supported"),
        (["not_supported", "inconclusive"], [], "inconclusive"),
        (["not_supported"], [MISSING], "inconclusive"),
    ],
)
def test_not_supported_is_said_only_if_every_planned_test_says_so(
    statuses: list[Status], unchecked: list[Unchecked], together: Status
) -> None:
    assert conclude([evidence(status) for status in statuses], unchecked) == together


def test_the_smaller_p_of_two_tests_is_doubled() -> None:
    both = evidence("supported", -30.0), evidence("not_supported", -1.0)
    verdict = Verdict(status="supported", suspect="s", owner_name="Ada", owner_public_key="00", evidence=both)
    assert verdict.log10_p == pytest.approx(-30.0 + math.log10(2))


@pytest.mark.parametrize(("others", "unchecked"), [([evidence("not_supported")], ()), ([], (MISSING,))])
def test_the_smallest_p_pays_for_every_planned_test(others: list[Evidence], unchecked: tuple[Unchecked, ...]) -> None:
    verdict = Verdict(
        status="supported",
        suspect="s",
        owner_name="Ada",
        owner_public_key="00" * 32,
        evidence=(evidence("supported", -30.0), *others),
        unchecked=unchecked,
    )
    assert verdict.log10_p == verdict.to_json()["log10_p"] == pytest.approx(-30.0 + math.log10(2))
    assert verdict.tests == verdict.to_json()["tests"] == 2


def test_without_evidence_nothing_is_known() -> None:
    verdict = Verdict(
        status="inconclusive",
        suspect="s",
        owner_name="Ada",
        owner_public_key="00" * 32,
        evidence=(),
        unchecked=(MISSING,),
    )
    assert (verdict.log10_p, verdict.tests, verdict.was_cut_short) == (0.0, 1, False)


def test_two_tests_reach_one_level_no_more_often_than_it_says() -> None:
    """Of innocent suspects with uniform p-values, 2^-3 may reach a level of three bits, by one test or by two."""
    pairs = np.random.default_rng(0).random((20_000, 2))

    def share(tests: int) -> float:
        threshold = level_log10(3, tests=tests)
        statuses = [
            conclude(
                [
                    evidence(decide(math.log10(p), threshold_log10_p=threshold, attainable_log10_p=-99), math.log10(p))
                    for p in pair
                ],
                [],
            )
            for pair in pairs
        ]
        return statuses.count("supported") / len(statuses)

    deviation = math.sqrt(2**-3 * (1 - 2**-3) / len(pairs))
    assert share(2) <= 2**-3 + 3 * deviation
    assert share(1) > 2**-3 + 20 * deviation


def test_a_verdict_was_cut_short_if_a_test_that_was_begun_stopped() -> None:
    """A journal is kept for those alone: what could not be checked at all has nothing to go on with."""

    def verdict(stopped: str | None) -> Verdict:
        item = dataclasses.replace(evidence("inconclusive"), details={"stopped": stopped})
        return Verdict(
            status="inconclusive",
            suspect="s",
            owner_name="Ada",
            owner_public_key="00" * 32,
            evidence=(item, evidence("inconclusive")),
            unchecked=(MISSING,),
        )

    assert verdict("after 8 of 100 triggers").was_cut_short
    assert not verdict(None).was_cut_short
