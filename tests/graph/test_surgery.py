from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from drawn_nets import (
    NETWORKS,
    SEEDS,
    SIDE,
    Drawn,
    SelfFed,
    agree,
    drawn,
    is_undone,
    perceptrons,
    residual,
    residuals,
    self_fed,
    without_outgoing,
)
from ticketguard.graph import ChannelGroup, GroupMember, group_channels
from ticketguard.graph.surgery import (
    Added,
    Clique,
    Cut,
    Growth,
    NewNeurons,
    Removal,
    SplitNeurons,
    in_every_group,
    magnitudes,
)
from ticketguard.graph.symmetries import Permutation, shortcut_index
from ticketguard.graph.transformation import State, Symmetry

FEW = settings(max_examples=12, deadline=None)


def added_by(kind: str, generator: np.random.Generator) -> Callable[[State, ChannelGroup], Added]:
    kinds: dict[str, Callable[[State, ChannelGroup], Added]] = {
        "dead": lambda state, group: NewNeurons.dead(state, group, count=2, generator=generator),
        "cancelling": lambda state, group: NewNeurons.cancelling(state, group, pairs=2, generator=generator),
        "split": lambda state, group: SplitNeurons.drawn(state, group, count=2, generator=generator),
        "twins": lambda state, group: SplitNeurons.drawn(state, group, count=1, share=0.5, generator=generator),
    }
    return kinds[kind]


@FEW
@given(net=NETWORKS, seed=SEEDS, kind=st.sampled_from(["dead", "cancelling", "split", "twins"]))
def test_neurons_that_give_nothing_leave_the_function_alone(net: Drawn, seed: int, kind: str) -> None:
    symmetry, groups = in_every_group(net.state, net.groups, added_by(kind, np.random.default_rng(seed)))
    wider = symmetry.apply(net.state)
    more = {"dead": 2, "cancelling": 4, "split": 2, "twins": 1}[kind]
    assert [group_channels(group) - more for group in groups] == [group_channels(group) for group in net.groups]
    # These groups filled their axes in order, and still do.
    assert all(member.runs == ((0, member.channels),) for group in groups for member in group)
    assert agree(net.outputs(net.state), net.outputs(wider))
    assert is_undone(symmetry, net.state)
    permuted = Permutation.drawn(wider, groups, generator=np.random.default_rng(seed)).apply(wider)
    assert agree(net.outputs(net.state), net.outputs(permuted))


@pytest.mark.parametrize("kind", ["dead", "cancelling", "split", "twins"])
def test_neurons_are_added_where_one_layer_takes_and_makes_them(kind: str) -> None:
    net = drawn(SelfFed(5), (5,), seed=0)
    symmetry, _ = in_every_group(net.state, net.groups, added_by(kind, np.random.default_rng(0)))
    wider = symmetry.apply(net.state)
    assert wider["inner.weight"].shape[0] == wider["inner.weight"].shape[1] > 5
    assert agree(net.outputs(net.state), net.outputs(wider))
    assert is_undone(symmetry, net.state)


@pytest.mark.parametrize("kind", ["dead", "cancelling", "split", "twins"])
def test_neurons_are_added_to_a_network_without_the_biases_that_its_groups_name(kind: str) -> None:
    layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    net = drawn(layers, (4,), seed=0)
    weights = {name: array for name, array in net.state.items() if array.ndim > 1}
    symmetry, groups = in_every_group(weights, net.groups, added_by(kind, np.random.default_rng(0)))
    wider = symmetry.apply(weights)
    assert {member.tensor for group in groups for member in group} == set(weights)
    assert wider["0.weight"].shape[0] == group_channels(groups[0]) > 6
    assert is_undone(symmetry, weights)
    # A second step finds the groups where the first one left them.
    again, _ = in_every_group(wider, groups, added_by(kind, np.random.default_rng(1)))
    assert is_undone(again, wider)


@FEW
@given(net=st.one_of(perceptrons(), residuals(), self_fed()), seed=SEEDS)
def test_neurons_that_are_never_above_zero_leave_the_function_alone(net: Drawn, seed: int) -> None:
    generator = np.random.default_rng(seed)
    symmetry, _ = in_every_group(
        net.state,
        net.groups,
        lambda state, group: NewNeurons.silent(state, group, count=2, generator=generator, norms=net.norms),
    )
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)


