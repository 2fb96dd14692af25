"""Which few layers of a large network are compared first."""

from __future__ import annotations

import pytest

from ticketguard.graph import ChannelGroup, few, groups_from_json
from ticketguard.graph.few import few_layers

# A chain of equal layers, last to first by name, so that the order of names is not the order of the chain.
CHAIN = {f"layer{9 - index}": (64, 64) for index in range(10)}
GROUPS: tuple[ChannelGroup, ...] = groups_from_json(
    [[[f"layer{9 - index}", 0, 1, 0, 64], [f"layer{8 - index}", 1, 1, 0, 64]] for index in range(9)]
)
MIXED = {"wide": (512, 512), "wide and thin": (512, 2), "stem": (16, 3, 3, 3), "a": (32, 32, 3, 3), "b": (32, 32)}


def edges_of(shapes: dict[str, tuple[int, ...]], each: int) -> dict[str, int]:
    return dict.fromkeys(shapes, each)


def test_small_networks_are_compared_at_once() -> None:
    assert few_layers(CHAIN, edges_of(CHAIN, few.AT_ONCE // 10), GROUPS) == tuple(sorted(CHAIN))
    assert few_layers({}, {}, ()) == ()


def test_layers_that_share_channels_come_first() -> None:
    assert few_layers(CHAIN, edges_of(CHAIN, 20_000), GROUPS) == ("layer0", "layer1")
    # However narrow what lies elsewhere is.
    shapes = {**CHAIN, "layer5": (8, 64), "layer4": (64, 8)}
    groups = groups_from_json([[["layer9", 0, 1, 0, 64], ["layer8", 1, 1, 0, 64]]])
    assert few_layers(shapes, {**edges_of(shapes, 20_000), "layer9": 20_001}, groups) == ("layer8", "layer9")


def test_the_end_with_the_most_edges_comes_first() -> None:
    assert few_layers(CHAIN, {**edges_of(CHAIN, 20_000), "layer9": 20_001}, GROUPS) == ("layer8", "layer9")
    # The middle is no end, and a wider layer costs more than it tells.
    assert few_layers(CHAIN, {**edges_of(CHAIN, 20_000), "layer5": 20_001}, GROUPS) == ("layer0", "layer1")
    shapes = {**CHAIN, "layer9": (64, 500)}
    assert few_layers(shapes, {**edges_of(shapes, 20_000), "layer9": 20_001}, GROUPS) == ("layer0", "layer1")


def test_narrow_layers_come_first_however_many_places_their_kernels_have() -> None:
    edges = {"wide": 800_000, "wide and thin": 100, "stem": 400, "a": 9_000, "b": 1_000}
    assert few_layers(MIXED, edges, ()) == ("a", "b", "stem", "wide and thin")
    assert few_layers(MIXED, {**edges, "a": 100_000}, ()) == ("b", "stem")


@pytest.mark.parametrize("names", [["wide"], ["wide", "a"]])
def test_where_a_part_would_be_most_of_it_all_are_compared(names: list[str]) -> None:
    shapes = {name: MIXED[name] for name in names}
    assert few_layers(shapes, edges_of(shapes, 10**6), ()) == tuple(sorted(names))
