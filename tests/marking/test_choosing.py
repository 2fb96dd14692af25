"""The smallest mark that survives what it is to survive, chosen before anything is planted."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import EVE
from tests.verification.coded import TICKET as COARSE
from tests.verification.residual import residual_ticket
from tests.verification.stolen import THEFTS, of_densities
from ticketguard.embedding.interface import Binding, Start
from ticketguard.errors import ConfigurationError
from ticketguard.marking.choosing import SURVIVE, MarkChoice, choose_marks, marks_that_survive
from ticketguard.ticket import Ticket
from ticketguard.verification.planted_graph.counting import ReadSuspect, count_hits
from ticketguard.verification.planted_graph.sizes import PlantedSize

RESIDUAL = functools.cache(residual_ticket)


@functools.cache
def usual_choice() -> MarkChoice:
    return choose_marks(RESIDUAL())


def settings_of(choice: MarkChoice) -> dict[str, float]:
    assert choice.chosen is not None
    return dict(choice.chosen.size.settings)


def test_the_first_size_that_keeps_the_level_after_every_theft_is_chosen() -> None:
    choice = usual_choice()
    assert settings_of(choice) == {"share": 0.015, "secret_share": 0.014}
    required = [theft.name for theft in choice.survive]
    assert required == list(SURVIVE)
    # Two usual marks, 64 bits.
    assert choice.needed_log10_p == pytest.approx(-65 * math.log10(2))
    for sized in choice.sizes:
        weakest = max(seen.unlucky_log10_p for seen in sized.foreseen if seen.theft.name in required)
        assert sized.keeps == (weakest <= 1.5 * choice.needed_log10_p)
        assert all(seen.unlucky_log10_p >= seen.log10_p for seen in sized.foreseen)
    # Sizes begin where an untouched copy has enough.
    assert choice.sizes[0].foreseen[0].unlucky_log10_p <= choice.needed_log10_p
    assert [sized.keeps for sized in choice.sizes] == [False] * (len(choice.sizes) - 4) + [True] * 4


def test_the_marks_are_the_wanted_ones_with_the_chosen_size() -> None:
    ticket = of_densities(0.15, 0.06, 0.4)
    choice = choose_marks(ticket, marks=[tg.TriggerSet(30), tg.PlantedGraph(rate=0.1, every_steps=5)])
    assert choice.marks == (
        tg.TriggerSet(30),
        tg.PlantedGraph(rate=0.1, every_steps=5, share=0.05, secret_share=0.03),
    )


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 0.05),
        ({"survive": "untouched"}, 0.005),
        ({"survive": ["pruned-80", "rewired-50"]}, 0.1),
        ({"survive": ["pruned-80+regrown-100"]}, 0.2),
        ({"level_bits": 128}, 0.1),
        ({"margin": 1.0}, 0.03),
        ({"marks": [tg.PlantedGraph(secret_share=0.05)]}, 0.05),
        # Without signs a mark has to be larger.
        ({"marks": [tg.PlantedGraph(secret_share=0.05, signed=False)]}, 0.07),
    ],
)
def test_what_is_asked_for_decides_the_size(changes: dict[str, object], share: float) -> None:
    assert settings_of(choose_marks(of_densities(0.15, 0.06, 0.4), **changes))["share"] == share  # type: ignore[arg-type]


def test_a_theft_of_ones_own_is_shown_beside_the_usual_ones() -> None:
    choice = choose_marks(of_densities(0.15, 0.06, 0.4), survive=["pruned-30", "pruned-50"])
    names = [seen.theft.name for seen in choice.sizes[0].foreseen]
    assert names[0] == "untouched"
    assert names[-1] == "pruned-30"
    assert names.count("pruned-50") == 1


def read(choice: MarkChoice, ticket: Ticket, key: int, theft: str) -> float:
    """Plant the chosen mark, steal it, and return what is read, the looks paid for."""
    assert choice.chosen is not None
    size = choice.chosen.size
    assert isinstance(size, PlantedSize)
    binding = Binding(secret=key.to_bytes(32, "little"), commitment=bytes(32))
    start = Start(mask=ticket.mask, weights=ticket.weights)
    planned = size.mark.plan(ticket, start, binding, size.mark.parameters(ticket))
    weights = THEFTS[theft](dict(planned.start.weights), np.random.default_rng(key))
    read = ReadSuspect.of(weights, ticket.reference(), size.parameters)
    (found, *_) = count_hits(read, binding, size.parameters)
    return min(found.results) + math.log10(choice.looks)


@pytest.mark.parametrize(
    ("make", "theft"),
    [
        (RESIDUAL, "pruned-80"),
        (lambda: of_densities(0.15, 0.06, 0.4), "regrown-100"),
        (lambda: of_densities(0.15, 0.06, 0.4), "rewired-50"),
        (lambda: of_densities(0.15, 0.06, 0.4), "channels-25+pruned-50"),
        (lambda: of_densities(1.0, 1.0, 1.0), "pruned-50"),
    ],
)
def test_a_chosen_mark_proves_ownership_after_its_theft(make: Callable[[], Ticket], theft: str) -> None:
    ticket = make()
    choice = choose_marks(ticket, survive=[theft])
    for key in range(5):
        assert read(choice, ticket, key, theft) <= choice.needed_log10_p


def test_a_chosen_mark_has_room_and_is_embedded() -> None:
    ticket = of_densities(0.15, 0.06, 0.4)
    for survive in ("untouched", "pruned-80"):
        choice = choose_marks(ticket, survive=survive)
        for key in range(4):
            plan = tg.prepare(ticket, owner=EVE, marks=choice.marks, secret=key.to_bytes(32, "little"))
            assert plan.claims[0].parameters["share_ppm"] == round(1e6 * settings_of(choice)["share"])


@pytest.mark.parametrize(
    ("ticket", "survive", "message"),
    [
        (
            of_densities(0.15, 0.06, 0.4),
            ["pruned-99", "pruned-50"],
            r"no planted-graph keeps a level of 64 bits in this ticket: with share 0\.3 and secret_share 0\.1, "
            r"pruned-99 leaves 10\^-[\d.]+, and 10\^-29\.4 is needed: name weaker thefts, lower the level, or find",
        ),
        (of_densities(1.0, 1.0, 1.0), ["regrown-100"], r"share 0\.15 .*, regrown-100 leaves 10\^0\.0, and"),
        (of_densities(0.0, 0.0, 0.0), ["pruned-50"], "in this ticket, which has no room for one: name weaker thefts"),
        (of_densities(0.0, 0.0015, 0.0), ["untouched"], "even an untouched copy would leave too little"),
    ],
)
def test_what_no_size_survives_is_told(ticket: Ticket, survive: list[str], message: str) -> None:
    choice = choose_marks(ticket, survive=survive)
    assert choice.chosen is None
    with pytest.raises(ConfigurationError, match=message):
        _ = choice.marks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"survive": ["melted-5"]}, "unknown theft 'melted'"),
        ({"margin": 0.9}, r"margin is 0\.9, expected 1 or more"),
        ({"margin": math.nan}, "margin is nan, expected 1 or more"),
        ({"margin": "2"}, "margin is '2', expected a number"),
        ({"level_bits": 0}, r"level is 2\^-0"),
        ({"marks": [tg.TriggerSet()]}, "marks are trigger-set: none has a size to choose"),
    ],
)
def test_what_cannot_be_asked_for_is_told(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose_marks(RESIDUAL(), **changes)  # type: ignore[arg-type]


def test_only_a_ticket_is_looked_at() -> None:
    with pytest.raises(ConfigurationError, match=r"the ticket is of type str, expected Ticket: tg\.Ticket\.load"):
        choose_marks("ticket.safetensors")  # type: ignore[arg-type]


def test_all_marks_that_have_a_size_are_sized_at_once() -> None:
    """A code beside a planted graph kept its usual size, whatever it was to survive."""
    marks = (tg.PlantedGraph(), tg.QrCode(text="ACME-1"))
    planted, code = marks_that_survive(COARSE, survive=["pruned-20"], marks=marks)
    assert isinstance(planted, tg.PlantedGraph)
    assert isinstance(code, tg.QrCode)
    assert planted.share < 0.05
    assert code.code().edges < tg.QrCode(text="ACME-1").code().edges
    alone = tg.choose_marks(COARSE, survive=["pruned-20"], marks=marks, scheme_to_size="qr-code")
    assert (alone.scheme, alone.marks) == ("qr-code", (marks[0], code))
    with pytest.raises(ConfigurationError, match="marks are trigger-set: none has a size to choose"):
        marks_that_survive(COARSE, survive=["pruned-20"], marks=[tg.TriggerSet()])