def test_silent_neurons_have_edges_in_and_out() -> None:
    net = drawn(residual([4], 3, 1), (3, SIDE, SIDE), seed=0)
    generator = np.random.default_rng(0)
    (group,) = [group for group in net.groups if group[0].tensor == "3.bn1.bias"]
    added = NewNeurons.silent(net.state, group, count=3, generator=generator, norms=net.norms)
    assert (added.slices["3.conv1.weight", 0] != 0).any()
    assert (added.slices["3.conv2.weight", 1] != 0).any()
    assert not added.slices["3.bn1.weight", 0].any()


@FEW
@given(net=NETWORKS, seed=SEEDS)
def test_a_clique_leaves_the_function_alone(net: Drawn, seed: int) -> None:
    clique = Clique.drawn(net.state, net.groups, count=3, generator=np.random.default_rng(seed))
    wider = clique.apply(net.state)
    assert agree(net.outputs(net.state), net.outputs(wider))
    assert is_undone(clique, net.state)
    # Where a tensor lies between two groups, its new columns go to its new rows.
    between = {m.tensor for group in net.groups for m in group if m.axis == 0 and net.state[m.tensor].ndim > 1}
    between &= {m.tensor for group in net.groups for m in group if m.axis == 1}
    assert set(clique.edges) == between
    for name, (rows, columns, weights) in clique.edges.items():
        assert np.array_equal(wider[name][np.ix_(rows, columns)], weights)


@FEW
@given(seed=SEEDS, kind=st.sampled_from(["dead", "cancelling", "split"]))
def test_neurons_are_added_to_streams_that_padding_joins(seed: int, kind: str) -> None:
    widths, norms = [3, 6, 8], ["1.weight", "3.bn2.weight", "4.bn2.weight"]
    net = drawn(residual(widths, 4, 0), (3, SIDE, SIDE), seed)
    symmetry, groups = in_every_group(net.state, net.groups, added_by(kind, np.random.default_rng(seed)))
    wider = symmetry.apply(net.state)
    indices = {s: shortcut_index(wider, groups, given=norms[s - 1], made=norms[s]) for s in (1, 2)}
    model = residual(widths, 4, 0, indices=indices)
    buffers = {f"{2 + stage}.shortcut.index": index for stage, index in indices.items()}
    assert agree(net.outputs(net.state), net.outputs(wider | buffers, model=model))
    assert is_undone(symmetry, net.state)


def test_added_neurons_lie_among_the_old_ones() -> None:
    net = drawn(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), (3,), seed=0)
    generator = np.random.default_rng(0)
    places = [Growth.drawn(net.groups[0], 1, generator=generator).places[0] for _ in range(3000)]
    counts = np.bincount(places, minlength=6)
    # Six places, 500 each on average; a deviation is 20.
    assert (np.abs(counts - 500) < 120).all()


@FEW
@given(net=NETWORKS, seed=SEEDS, share=st.floats(0, 1))
def test_removed_channels_are_as_good_as_silent(net: Drawn, seed: int, share: float) -> None:
    removal = Removal.drawn(net.state, net.groups, share=share, generator=np.random.default_rng(seed))
    silent = dict(net.state)
    for group, gone in zip(net.groups, removal.removed(), strict=True):
        channels = group_channels(group)
        assert channels - len(gone) == max(1, round((1 - share) * channels))
        silent = without_outgoing(silent, group, gone)
    narrower = removal.apply(net.state)
    assert agree(net.outputs(silent), net.outputs(narrower))
    groups = removal.groups_after(net.state)
    permuted = Permutation.drawn(narrower, groups, generator=np.random.default_rng(seed)).apply(narrower)
    assert agree(net.outputs(silent), net.outputs(permuted))


def test_the_weakest_channels_are_removed() -> None:
    net = drawn(nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)), (3,), seed=0)
    state = net.state | {"0.weight": np.array([[1.0, 1, 1], [0, -4, 0], [0, 0, 2], [1, 2, 2]])}
    (scores,) = magnitudes(state, net.groups)
    assert scores.tolist() == [3, 4, 2, 5]
    removal = Removal.by_score(state, net.groups, [scores], share=0.5)
    assert removal.kept[0].tolist() == [1, 3]
    assert removal.removed()[0].tolist() == [0, 2]
    assert removal.apply(state)["0.weight"].tolist() == [[0, -4, 0], [1, 2, 2]]
    assert not removal.description.exact


