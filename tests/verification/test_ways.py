"""Which of the ways to read a suspect is taken, and what is said where there is none."""

from __future__ import annotations

import types
from typing import Any, cast

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import unmarked_ticket
from ticketguard.errors import UnverifiableError
from ticketguard.verification import ways
from ticketguard.verification.ways import Way, likeliest_way, ways_to_read

REFERENCE = unmarked_ticket({"fc.weight": (20, 30)}).reference()


def way_of(*surpluses: float, of: str = "suspect") -> Way:
    """Return a way whose networks resemble the reference so much."""
    way = Way(suspect=cast(Any, of), found=cast(Any, None), reference=REFERENCE, groups=(), thorough=False)
    orders = tuple(types.SimpleNamespace(alignment=types.SimpleNamespace(surplus=each)) for each in surpluses)
    way.__dict__["orders"] = orders  # as they are once they were asked for
    return way


def test_a_way_resembles_the_reference_as_its_likeliest_network_does() -> None:
    assert way_of(3.0, 40.0, -2.0).surplus == 40.0


@pytest.mark.parametrize("copy_is", [0, 1])
def test_the_way_with_the_copy_in_it_is_taken_whatever_lies_beside(
    copy_is: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief adds networks that resemble nothing, and with them the way in which the copy is whole has to win."""
    others, copy = way_of(20.0, of="others"), way_of(50.0, -9.0, of="copy")
    both = [others, others]
    both[copy_is] = copy
    monkeypatch.setattr(ways, "ways_to_read", lambda *arguments, **options: tuple(both))
    assert likeliest_way(cast(Any, None), REFERENCE, ()) is copy


def test_one_way_alone_is_not_aligned_to_say_that_it_is_likeliest(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("it was aligned")

    monkeypatch.setattr(ways, "best_order", fail)
    suspect = tg.Checkpoint({"fc.weight": np.ones((20, 30), np.float32)})
    way = likeliest_way(suspect, REFERENCE, (), thorough=True)
    assert (way.suspect, way.thorough) == (suspect, True)


def test_where_no_way_is_one_the_error_is_of_the_joined_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(suspect: str, *arguments: Any, **options: Any) -> Any:
        raise UnverifiableError(f"nothing fits {suspect}")

    monkeypatch.setattr(ways, "joined_or_not", lambda *arguments: ("joined", "as stored"))
    monkeypatch.setattr(ways, "find_networks", nothing)
    with pytest.raises(UnverifiableError, match="nothing fits joined"):
        ways_to_read(cast(Any, None), REFERENCE, ())


def test_a_way_that_cannot_be_read_leaves_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(suspect: str, *arguments: Any, **options: Any) -> Any:
        if suspect == "joined":
            raise UnverifiableError("too many networks fit")
        return "found"

    monkeypatch.setattr(ways, "joined_or_not", lambda *arguments: ("joined", "as stored"))
    monkeypatch.setattr(ways, "find_networks", one)
    (way,) = ways_to_read(cast(Any, None), REFERENCE, (), thorough=True)
    assert cast(Any, way.suspect) == "as stored"
    assert cast(Any, way.found) == "found"
    assert way.thorough
