"""Which streams a matching goes through, and by what."""

from __future__ import annotations

import numpy as np
import pytest

from ticketguard.graph import GroupMember, matching
from ticketguard.graph.groups import IndexArray
from ticketguard.graph.matching import Budget, Matching
from ticketguard.graph.similarity import Edges, strongest_edges
from ticketguard.graph.streams import Stream

ROWS, COLUMNS = 24, 30
LUCK = np.random.default_rng(0)
LAYERS = {name: LUCK.normal(size=(ROWS, COLUMNS)) * (LUCK.random((ROWS, COLUMNS)) < 0.4) for name in "vw"}
MOVED = {name: LUCK.permutation(ROWS) for name in "vw"}
# Two columns are in each other's place: the others say whose the rows are.
SWAPPED = np.array([1, 0, *range(2, COLUMNS)])
SUSPECT = {"v": LAYERS["v"][MOVED["v"]][:, SWAPPED], "w": LAYERS["w"][MOVED["w"]]}
RIGHT = [np.argsort(MOVED["v"]), SWAPPED, np.argsort(MOVED["w"])]


def edges(layers: dict[str, np.ndarray]) -> dict[str, Edges]:
    return {name: strongest_edges(layer, int(np.count_nonzero(layer))) for name, layer in layers.items()}


def axis_of(name: str, axis: int, size: int) -> Stream:
    member = (GroupMember(tensor=name, axis=axis, block=1, runs=((0, size),)),)
    return Stream(reference=member, suspect=member)


def a_matching(budget: Budget | None = None) -> Matching:
    """The rows and columns of one layer, and the rows of another."""
    streams = (axis_of("v", 0, ROWS), axis_of("v", 1, COLUMNS), axis_of("w", 0, ROWS))
    return Matching(edges(LAYERS), edges(SUSPECT), streams, budget or Budget(10**6))


def same(found: list[IndexArray], wanted: list[IndexArray]) -> list[bool]:
    return [np.array_equal(one, other) for one, other in zip(found, wanted, strict=True)]


@pytest.fixture
def matched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The streams that were matched, in order."""
    calls: list[int] = []
    match = Matching._match

    def counted(self: Matching, index: int, current: list[IndexArray | None]) -> IndexArray:
        calls.append(index)
        return match(self, index, current)

    monkeypatch.setattr(Matching, "_match", counted)
    return calls


def test_every_stream_finds_its_channels_and_none_is_matched_again_for_nothing(matched: list[int]) -> None:
    one = a_matching()
    assert all(same(one.converge([RIGHT[0], *one.stored()[1:]]), RIGHT))
    assert matched.count(2) == 1  # nothing that lies beside it can move
    matched.clear()
    assert all(same(one.converge(RIGHT), RIGHT))
    assert sorted(matched) == [0, 1, 2]


@pytest.mark.parametrize(("only", "found"), [([0], [0, 1]), ([2], [2]), ([], [])])
def test_only_what_is_asked_for_moves_and_what_lies_beside_it(
    only: list[int], found: list[int], matched: list[int]
) -> None:
    one = a_matching()
    start = one.stored()
    wanted = [RIGHT[index] if index in found else start[index] for index in range(3)]
    assert all(same(one.converge(start, only=only), wanted))
    assert set(matched) == set(found)


def test_streams_that_are_matched_once_do_not_see_each_other() -> None:
    one = a_matching()
    start = one.stored()
    each = [one.matched(start, [index])[index] for index in range(3)]
    assert all(same(one.matched(start, range(3)), each))
    assert not np.array_equal(each[1], RIGHT[1])  # the rows say nothing where they are
    assert all(same(one.matched(start, [0]), [each[0], *start[1:]]))


def test_channels_that_nothing_tells_apart_stay_where_they_are() -> None:
    dead = {"v": LAYERS["v"].copy(), "w": LAYERS["w"].copy()}
    dead["v"][4:12] = 0
    moved = {**dead, "v": dead["v"][MOVED["v"]]}
    held = RIGHT[0].copy()
    held[4:12] = np.roll(held[4:12], 3)
    one = Matching(edges(dead), edges(moved), [axis_of("v", 0, ROWS)], Budget(10**6))
    (found,) = one.matched([held], [0])
    assert np.array_equal(found, held)


def test_a_stream_that_is_too_large_for_its_layers_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "FREE_CELLS", ROWS * ROWS)
    monkeypatch.setattr(matching, "CELLS_A_POSITION", 0)
    budget = Budget(10**6)
    one = a_matching(budget)
    start = one.stored()
    assert not budget.kept
    assert np.array_equal(one.unknown()[1], start[1])  # type: ignore[arg-type]
    for found in (one.matched(start, range(3)), one.converge(start), one.converge(start, only=[1, 0])):
        assert same(found, RIGHT)[:2] == [True, False]
        assert np.array_equal(found[1], start[1])


def test_nothing_is_matched_without_work_left(matched: list[int]) -> None:
    budget = Budget(10**6)
    one = a_matching(budget)
    start = one.stored()
    budget.spend(10**12)
    found = (one.matched(start, range(3)), one.converge(start), one.place_unknown(one.unknown()))
    assert all(all(same(orders, start)) for orders in found)
    assert (matched, budget.kept) == ([], False)
