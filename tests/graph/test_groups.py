from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nets import Concatenated, Selected, TokenMixer, depthwise, flattened, grouped, mlp, resnet
from ticketguard.errors import ConfigurationError
from ticketguard.graph import (
    ChannelGroup,
    GroupMember,
    channel_groups,
    check_fit,
    group_channels,
    groups_from_json,
    groups_to_json,
    permute,
)

SHAPE = (1, 3, 8, 8)
# Per network, how many hidden channels can be moved; a grouped convolution's blocks count once each.
NETWORKS = {
    "mlp": (mlp, 40 + 30),
    # The shortcut's 16 channels, 16 and 32 that padding adds to it, and what lies inside the blocks.
    "resnet": (resnet, 16 + 16 + 32 + 2 * (16 + 32 + 64)),
    "flattened": (flattened, 12),
    "depthwise": (depthwise, 8 + 6),
    "grouped": (grouped, 3),
    "concatenated": (Concatenated, 8 + 12 + 3),
    "token mixer": (TokenMixer, 12 + 4),
    "selected": (Selected, 12),
}


def permuted_outputs_differ_by(model: nn.Module, groups: tuple[ChannelGroup, ...], seed: int) -> float:
    generator = np.random.default_rng(seed)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    permuted = permute(state, groups, [np.roll(generator.permutation(group_channels(group)), 1) for group in groups])
    other = copy.deepcopy(model)
    other.load_state_dict({name: torch.as_tensor(array) for name, array in permuted.items()})
    inputs = torch.from_numpy(generator.standard_normal(SHAPE))
    with torch.no_grad():
        return float((model(inputs) - other(inputs)).abs().max() / model(inputs).abs().max())


def lively(model: nn.Module) -> nn.Module:
    """Give scales and running statistics values that differ from channel to channel."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.double().eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_permuting_channels_preserves_the_function(name: str) -> None:
    factory, channels = NETWORKS[name]
    model = lively(factory())
    groups = channel_groups(model, torch.zeros(SHAPE))
    assert sum(group_channels(group) for group in groups) == channels

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1))
    def holds(seed: int) -> None:
        assert permuted_outputs_differ_by(model, groups, seed) < 1e-9

    holds()


@pytest.mark.parametrize("name", NETWORKS)
def test_leaving_out_a_layer_changes_the_function(name: str) -> None:
    model = lively(NETWORKS[name][0]())
    groups = channel_groups(model, torch.zeros(SHAPE))
    floating = {name for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    for tensor in floating & {member.tensor for group in groups for member in group}:
        parts = tuple(tuple(member for member in group if member.tensor != tensor) for group in groups)
        parts = tuple(part for part in parts if part)
        assert permuted_outputs_differ_by(model, parts, seed=0) > 1e-6, tensor


def test_the_model_and_the_global_generator_are_left_alone() -> None:
    model = resnet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    channel_groups(model.train(), torch.zeros(SHAPE))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_groups_do_not_depend_on_the_weights() -> None:
    assert channel_groups(resnet(), torch.zeros(SHAPE)) == channel_groups(resnet(), torch.ones(SHAPE))


class Cumulative(nn.Module):
    """Uses the order of its channels in an operation that has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(192, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.middle(torch.cumsum(self.first(inputs.flatten(1)), dim=1))))


