"""Which marks a claim can be made of."""

from __future__ import annotations

import pytest

import ticketguard as tg
from ticketguard.errors import ConfigurationError
from ticketguard.verification.registry import checked_marks

GRAPH, TRIGGERS = tg.PlantedGraph(), tg.TriggerSet(100)


@pytest.mark.parametrize("marks", [[], [GRAPH, GRAPH], [GRAPH, TRIGGERS, tg.TriggerSet(5)]])
def test_marks_are_one_or_more_each_scheme_once(marks: list[tg.PlantedGraph | tg.TriggerSet]) -> None:
    assert checked_marks([GRAPH, TRIGGERS], level_bits=64) == (GRAPH, TRIGGERS)
    with pytest.raises(ConfigurationError, match="expected at least one, each scheme once"):
        checked_marks(marks, level_bits=64)


def test_levels_are_those_that_a_claim_can_have() -> None:
    for level_bits in (1, 256):
        assert checked_marks([GRAPH], level_bits=level_bits) == (GRAPH,)
    for level_bits in (0, 257):
        with pytest.raises(ConfigurationError, match=f"level is 2\\^-{level_bits}, expected 1 to 256 bits"):
            checked_marks([GRAPH], level_bits=level_bits)
