"""Arrays that are worth keeping between verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from ticketguard.verification.memory import Memory


def made(size: int, made_of: list[int]) -> np.ndarray:
    made_of.append(size)
    return np.zeros(size, dtype=np.uint8)


def test_what_is_kept_is_made_once() -> None:
    memory, calls = Memory(limit_bytes=100), list[int]()
    first = memory.get("a", lambda: made(10, calls))
    assert memory.get("a", lambda: made(10, calls)) is first
    assert calls == [10]


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    memory, calls = Memory(limit_bytes=100), list[int]()
    for key, size in (("a", 40), ("b", 50), ("a", 40), ("c", 30), ("a", 40), ("b", 50)):
        memory.get(key, lambda size=size: made(size, calls))  # type: ignore[misc]
        assert memory.held_bytes <= 100
    assert calls == [40, 50, 30, 50]


def test_what_is_larger_than_the_limit_is_made_anew_and_displaces_nothing() -> None:
    memory, calls = Memory(limit_bytes=100), list[int]()
    for key, size in (("a", 40), ("large", 101), ("large", 101), ("a", 40)):
        memory.get(key, lambda size=size: made(size, calls))  # type: ignore[misc]
    assert calls == [40, 101, 101]
    assert memory.held_bytes == 40


def test_nobody_can_change_what_others_will_get() -> None:
    kept = Memory(limit_bytes=100).get("a", lambda: np.zeros(3))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1.0


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="limit_bytes is -1, expected 0 or more"):
        Memory(limit_bytes=-1)
