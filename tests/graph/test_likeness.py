"""What unrelated networks share with a reference's held-out edges, and what a copy does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from ticketguard.graph import ChannelGroup, align, groups_from_json, likeness
from ticketguard.graph.likeness import Ends, Likeness, split
from ticketguard.graph.similarity import strongest_edges
from ticketguard.graph.turns import turns_of
from ticketguard.ticket import Mask, Reference

Luck = np.random.Generator
Shapes = Mapping[str, tuple[int, ...]]
PERCEPTRON: Shapes = {"a": (60, 40), "b": (40, 60), "c": (10, 40)}
CONVOLUTIONS: Shapes = {"a": (12, 3, 3, 3), "b": (16, 12, 3, 3), "c": (12, 16, 3, 3), "d": (10, 12)}
GROUPS: dict[str, tuple[ChannelGroup, ...]] = {
    "perceptron": groups_from_json(
        [[["a", 0, 1, 0, 60], ["b", 1, 1, 0, 60]], [["b", 0, 1, 0, 40], ["c", 1, 1, 0, 40]]]
    ),
    "convolutions": groups_from_json(
        [
            [["a", 0, 1, 0, 12], ["b", 1, 1, 0, 12], ["c", 0, 1, 0, 12], ["d", 1, 1, 0, 12]],
            [["b", 0, 1, 0, 16], ["c", 1, 1, 0, 16]],
        ]
    ),
}
SHAPES = {"perceptron": PERCEPTRON, "convolutions": CONVOLUTIONS}


def same_degrees(share: float) -> Callable[[Luck, tuple[int, ...]], np.ndarray]:
    """Edges at random, as many in each row, column and kernel place for everybody, some many times as many."""

    def edges(luck: Luck, shape: tuple[int, ...]) -> np.ndarray:
        fixed = np.random.default_rng(123)
        rows, columns = (fixed.lognormal(0, 0.8, size) for size in shape[:2])
        places = fixed.lognormal(0, 0.8, shape[2:]) if len(shape) > 2 else np.ones(())
        likely = np.multiply.outer(np.multiply.outer(rows, columns), places)
        return np.asarray(luck.random(shape) < np.minimum(1, likely * share / likely.mean()))

    return edges


def full_rows(luck: Luck, shape: tuple[int, ...]) -> np.ndarray:
    edges = luck.random(shape) < 0.05
    edges[: max(1, shape[0] // 4)] = True
    return edges


MASKS: dict[str, Callable[[Luck, tuple[int, ...]], np.ndarray]] = {
    "sparse": lambda luck, shape: luck.random(shape) < 0.1,
    "half": lambda luck, shape: luck.random(shape) < 0.5,
    "nearly full": lambda luck, shape: luck.random(shape) < 0.97,
    "full": lambda luck, shape: np.ones(shape, dtype=bool),
    "same degrees": same_degrees(0.15),
    "same degrees, denser": same_degrees(0.4),
    "some rows full": full_rows,
}
WEIGHTS: dict[str, Callable[[Luck, np.ndarray], np.ndarray]] = {
    "normal": lambda luck, edges: luck.normal(size=edges.shape) * edges,
    "equal": lambda luck, edges: edges.astype(np.float64),
    "constant": lambda luck, edges: np.ones(edges.shape),
    "no mask": lambda luck, edges: luck.normal(size=edges.shape),
    "zero": lambda luck, edges: np.zeros(edges.shape),
}


def drawn(shapes: Shapes, edges: str, seed: int) -> tuple[Reference, dict[str, np.ndarray]]:
    luck = np.random.default_rng(seed)
    masks = {name: MASKS[edges](luck, shape) for name, shape in shapes.items()}
    weights = {name: luck.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Reference(
        mask=Mask(layers=masks), kept_weights={name: weights[name][masks[name]] for name in masks}
    ), weights


@pytest.mark.parametrize("net", SHAPES)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("edges", MASKS)
def test_nothing_unrelated_is_recognised(edges: str, weights: str, net: str) -> None:
    """However alike its rows, columns and places are to the reference's, and after the best of all starts and turns."""
    reference, _ = drawn(SHAPES[net], edges, 0)
    luck = np.random.default_rng(1000)
    suspect = {
        name: WEIGHTS[weights](luck, MASKS[edges](luck, shape)).astype(np.float32)
        for name, shape in SHAPES[net].items()
    }
    # Of some hundred cases, with groups and without, none is above 4.3.
    found = align(suspect, reference, GROUPS[net] if len(edges + weights) % 2 else ())
    assert found.deviations < 5
    assert not found.is_found


