"""Which marks a claim can be made of."""

from __future__ import annotations

import pytest

import ticketguard as tg
from tests.verification.claims import mark, planted_mark, trigger_mark
from ticketguard.errors import ConfigurationError
from ticketguard.verification.registry import checked_marks, marks_read_from, usual_marks

GRAPH, TRIGGERS = tg.PlantedGraph(), tg.TriggerSet(100)


@pytest.mark.parametrize("marks", [[], [GRAPH, GRAPH], [GRAPH, TRIGGERS, tg.TriggerSet(5)]])
def test_marks_are_one_or_more_each_scheme_once(marks: list[tg.PlantedGraph | tg.TriggerSet]) -> None:
    assert checked_marks([GRAPH, TRIGGERS], level_bits=64) == (GRAPH, TRIGGERS)
    with pytest.raises(ConfigurationError, match="expected at least one, and each scheme once"):
        checked_marks(marks, level_bits=64)


def test_marks_are_read_from_what_their_scheme_says() -> None:
    planted, triggers, later = planted_mark(), trigger_mark(version=9), mark("some-later-mark", {})
    assert marks_read_from([planted, triggers, later], "weights") == [planted]
    assert marks_read_from([planted, triggers, later], "answers") == [triggers]


def test_levels_are_those_that_a_claim_can_have() -> None:
    for level_bits in (1, 256):
        assert checked_marks([GRAPH], level_bits=level_bits) == (GRAPH,)
    for level_bits in (0, 257):
        with pytest.raises(ConfigurationError, match=f"level is 2\\^-{level_bits}, expected 1 to 256 bits"):
            checked_marks([GRAPH], level_bits=level_bits)


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
