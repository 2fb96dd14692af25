"""Which marks a claim can be made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import EVE, TICKET, mark, planted_mark, signed, trigger_mark
from ticketguard.errors import ConfigurationError
from ticketguard.verification.registry import checked_marks, marks_read_from, usual_marks

NO_LEVELS = (-5, 64.5, float("nan"), float("inf"), "64", True, None)
GRAPH, TRIGGERS = tg.PlantedGraph(), tg.TriggerSet(100)


@pytest.mark.parametrize("marks", [[], [GRAPH, GRAPH], [GRAPH, TRIGGERS, tg.TriggerSet(5)]])
def test_marks_are_one_or_more_each_scheme_once(marks: list[tg.PlantedGraph | tg.TriggerSet]) -> None:
    assert checked_marks([GRAPH, TRIGGERS]) == (GRAPH, TRIGGERS)
    with pytest.raises(ConfigurationError, match="expected at least one, and each scheme once"):
        checked_marks(marks)


def test_marks_are_read_from_what_their_scheme_says() -> None:
    planted, triggers, later = planted_mark(), trigger_mark(version=9), mark("some-later-mark", {})
    assert marks_read_from([planted, triggers, later], "weights") == [planted]
    assert marks_read_from([planted, triggers, later], "answers") == [triggers]


def test_levels_are_those_that_a_claim_can_have() -> None:
    suspect, credential = tg.Checkpoint(dict(TICKET.weights)), signed(planted_mark())
    graph = tg.PlantedGraph(share=0.1, secret_share=0.03)
    for level_bits in (1, np.int64(64)):
        plan = tg.prepare(TICKET, owner=EVE, marks=[graph], level_bits=level_bits)  # type: ignore[arg-type]
        assert plan.claims[0].level_bits == level_bits
    for level_bits in (1, 256, 400, np.int64(64)):
        assert tg.verify(suspect, credential, level_bits=level_bits).status != "supported"  # type: ignore[arg-type]
    for bad in (0, 257, 10**400, *NO_LEVELS):
        with pytest.raises(ConfigurationError, match="expected 1 to 256 bits|level_bits is .*, expected a whole"):
            tg.prepare(TICKET, owner=EVE, marks=[graph], level_bits=bad)  # type: ignore[arg-type]
    for bad in (0, 10**400, *NO_LEVELS):
        with pytest.raises(ConfigurationError, match="expected 1 to 1048576 bits|level_bits is .*, expected a whole"):
            tg.verify(suspect, credential, level_bits=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("marks", [GRAPH, 3])
def test_a_mark_alone_is_told_to_be_a_list(marks: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a list of them, such as \[tg.PlantedGraph\(\)\]"):
        tg.prepare(TICKET, owner=EVE, marks=marks)


@pytest.mark.parametrize(
    ("classes", "shape", "names"),
    [
        (10, (1, 8, 8), ["planted-graph", "trigger-set"]),
        (2, (7,), ["planted-graph", "trigger-set"]),
        (1, (7,), ["planted-graph"]),
        (10, (8, 8), ["planted-graph"]),
        (0, (), ["planted-graph"]),
    ],
)
def test_triggers_are_usual_where_the_ticket_says_its_classes_and_inputs(
    classes: int, shape: tuple[int, ...], names: list[str]
) -> None:
    info = tg.TicketInfo(method="random", classes=classes, input_shape=shape)
    assert [mark.scheme for mark in usual_marks(info)] == names
