"""Shapes and names that nobody's network has: an answer, in a time that does not depend on what they claim."""

from __future__ import annotations

import time

import pytest

from ticketguard.checkpoints.matching import Shape, match_networks

REFERENCE: dict[str, Shape] = {
    **{f"layer{index}.conv.weight": (64, 64, 3, 3) for index in range(20)},
    **{f"head{index}.fc.weight": (100 + index, 64) for index in range(20)},
}
MANY = 20_000
HOSTILE: dict[str, dict[str, Shape]] = {
    "namesakes of every shape": {f"p{index}.layer0.conv.weight": (index + 1, 7, 3, 3) for index in range(MANY)},
    "namesakes in every layout": {f"p{index}.layer0.conv.weight": (3, 3, index + 1, 7) for index in range(MANY)},
    "matrices of every size": {f"p{index}.head0.fc.weight": (index + 1, 64) for index in range(MANY)},
    "one shape, no names": {f"x{index}": (64, 64, 3, 3) for index in range(MANY)},
    "names of many parts": {f"{'a_' * 50}{index}.w": (64, 64, 3, 3) for index in range(MANY)},
    "axes of one": {f"x{index}": (1,) * 8 for index in range(MANY)},
    "axes of none": {f"p{index}.layer0.conv.weight": (0, 64, 3, 3) for index in range(MANY)},
    "petabytes": {f"layer{index}.conv.weight": (10**15, 64, 3, 3) for index in range(20)},
    "a thousand axes": {f"layer{index}.conv.weight": (2,) * 1000 for index in range(20)},
}


@pytest.mark.parametrize("shapes", HOSTILE)
def test_hostile_shapes_are_answered_at_once(shapes: str) -> None:
    began = time.process_time()
    found = match_networks(REFERENCE, HOSTILE[shapes])
    # Ten times what it takes.
    assert time.process_time() - began < 20
    assert 1 <= len(found) <= 17
    assert all(layout.shape for match in found for layouts in match.conventions for layout in layouts.values())