def test_groups_do_not_depend_on_the_memory_layout_that_training_left() -> None:
    layers = (
        nn.Conv2d(1, 6, 1),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 8, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    example = torch.zeros(1, 1, 8, 8)
    before = channel_groups(nn.Sequential(*layers), example)
    assert len(before) == 2
    assert channel_groups(nn.Sequential(*layers).to(memory_format=torch.channels_last), example) == before


def test_an_unknown_operation_fixes_the_channels_it_touches_and_no_others() -> None:
    (group,) = channel_groups(Cumulative(), torch.zeros(SHAPE))
    assert {(member.tensor, member.axis) for member in group} == {
        ("middle.weight", 0),
        ("middle.bias", 0),
        ("last.weight", 1),
    }


class Deceptive(nn.Module):
    """Reads a weight's order behind the tracer's back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(192, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(inputs.flatten(1)))
        return self.last(torch.relu(self.middle(hidden))) * float(self.first.bias[0])


def test_a_group_that_changes_the_function_is_dropped() -> None:
    (group,) = channel_groups(Deceptive(), torch.zeros(SHAPE))
    assert {member.tensor for member in group} == {"middle.weight", "middle.bias", "last.weight"}


def test_shared_weights_are_named_everywhere() -> None:
    shared = nn.Linear(16, 16)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(16, 3))
    (group,) = channel_groups(model, torch.zeros(SHAPE))
    assert {member.tensor for member in group} >= {"3.weight", "5.weight", "3.bias", "5.bias"}


def test_a_model_that_does_not_run_on_the_shape_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match=r"does not run on an input of shape \(1, 5, 8, 8\)"):
        channel_groups(resnet(), torch.zeros(1, 5, 8, 8))


@pytest.mark.parametrize(
    "member",
    [
        ["w", 0, 1],
        ["w", 0, 1, 0],
        ["w", 0, 0, 0, 4],
        ["w", -1, 1, 0, 4],
        ["w", 0, 1, -1, 4],
        ["w", 0, 1, 0, True],
        ["w", 0, 1, 0, 2.0],
        ["w", 0, 1.0, 0, 4],
        ["w", 1.0, 1, 0, 4],
        [3, 0, 1, 0, 4],
        ["w"],
        [],
        "w",
        ["w", 0, 2**30, 0, 0],
        ["w", 0, 1, 4, 2, 7, 0],
        ["w", 2, 1, 0, 4],
    ],
)
def test_malformed_groups_are_refused(member: list[object]) -> None:
    with pytest.raises(ValueError, match="a channel group's member is malformed"):
        groups_from_json([[member]])


@pytest.mark.parametrize(
    "document",
    [
        [[["w", 1, 2, 0, 2, 3, 1]]],
        [[["w", 0, 1, 0, 4], ["w", 0, 1, 4, 4], ["w", 0, 2, 7, 4]]],
        [[["w", 0, 1, 0, 4]]] * 120,
        [[["w", 0, 1, 0, 4]], [["v", 0, 1, 0, 2], ["w", 0, 1, 2**52, 2]], [["w", 0, 1, 3, 2]]],
    ],
)
def test_a_position_belongs_to_one_channel(document: list[list[list[object]]]) -> None:
    with pytest.raises(ValueError, match="twice on axis"):
        groups_from_json(document)


def test_the_two_axes_of_a_tensor_are_apart() -> None:
    assert len(groups_from_json([[["w", 0, 1, 0, 4], ["w", 1, 1, 0, 4]]])) == 1


@pytest.mark.parametrize(
    "document",
    [[[["w", 0, 1, 0, 2]] * 100_001], [[["w", 0, 1, *range(2_000_000)]]]],
)
def test_more_groups_than_any_network_has_are_refused(document: list[list[list[object]]]) -> None:
    with pytest.raises(ValueError, match="expected at most 100000 of 1000000"):
        groups_from_json(document)


def test_as_many_groups_as_allowed_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    document = [[["w", 0, 1, 0, 1, 1, 1], ["v", 0, 1, 0, 2]]]  # each member's first three entries may count as a run
    monkeypatch.setattr("ticketguard.graph.groups.MOST_MEMBERS", 2)
    monkeypatch.setattr("ticketguard.graph.groups.MOST_RUNS", 6)
    assert groups_to_json(groups_from_json(document)) == document
    with pytest.raises(ValueError, match="channel groups have 3 members of"):
        groups_from_json([*document, [["u", 0, 1, 0, 2]]])
    with pytest.raises(ValueError, match=r"channel groups have 2 members of \d+ runs, expected at most 2 of 6"):
        groups_from_json([[["w", 0, 1, 0, 1, 1, 1, 2, 1], ["v", 0, 1, 0, 1, 1, 1, 2, 1]]])


MEMBERS = st.lists(
    st.one_of(st.sampled_from(["w", "v"]), st.integers(-1, 6), st.integers(), st.none(), st.booleans()), max_size=8
)
# Tensor, axis, block, first position and channels.
WELL_FORMED = st.tuples(
    st.sampled_from(["w", "v"]), st.integers(0, 2), st.integers(1, 2), st.integers(0, 4), st.integers(1, 3)
).map(list)
DOCUMENTS = st.one_of(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3)),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
        max_leaves=12,
    ),
    st.lists(st.lists(MEMBERS, max_size=3), max_size=4),
    st.lists(st.lists(WELL_FORMED, min_size=1, max_size=2), max_size=3),
)


@settings(max_examples=100)
@given(DOCUMENTS)
def test_any_document_is_refused_or_gives_groups_that_are_apart(document: object) -> None:
    shapes = {"w": (5, 6), "v": (4, 3, 2)}
    try:
        groups = groups_from_json(document)
        check_fit(groups, shapes)
    except ValueError:
        return
    taken: set[tuple[str, int, int]] = set()
    for group in groups:
        assert len({member.channels for member in group}) == 1
        for member in (member for member in group if member.tensor in shapes):
            for position in member.positions().reshape(-1).tolist():
                assert (member.tensor, member.axis, position) not in taken
                assert position < shapes[member.tensor][member.axis]
                taken.add((member.tensor, member.axis, position))


def test_members_that_disagree_on_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="disagree on its channels"):
        groups_from_json([[["w", 0, 1, 0, 4], ["v", 1, 1, 0, 3]]])


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(ValueError, match="disagree on its channels"):
        groups_from_json([[]])


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (["w", 0, 1, 0, 5], r"leaves 'w' of shape \(4, 6\) on axis 0"),
        (["w", 0, 1, 0, 2**53 - 1], "leaves 'w'"),
        (["w", 0, 1, 0, 10**400], "leaves 'w'"),
        (["w", 1, 2, 2, 3], "leaves 'w'"),
        (["b", 1, 1, 0, 1], r"leaves 'b' of shape \(4,\) on axis 1"),
    ],
)
def test_groups_that_do_not_fit_their_tensor_are_refused(member: list[object], reason: str) -> None:
    groups = groups_from_json([[member]])
    with pytest.raises(ValueError, match=reason):
        check_fit(groups, {"w": (4, 6), "b": (4,)})
    check_fit(groups, {"v": (1, 1)})


def test_traced_groups_fit_their_model() -> None:
    model = resnet()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_fit(channel_groups(model, torch.zeros(SHAPE)), shapes)


MEMBER = GroupMember(tensor="w", axis=1, block=2, runs=((0, 1), (4, 2)))


def test_blocks_and_runs_say_where_channels_lie() -> None:
    assert MEMBER.channels == 3
    assert MEMBER.positions().tolist() == [[0, 1], [4, 5], [6, 7]]
    (row,) = permute({"w": np.arange(9)[None]}, [(MEMBER,)], [np.array([2, 0, 1])])["w"]
    assert row.tolist() == [6, 7, 2, 3, 0, 1, 4, 5, 8]


def test_permuting_leaves_its_arguments_and_absent_tensors_alone() -> None:
    weights = {"w": np.arange(9)[None]}
    other = dataclasses.replace(MEMBER, tensor="absent")
    permute(weights, [(MEMBER, other)], [np.array([2, 0, 1])])
    assert weights["w"].tolist() == [list(range(9))]


def test_permutations_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="0 permutations for 1 groups"):
        permute({}, [(MEMBER,)], [])
    with pytest.raises(ValueError, match="expected a permutation of 3 channels"):
        permute({}, [(MEMBER,)], [np.array([0, 0, 1])])
