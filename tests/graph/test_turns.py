from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from torch import nn

from drawn_nets import SEEDS, SIDE, Drawn, agree, chains, changes, drawn, is_undone, residual
from ticketguard.graph.symmetries import Grid, Turn, square_grids
from ticketguard.graph.turns import UNTURNED, orbits, turns_of

FEW = settings(max_examples=12, deadline=None)


@FEW
@given(net=chains())
def test_turned_kernels_give_the_same_for_turned_inputs(net: Drawn) -> None:
    turns = Turn.every(net.state, grids=square_grids(net.state, net.groups))
    assert len({(turn.axes, turn.flipped) for turn in turns}) == 8
    assert not changes(turns[0], net.state)
    for turn in turns:
        assert agree(net.outputs(net.state), net.outputs(turn.apply(net.state), turn.turned(net.inputs, 2)))
        assert is_undone(turn, net.state)


@FEW
@given(seed=SEEDS)
def test_residual_networks_turn_where_strides_fit(seed: int) -> None:
    net = drawn(residual([3, 5], 4, 1), (3, SIDE, SIDE), seed)
    turn = Turn.drawn(net.state, generator=np.random.default_rng(seed))
    assert changes(turn, net.state)
    assert agree(net.outputs(net.state), net.outputs(turn.apply(net.state), turn.turned(net.inputs, 2)))


@pytest.mark.parametrize(
    ("layer", "count", "turns", "grid"),
    [(nn.Conv1d(2, 3, 3), 1, 2, (4,)), (nn.Conv3d(2, 3, (1, 2, 3)), 3, 48, (4, 3, 2))],
)
def test_kernels_of_any_number_of_axes_turn(layer: nn.Module, count: int, turns: int, grid: tuple[int, ...]) -> None:
    """A kernel and a map with sides of different lengths change their shape; the linear layer behind them does not."""
    inputs = tuple(side + kernel - 1 for side, kernel in zip(grid, layer.weight.shape[2:], strict=True))
    net = drawn(nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(3 * int(np.prod(grid)), 4)), (2, *inputs), 5)
    every = Turn.every(net.state, count=count, grids=[Grid(tensor="3.weight", axis=1, shape=grid)])
    assert len(every) == turns
    for turn in every:
        assert agree(net.outputs(net.state), net.outputs(turn.apply(net.state), turn.turned(net.inputs, 2)))
        assert is_undone(turn, net.state)


def test_places_turn_between_class_token_and_channels() -> None:
    state = {"position": np.arange(1 + 4 * 2.0).reshape(1, -1)}
    (turn,) = [
        turn
        for turn in Turn.every(state, grids=[Grid(tensor="position", axis=1, shape=(2, 2), inner=2, skip=1)])
        if turn.axes == (0, 1) and turn.flipped == (False, True)
    ]
    assert turn.apply(state)["position"].tolist() == [[0, 3, 4, 1, 2, 7, 8, 5, 6]]


def test_what_does_not_fit_is_not_turned() -> None:
    state = {"weight": np.ones((2, 2, 3)), "head": np.ones((2, 7))}
    with pytest.raises(ValueError, match="'weight' has 3 axes, expected 4"):
        Turn.every(state, kernels=["weight"])[1].apply(state)
    with pytest.raises(ValueError, match=r"axis 1 of 'head' has 7 positions, which is not a grid of \(2, 2\)"):
        Turn.every(state, grids=[Grid(tensor="head", axis=1, shape=(2, 2))])[1].apply(state)


@pytest.mark.parametrize(
    ("kernels", "count"),
    [
        ([(3,)], 2),
        ([(3, 3), (5, 5), (1, 1)], 8),
        ([(3, 5)], 4),
        ([(3, 5), (3, 3)], 4),
        ([(2, 2, 2)], 48),
        ([(2, 2, 2, 2)], 1),  # and there would be 384
        ([(3, 3), (3,)], 1),
        ([(1, 1), (3, 3, 3)], 48),
        ([(1, 1), ()], 1),
        ([], 1),
    ],
)
def test_turns_are_those_that_every_kernel_could_have_been_given(kernels: list[tuple[int, ...]], count: int) -> None:
    turns = turns_of(kernels)
    assert len({(turn.axes, turn.mirrored) for turn in turns}) == len(turns) == count
    assert turns[0].is_none


def test_places_that_turns_bring_to_each_other_have_one_number() -> None:
    assert orbits(turns_of([(3, 3)]), 9).tolist() == [0, 1, 0, 1, 2, 1, 0, 1, 0]
    assert orbits(turns_of([(4,)]), 4).tolist() == [0, 1, 1, 0]
    assert orbits([UNTURNED], 3).tolist() == [0, 1, 2]