def test_groups_that_share_an_axis_move_up_when_one_shrinks_or_grows() -> None:
    """Two layers' outputs one after the other, as behind a concatenation."""
    state = {"a": np.arange(4.0).reshape(2, 2), "b": np.ones((3, 2)), "c": np.arange(10.0).reshape(2, 5)}
    groups = tuple(
        (
            GroupMember(tensor=name, axis=0, block=1, runs=((0, count),)),
            GroupMember(tensor="c", axis=1, block=1, runs=((first, count),)),
        )
        for name, first, count in (("a", 0, 2), ("b", 2, 3))
    )
    removal = Removal(groups=groups, kept=(np.array([1]), np.array([0, 2])))
    assert removal.apply(state)["c"].tolist() == [[1, 2, 4], [6, 7, 9]]
    assert [[m.runs for m in group] for group in removal.groups_after(state)] == [
        [((0, 1),), ((0, 1),)],
        [((0, 2),), ((1, 2),)],
    ]
    generator = np.random.default_rng(0)
    chain, after = in_every_group(state, groups, added_by("split", generator))
    assert [[m.channels for m in group] for group in after] == [[4, 4], [5, 5]]
    assert after[1][1].positions().min() == 4
    assert is_undone(chain, state)


def test_what_a_removal_cannot_do_is_refused() -> None:
    net = drawn(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,), seed=0)
    with pytest.raises(ValueError, match="share is 1.5, expected 0 to 1"):
        Removal.drawn(net.state, net.groups, share=1.5, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"scores of shape \(3,\) for 4 channels"):
        Removal.by_score(net.state, net.groups, [np.ones(3)], share=0.5)
    narrow = net.state | {"2.weight": np.ones((2, 3))}
    with pytest.raises(ValueError, match="a channel group leaves '2.weight' of shape"):
        Removal.drawn(narrow, net.groups, share=0.5, generator=np.random.default_rng(0))


def test_channels_in_pieces_are_refused() -> None:
    """A head is one block of its dimensions: one dimension less, and the block is none."""
    state = {"v": np.ones((4, 3)), "o": np.ones((3, 4))}
    places = (("v", 0), ("o", 1))
    heads = tuple(GroupMember(tensor=name, axis=axis, block=2, runs=((0, 2),)) for name, axis in places)
    dimension = tuple(GroupMember(tensor=name, axis=axis, block=1, runs=((0, 2),)) for name, axis in places)
    grown = SplitNeurons.drawn(state, dimension, generator=np.random.default_rng(1)).growth
    with pytest.raises(ValueError, match="channels of 'v' on axis 0 are not in one piece any more"):
        grown.groups_after(state, [heads])


@pytest.mark.parametrize("kind", ["dead", "cancelling", "split", "silent", "cut"])
def test_weights_that_are_laid_out_the_other_way_are_named(kind: str) -> None:
    """A transposed convolution takes on its first axis and makes on its second."""
    layers = [nn.Conv2d(3, 5, 1), nn.ReLU(), nn.ConvTranspose2d(5, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 2, 3)]
    net = drawn(nn.Sequential(*layers), (3, SIDE, SIDE), seed=0)
    inward = ("2.weight", "4.weight")
    generator = np.random.default_rng(0)
    if kind == "cut":
        net.state["4.weight"][2] = 0
        symmetry: Symmetry = Cut.of(net.state, net.groups, inward=inward)
        assert symmetry.apply(net.state)["2.weight"].shape[1] < 6
    else:
        draw: dict[str, Callable[[State, ChannelGroup], Added]] = {
            "dead": lambda state, group: NewNeurons.dead(state, group, generator=generator, inward=inward),
            "silent": lambda state, group: NewNeurons.silent(state, group, generator=generator, inward=inward),
            "cancelling": lambda state, group: NewNeurons.cancelling(state, group, generator=generator, inward=inward),
            "split": lambda state, group: SplitNeurons.drawn(state, group, generator=generator, inward=inward),
        }
        symmetry, _ = in_every_group(net.state, net.groups, draw[kind])
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)
    scores = magnitudes(net.state, net.groups, inward=inward)
    assert scores[1] == pytest.approx(np.abs(net.state["2.weight"]).sum(axis=(0, 2, 3)))
