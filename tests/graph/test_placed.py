"""What an alignment says of channels, and how it puts a layer into the reference's order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ticketguard.graph import Alignment, GroupMember, matching
from ticketguard.graph.likeness import Likeness
from ticketguard.graph.matching import Budget, Matching, in_place, inverse
from ticketguard.graph.search import Found, Placed, _carried_over, read_off
from ticketguard.graph.similarity import strongest_edges
from ticketguard.graph.streams import Stream
from ticketguard.graph.turns import UNTURNED, KernelTurn


def whole(tensor: str, axis: int, channels: int, *, block: int = 1, first: int = 0) -> GroupMember:
    return GroupMember(tensor=tensor, axis=axis, block=block, runs=((first, channels),))


def stream(*pairs: tuple[GroupMember, GroupMember]) -> Stream:
    return Stream(reference=tuple(one for one, _ in pairs), suspect=tuple(other for _, other in pairs))


# Four channels of the reference, of which the suspect, which has six, has three.
ROWS = stream((whole("w", 0, 4), whole("w", 0, 6)))
ORDER = np.array([5, -1, 0, 3])
FOUND = Alignment(streams=(ROWS,), orders=(ORDER,), overlap=1.0)


def test_channels_that_moved_are_missing_or_were_added_are_counted() -> None:
    assert (FOUND.moved, FOUND.missing, FOUND.added) == (2, 1, 3)
    assert not FOUND.changes_nothing


@pytest.mark.parametrize(
    ("order", "turn", "changes"),
    [
        ([0, 1, 2, 3], UNTURNED, False),
        ([0, 1, 3, 2], UNTURNED, True),
        ([0, 1, 2, -1], UNTURNED, True),
        ([0, 1, 2, 3], KernelTurn(axes=(0,), mirrored=(False,)), False),
        ([0, 1, 2, 3], KernelTurn(axes=(0,), mirrored=(True,)), True),
        ([0, 1, 2, 3], KernelTurn(axes=(1, 0), mirrored=(False, False)), True),
    ],
)
def test_what_is_where_it_is_stored_changes_nothing(order: list[int], turn: KernelTurn, changes: bool) -> None:
    same = stream((whole("w", 0, 4), whole("w", 0, 4)))
    found = Alignment(streams=(same,), orders=(np.array(order),), turn=turn, overlap=1.0)
    assert found.changes_nothing != changes
    assert not dataclasses.replace(found, streams=(ROWS,)).changes_nothing  # two were added


def test_a_layer_is_put_in_order_and_what_is_missing_is_zero() -> None:
    layer = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    assert FOUND.apply("w", layer, (4, 2)).tolist() == [[11, 12], [0, 0], [1, 2], [7, 8]]
    # Of another tensor that may be this layer, and is shorter, there is nothing at the sixth.
    assert FOUND.apply("w", layer[:5], (4, 2)).tolist() == [[0, 0], [0, 0], [1, 2], [7, 8]]
    # Nor is there where nothing is known of the axis: what is not there stands empty.
    assert FOUND.apply("v", layer[:2], (3, 3)).tolist() == [[1, 2, 0], [3, 4, 0], [0, 0, 0]]
    assert FOUND.apply("v", layer, (2, 1)).tolist() == [[1], [3]]


def test_places_of_flattened_maps_move_with_their_channel_and_turn() -> None:
    maps = stream((whole("w", 1, 2, block=4, first=1), whole("w", 1, 2, block=4, first=1)))
    turn = KernelTurn(axes=(0, 1), mirrored=(False, True))
    found = Placed(streams=(maps,), orders=(np.array([1, 0]),), turn=turn)
    assert found.along("w", 1, 9, 9).tolist() == [0, 6, 5, 8, 7, 2, 1, 4, 3]


def test_an_order_and_its_inverse_agree_on_who_is_who() -> None:
    assert inverse(ORDER, 6).tolist() == [2, -1, -1, 3, -1, 0]
    assert in_place(ROWS).tolist() == [0, 1, 2, 3]
    assert in_place(stream((whole("w", 0, 4), whole("w", 0, 2)))).tolist() == [0, 1, -1, -1]


def matching_of(*streams: Stream) -> Matching:
    generator = np.random.default_rng(0)
    reference, suspect = (strongest_edges(generator.normal(size=(rows, 3)), rows * 3) for rows in (4, 6))
    return Matching({"w": reference}, {"w": suspect}, streams, Budget(10**4))


def test_edges_are_aligned_where_both_of_their_ends_are() -> None:
    columns = stream((whole("w", 1, 3), whole("w", 1, 3)))
    out, given = matching_of(ROWS, columns).aligned("w", [ORDER, np.array([2, -1, 0])]).ends
    assert sorted(zip(out.tolist(), given.tolist(), strict=True)) == [
        (row, place) for row in (0, 2, 3) for place in (0, 2)
    ]


def test_an_order_is_carried_over_to_streams_that_are_cut_otherwise() -> None:
    """Channels of a group that fills a part of the axis, as the channels of the whole axis."""
    likeness = Likeness(found={}, expected={}, variance=0.0, most={})
    found = Found(matching=matching_of(ROWS), turn=UNTURNED, orders=[ORDER], likeness=likeness)
    assert _carried_over(ROWS, found).tolist() == ORDER.tolist()
    part = stream((whole("w", 0, 3, first=1), whole("w", 0, 5, first=1)))
    # The suspect's channels 1 to 5 are 0 to 4 of the part, and its channel 0 is not in it.
    assert _carried_over(part, found).tolist() == [-1, -1, 2]


def test_an_order_isread_off_the_layers_that_were_compared() -> None:
    shapes = ({"w": (4, 3), "v": (4, 3)}, {"w": (6, 3), "v": (6, 3)})
    both = stream((whole("v", 0, 4), whole("v", 0, 6)), (whole("w", 0, 4), whole("w", 0, 6)))
    start = Placed(streams=(ROWS,), orders=(ORDER,), turn=UNTURNED, layers=("w",))
    order = read_off(both, start, *shapes)
    assert order is not None
    assert order.tolist() == ORDER.tolist()
    assert read_off(stream((whole("v", 0, 4), whole("v", 0, 6))), start, *shapes) is None


def test_nobody_is_guessed_without_work_left(monkeypatch: pytest.MonkeyPatch) -> None:
    one = matching_of(ROWS, stream((whole("w", 1, 3), whole("w", 1, 3))))
    known = np.array([2, 0, 1])
    assert one.guessed([None, known], np.arange)[1] is known
    monkeypatch.setattr(matching, "STEPS_A_MEMBER", 10**12)
    monkeypatch.setattr(matching, "fingerprints", None)
    assert [order.tolist() for order in one.guessed([None, known], np.arange)] == [[0, 1, 2, 3], [2, 0, 1]]
