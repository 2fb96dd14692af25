"""Scores of channels are the same however they are computed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.graph import rows, similarity
from ticketguard.graph.groups import GroupMember
from ticketguard.graph.rows import DEGREE_WEIGHT, VALUE_WEIGHT, Places, Rows, member_similarity
from ticketguard.graph.similarity import Edges, kept_edges, strongest_edges

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7), st.sampled_from([(), (1, 1), (3, 3), (5,)]))


def layer_of(shape: tuple[int, int, tuple[int, ...]], density: float, seed: int) -> np.ndarray:
    luck = np.random.default_rng(seed)
    size = (*shape[:2], *shape[2])
    return (luck.normal(size=size) * (luck.random(size) < density)).astype(np.float32)


def plainly(one: Edges, other: Edges, axis: int, places: Places, rarity: float) -> np.ndarray:
    """The score of every pair of channels, edge by edge."""
    score = np.zeros((one.shape[axis], other.shape[axis]))
    counts = np.zeros((2, 2, max(score.shape), one.shape[2]))
    for side, edges in enumerate((one, other)):
        for channel, end, kernel, value in zip(
            edges.ends[axis], edges.ends[1 - axis], edges.kernel, edges.values, strict=True
        ):
            unknown = places.unknown_reference[end] if side == 0 else places.places[end] == Places.UNKNOWN
            counts[side, :, channel, kernel] += np.array([1, value]) * unknown
    known = {
        (end, kernel, channel): value
        for channel, end, kernel, value in zip(one.ends[axis], one.ends[1 - axis], one.kernel, one.values, strict=True)
        if not places.unknown_reference[end]
    }
    for channel, end, kernel, value in zip(
        other.ends[axis], other.ends[1 - axis], other.kernel, other.values, strict=True
    ):
        for mine in range(one.shape[axis]):
            if (places.places[end], kernel, mine) in known:
                score[mine, channel] += rarity + VALUE_WEIGHT * known[places.places[end], kernel, mine] * value
    if places.unknown_reference.any():
        for kind in range(2):
            a, b = counts[0, kind, : score.shape[0]], counts[1, kind, : score.shape[1]]
            scale = np.sqrt(a.var(axis=0) + b.var(axis=0)) + 1e-9
            a, b = (a - a.mean(axis=0)) / scale, (b - b.mean(axis=0)) / scale
            score -= DEGREE_WEIGHT * ((a[:, None] - b[None]) ** 2).sum(axis=2)
    return score


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    other=SHAPES,
    axis=st.integers(0, 1),
    density=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    unknown=st.booleans(),
)
def test_full_and_sparse_products_give_the_score_of_every_shared_edge(
    shape: tuple[int, int, tuple[int, ...]],
    other: tuple[int, int, tuple[int, ...]],
    axis: int,
    density: float,
    seed: int,
    unknown: bool,
) -> None:
    luck = np.random.default_rng(seed)
    other = (*other[:2], shape[2])
    one, two = (
        strongest_edges(layer, layer.size)
        for layer in (layer_of(shape, density, seed), layer_of(other, density, seed + 1))
    )
    size, found = one.shape[1 - axis], two.shape[1 - axis]
    at = luck.permutation(max(size, found))[:found]
    at = np.where(at < size, at, Places.NOWHERE)
    unknown_reference = luck.random(size) < (0.5 if unknown else 0)
    at[(at >= 0) & unknown_reference[np.maximum(at, 0)]] = Places.UNKNOWN
    places = Places(places=at, unknown_reference=unknown_reference)
    members = [GroupMember(tensor="w", axis=axis, block=1, runs=((0, edges.shape[axis]),)) for edges in (one, two)]
    laid_out = [Rows(edges, member, size) for edges, member in zip((one, two), members, strict=True)]
    expected = plainly(one, two, axis, places, laid_out[0].rarity)
    with pytest.MonkeyPatch.context() as patch:
        for limit in (0, 10**9):
            patch.setattr(rows, "FULL_PRODUCT", limit)
            score = member_similarity(laid_out[0], None, laid_out[1], places)
            assert np.allclose(score, expected, rtol=1e-3, atol=1e-2)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, density=st.floats(0, 1), share=st.floats(0.1, 1.5), seed=st.integers(0, 10**6))
def test_a_sparse_layers_edges_are_those_of_the_same_layer_taken_as_dense(
    shape: tuple[int, int, tuple[int, ...]], density: float, share: float, seed: int
) -> None:
    layer = layer_of(shape, density, seed)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for limit in (0.0, 2.0):
            patch.setattr(similarity, "SPARSE", limit)
            found += [strongest_edges(layer, round(share * layer.size)), kept_edges(layer != 0, layer[layer != 0])]
    for one, other in ((found[0], found[2]), (found[1], found[3])):
        assert one.flat().tolist() == other.flat().tolist()
        assert np.allclose(one.values, other.values, atol=1e-5)
    assert found[1].flat().tolist() == np.flatnonzero(layer).tolist()
