"""What `plan` foresees of keyed signs, beside what drawn copies show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ticketguard.ticket import Mask, Ticket, TicketInfo
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.keyed_signs.foresight import ORDINARY, foreseen
from ticketguard.verification.thefts import Theft

LOOKS = math.log10(10)


def a_ticket(edges: int = 10_000) -> Ticket:
    mask = np.zeros((1000, 100), dtype=np.bool_)
    mask.reshape(-1)[:edges] = True
    weights = {"a": mask.astype(np.float32)}
    info = TicketInfo(method="magnitude")
    return Ticket(mask=Mask(layers={"a": mask}), weights=weights, rewind_weights=None, info=info)


def shown(theft: str, *, edges: int = 10_000) -> tuple[float, float]:
    seen = foreseen(a_ticket(edges), Theft.parse(theft), anchors=0.7)
    return seen.log10_p, seen.unlucky_log10_p


def test_an_untouched_copy_shows_the_votes_that_agree() -> None:
    votes = round(10_000 * (1 - 179 / 256))
    assert shown("untouched")[0] == pytest.approx(log10_at_least(math.floor(votes * ORDINARY), votes) + LOOKS, abs=0.2)


def test_pruning_and_removed_channels_leave_the_signs_of_what_is_left() -> None:
    whole, half = shown("untouched")[0] - LOOKS, shown("pruned-50")[0] - LOOKS
    assert half == pytest.approx(whole / 2, rel=0.02)
    assert shown("channels-50")[0] - LOOKS == pytest.approx(whole / 4, rel=0.02)


def test_edges_that_are_added_agree_by_chance() -> None:
    votes = 2 * round(10_000 * (1 - 179 / 256))
    agreeing = math.floor(votes / 2 * ORDINARY + votes / 4)
    assert shown("regrown-100")[0] == pytest.approx(log10_at_least(agreeing, votes) + LOOKS, abs=0.5)


def test_new_weights_leave_no_sign_and_training_on_leaves_most() -> None:
    assert shown("rewired-30") == (0.0, 0.0)
    assert shown("tuned-dense")[0] < -100


def test_unlucky_copies_show_less_and_tiny_tickets_nothing() -> None:
    for theft in ("untouched", "pruned-80", "regrown-100"):
        ordinary, unlucky = shown(theft)
        assert ordinary < unlucky < 0
    assert shown("untouched", edges=3) == (0.0, 0.0)
