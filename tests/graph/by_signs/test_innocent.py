"""What is not from the start is not found in it, and ends in time."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import numpy as np
import pytest
from drawn_perceptron import GROUPS, SHAPES, State
from drawn_start import a_start, trained, unrelated

from ticketguard.graph import align, groups_from_json
from ticketguard.graph.by_signs.coded import StartSigns, signs_of
from ticketguard.graph.by_signs.judging import agreeing
from ticketguard.graph.by_signs.scoring import SIGNS, Scoring
from ticketguard.graph.likeness import Likeness
from ticketguard.graph.matching import Budget
from ticketguard.graph.similarity import strongest_edges
from ticketguard.graph.streams import bound_streams

SMALL = {"a": (20, 24), "b": (22, 20)}
SMALL_GROUPS = groups_from_json([[["a", 0, 1, 0, 20], ["b", 1, 1, 0, 20]]])


def test_unrelated_suspects_are_not_found() -> None:
    reference, _ = a_start(shapes=SMALL)
    found = [align(unrelated(seed, 0.4, SMALL), reference, SMALL_GROUPS) for seed in range(1000, 1200)]
    assert not any(one.is_found or one.is_clear for one in found)
    deviations = np.array([one.deviations for one in found])
    # The best of some dozen looks at a standard normal variable, which all say much the same.
    assert deviations.max() < 4.5
    assert 0.5 < deviations.mean() < 2.2


def test_held_out_signs_of_an_unrelated_suspect_agree_by_chance_however_it_was_fitted() -> None:
    seen = []
    for seed in range(300):
        reference, _ = a_start(seed, SMALL)
        other = unrelated(seed + 1000, 0.4, SMALL)
        starts = {name: StartSigns.of(reference, name) for name in SMALL}
        kinds = {name: start.kinds for name, start in starts.items()}
        edges = {name: signs_of(strongest_edges(layer, layer.size)) for name, layer in other.items()}
        scoring = Scoring(kinds, edges, (), Budget(10**6))
        # Rows flipped to fit the anchors that are seen.
        flips = {}
        for name, layer in other.items():
            signs = (kinds[name] // 8 == 1).astype(int) - (kinds[name] // 8 == 2)
            fit = (np.sign(layer) * signs.reshape(layer.shape)).sum(axis=1)
            flips[name] = np.where(fit < 0, -1, 1).astype(np.float32)
        signs = {name: scoring.aligned(name, (), flips)[..., SIGNS] for name in SMALL}
        seen.append(Likeness.together([agreeing(name, starts[name], signs[name]) for name in SMALL]).deviations)
    assert abs(np.mean(seen)) < 0.2
    assert np.std(seen) == pytest.approx(1, abs=0.15)


HOSTILE = {
    "zeros": lambda shape: np.zeros(shape, np.float32),
    "ones": lambda shape: np.ones(shape, np.float32),
    "one edge": lambda shape: np.eye(*shape, dtype=np.float32) * (np.arange(shape[0]) == 0)[:, None],
    "largest": lambda shape: np.full(shape, np.finfo(np.float32).max),
    "smallest": lambda shape: np.full(shape, np.float32(1e-45)),
    "alternating": lambda shape: np.where(np.indices(shape).sum(axis=0) % 2, -1, 1).astype(np.float32),
}


@pytest.mark.parametrize("made", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_layers_end_in_time(made) -> None:
    reference, _ = a_start()
    start = time.process_time()
    found = align({name: made(shape) for name, shape in SHAPES.items()}, reference, GROUPS)
    assert time.process_time() - start < 20
    assert not found.is_found
    assert np.isfinite([found.deviations, found.overlap, found.surplus]).all()


def wide(state: State, more: int) -> State:
    """Return a network with so many more channels, of which nothing comes out."""
    return {
        "a": np.concatenate([state["a"], unrelated(7, 0.15, {"a": (more, 80)})["a"]]),
        "b": np.concatenate([state["b"], np.zeros((70, more), np.float32)], axis=1),
        "c": state["c"],
    }


def test_a_much_wider_suspect_is_found_and_ends_in_time() -> None:
    reference, weights = a_start()
    start = time.process_time()
    found = align(wide(trained(weights, density=0.3), 3000), reference, GROUPS)
    assert found.is_found
    assert (found.placed.along("a", 0, 60, 3060) == np.arange(60)).mean() >= 0.6
    assert time.process_time() - start < 30


def test_work_that_is_used_up_is_said() -> None:
    reference, _ = a_start()
    budget = Budget(0, shares=10**6)
    found = align(unrelated(1), reference, GROUPS, budget=budget)
    assert not found.complete


def test_channels_that_are_too_many_to_match_take_no_memory() -> None:
    """A matrix of all pairs would take 300 MB here, and 20 GB of a layer with 50 000 inputs."""
    shapes = {"a": (6000, 2), "b": (3, 2)}
    reference, _ = a_start(shapes=shapes)
    other = unrelated(1, 0.5, shapes)
    tracemalloc.start()
    try:
        found = align(other, reference, ())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not found.is_found
    assert not found.complete
    assert most < 50 * 2**20


def test_looking_for_the_stream_that_is_known_best_is_work() -> None:
    """Of a thousand streams that are not known, half a million looks are taken."""
    layers = {f"l{index:02}": (2, 2) for index in range(60)}
    names = list(layers)
    groups = groups_from_json([[[one, 0, 1, 0, 2], [next_, 1, 1, 0, 2]] for one, next_ in itertools.pairwise(names)])
    reference, _ = a_start(shapes=layers)
    kinds = {name: StartSigns.of(reference, name).kinds for name in names}
    signs = {name: np.ones((2, 2, 1), np.int8) for name in names}
    budget = Budget(0, shares=10**3)  # 2 million steps
    scoring = Scoring(kinds, signs, bound_streams(groups, layers, layers), budget)
    places = [None] * len(scoring.streams)
    for _ in range(3):
        for index in range(len(places)):
            scoring.known_beside(index, places)
    assert not budget.is_left