def ends_of(mask: np.ndarray) -> Ends:
    out, given, *kernel = np.nonzero(mask)
    place = np.ravel_multi_index(kernel, mask.shape[2:]) if kernel else np.zeros(len(out), dtype=np.int64)
    return out, given, place


@pytest.mark.parametrize("net", SHAPES)
@pytest.mark.parametrize("edges", ["sparse", "half", "same degrees", "same degrees, denser", "some rows full"])
def test_what_is_expected_of_unrelated_networks_is_what_they_share(edges: str, net: str) -> None:
    """Where nothing is matched: 150 of each kind, mean 0 and standard deviation 1 to within their noise."""
    reference, weights = drawn(SHAPES[net], edges, 0)
    _, held_out = split({name: strongest_edges(weights[name], 1, reference.mask[name]) for name in reference.mask})
    luck = np.random.default_rng(1)
    seen = []
    for _ in range(150):
        masks = {name: MASKS[edges](luck, shape) for name, shape in SHAPES[net].items()}
        seen.append(Likeness.of(held_out, {name: ends_of(mask) for name, mask in masks.items()}).deviations)
    # Rows whose edges multiply up to what is full are not what odds make of them, by a little.
    assert abs(np.mean(seen)) < (1 if "same" in edges else 0.5)
    assert 0.7 < np.std(seen) < 1.1


@pytest.mark.parametrize("edges", [name for name in MASKS if name != "full"])
def test_a_large_network_is_not_recognised_by_its_form(edges: str) -> None:
    """Where the same rows and columns are full, deviations grow with the network; what is shared beyond does not."""
    shapes: Shapes = {"a": (600, 500), "b": (400, 600)}
    reference, weights = drawn(shapes, edges, 0)
    _, held_out = split({name: strongest_edges(weights[name], 1, reference.mask[name]) for name in reference.mask})
    luck = np.random.default_rng(1)
    for _ in range(3):
        masks = {name: MASKS[edges](luck, shape) for name, shape in shapes.items()}
        seen = Likeness.of(held_out, {name: ends_of(mask) for name, mask in masks.items()})
        assert not seen.is_found
        assert seen.excess < 0.06


def test_an_edge_is_as_likely_as_its_row_column_and_place_are_full() -> None:
    hidden = {"w": likeness.HeldOut(flat=np.array([0]), ends=(np.array([0]),) * 3, share=0.2, shape=(5, 5, 5))}
    rows, columns, places = [0, 1, 2, 3, 4, 0, 1, 2, 3], [0, 1, 2, 3, 4, 1, 2, 3, 4], [0, 1, 2, 3, 4, 2, 3, 4, 0]
    seen = Likeness.of(hidden, {"w": (np.array(rows), np.array(columns), np.array(places))})
    # Two of nine edges in its row, one in its column, two at its place: 9 · 2/9 · 1/9 · 2/9.
    assert (seen.expected["w"], seen.found["w"]) == (pytest.approx(4 / 81), 1)
    assert seen.variance == pytest.approx(4 / 81 * 77 / 81)
    assert seen.most["w"] == pytest.approx(1)


def test_the_reference_itself_shares_all_of_it() -> None:
    reference, weights = drawn(CONVOLUTIONS, "sparse", 0)
    edges = {name: strongest_edges(weights[name], 1, reference.mask[name]) for name in reference.mask}
    seen, held_out = split(edges)
    for name, one in edges.items():
        assert len(seen[name].values) + len(held_out[name].flat) == len(one.values)
        assert not set(seen[name].flat()) & set(held_out[name].flat)
    whole = Likeness.of(held_out, {name: ends_of(reference.mask[name]) for name in edges})
    assert whole.found == {name: len(held_out[name].flat) for name in edges}
    assert whole.excess == pytest.approx(1, abs=0.05)
    assert whole.overlap == pytest.approx(1, abs=0.05)
    assert whole.is_clear


def counts(**layers: tuple[int, float, float]) -> Likeness:
    """Found, expected and most by layer, with a variance of one hundred."""
    found, expected, most = ({name: layer[index] for name, layer in layers.items()} for index in range(3))
    return Likeness(found=found, expected=expected, variance=100.0, most=most)  # type: ignore[arg-type]


def test_a_layer_that_is_not_where_it_belongs_is_no_clear_alignment() -> None:
    assert counts(a=(180, 10, 200), b=(90, 10, 100)).is_clear
    assert not counts(a=(180, 10, 200), b=(12, 10, 100)).is_clear
    # Of a few edges nothing is asked, and of a network of which less than half is left less than half.
    assert counts(a=(180, 10, 200), b=(1, 1, 20)).is_clear
    assert not counts(a=(180, 10, 200), b=(1, 1, 22)).is_clear
    assert counts(a=(180, 10, 300), b=(42, 10, 100)).is_clear
    assert not counts(a=(190, 10, 300), b=(27, 10, 100)).is_clear
    assert not counts(a=(140, 10, 300), b=(42, 10, 100)).is_clear


def test_what_is_found_has_a_tenth_beyond_chance_and_six_deviations() -> None:
    assert counts(a=(80, 19, 700)).deviations == pytest.approx(6.1)
    assert not counts(a=(80, 19, 700)).is_found
    assert counts(a=(80, 19, 600)).is_found
    assert not counts(a=(80, 21, 500)).is_found


def test_few_edges_are_never_clear_and_deviations_are_of_at_least_one() -> None:
    assert not counts(a=(100, 10, 105)).is_clear
    seen = Likeness(found={"a": 3}, expected={"a": 0.1}, variance=0.01, most={"a": 4.0})
    assert seen.deviations == pytest.approx(2.9)
    assert counts(a=(60, 20, 200)).deviations == pytest.approx(40 / math.sqrt(100))
    assert counts(a=(60, 20, 200)).overlap == pytest.approx(0.3)
    assert counts(a=(60, 20, 200)).chance == pytest.approx(0.1)
    assert counts(a=(60, 20, 200)).excess == pytest.approx(40 / 180)


@pytest.mark.parametrize("masks", ["sparse", "half", "full", "same degrees, denser", "some rows full"])
def test_all_turns_compared_at_once_are_those_compared_one_by_one(masks: str) -> None:
    luck = np.random.default_rng(4)
    reference = {name: MASKS[masks](luck, shape) for name, shape in CONVOLUTIONS.items()}
    layers = {name: luck.normal(size=mask.shape).astype(np.float32) for name, mask in reference.items()}
    _, held_out = split({name: strongest_edges(layers[name], mask.size, mask) for name, mask in reference.items()})
    suspect = {name: MASKS[masks](luck, shape) for name, shape in CONVOLUTIONS.items()}
    turns = turns_of(shape[2:] for shape in CONVOLUTIONS.values())
    places = [{name: turn.came_from((3, 3)) for name in ("a", "b", "c")} for turn in turns]
    seen = Likeness.in_turns(held_out, {name: ends_of(mask) for name, mask in suspect.items()}, places)
    assert len(seen) == len(turns) == 8
    for turn, found in zip(turns, seen, strict=True):
        turned = {name: turn.kernel(mask) if mask.ndim > 2 else mask for name, mask in suspect.items()}
        alone = Likeness.of(held_out, {name: ends_of(mask) for name, mask in turned.items()})
        assert (found.found, found.most) == (alone.found, alone.most)
        assert found.expected == pytest.approx(alone.expected)
        assert found.variance == pytest.approx(alone.variance)
