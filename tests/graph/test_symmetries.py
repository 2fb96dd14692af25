from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from drawn_nets import NETWORKS, SEEDS, SIDE, Drawn, agree, chains, changes, drawn, is_undone, perceptrons, residual
from ticketguard.graph import GroupMember
from ticketguard.graph.sides import Norm, norms_of
from ticketguard.graph.symmetries import (
    EdgePermutation,
    NormFolding,
    NormScaling,
    Permutation,
    Scaling,
    Shortcut,
    StreamPermutation,
    Turn,
    shortcut_index,
    streams_of,
)
from ticketguard.graph.transformation import Chain

FEW = settings(max_examples=12, deadline=None)


@FEW
@given(net=NETWORKS, seed=SEEDS)
def test_permuted_channels_leave_the_function_alone(net: Drawn, seed: int) -> None:
    symmetry = Permutation.drawn(net.state, net.groups, generator=np.random.default_rng(seed))
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)


@FEW
@given(net=NETWORKS, seed=SEEDS)
def test_scaled_channels_leave_the_function_alone(net: Drawn, seed: int) -> None:
    generator = np.random.default_rng(seed)
    symmetry = Scaling.drawn(net.state, net.groups, generator=generator, norms=net.norms)
    assert changes(symmetry, net.state)
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)


@FEW
@given(net=NETWORKS, seed=SEEDS, signs=st.booleans())
def test_layers_scaled_before_their_norm_leave_the_function_alone(net: Drawn, seed: int, signs: bool) -> None:
    symmetry = NormScaling.drawn(net.state, net.norms, generator=np.random.default_rng(seed), signs=signs)
    assert changes(symmetry, net.state) == bool(net.norms)
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)


def test_signs_flip_through_an_odd_function() -> None:
    net = drawn(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)), (5,), seed=1)
    flips = [np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])]
    symmetry = Scaling.of(net.state, net.groups, flips)
    assert changes(symmetry, net.state)
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))


def depthwise(*, norms: bool) -> Drawn:
    norm = nn.BatchNorm2d if norms else nn.Identity
    layers = [nn.Conv2d(3, 6, 1), norm(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1, groups=6), norm(6), nn.ReLU()]
    grouped = [nn.Conv2d(6, 6, 1, groups=3), nn.ReLU(), nn.Conv2d(6, 4, 1)]
    return drawn(nn.Sequential(*layers, *grouped, nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, SIDE, SIDE), seed=2)


@pytest.mark.parametrize("norms", [True, False])
def test_channels_scale_through_convolutions_that_keep_them_apart(norms: bool) -> None:
    net = depthwise(norms=norms)
    grouped = ("3.weight", "6.weight")
    symmetry = Scaling.drawn(
        net.state, net.groups, generator=np.random.default_rng(0), norms=net.norms, grouped=grouped
    )
    assert changes(symmetry, net.state)
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)


def test_weights_that_are_laid_out_the_other_way_are_named() -> None:
    """A transposed convolution takes on its first axis and makes on its second."""
    layers = [nn.Conv2d(3, 5, 1), nn.ReLU(), nn.ConvTranspose2d(5, 6, 3), nn.BatchNorm2d(6), nn.ReLU()]
    net = drawn(nn.Sequential(*layers, nn.Conv2d(6, 2, 1)), (3, SIDE, SIDE), seed=0)
    inward, generator = ("2.weight",), np.random.default_rng(0)
    norms = norms_of(net.state, net.groups, inward=inward)
    assert norms == (Norm(layer="2.weight", norm="3"),)
    before = NormScaling.drawn(net.state, norms, generator=generator, signs=True, inward=inward)
    behind = Scaling.drawn(net.state, net.groups, generator=generator, norms=norms, inward=inward)
    symmetry = Chain(steps=(before, behind))
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)
    folded = NormFolding.of(net.state, norms, inward=inward)
    assert agree(net.outputs(net.state), net.outputs(folded.apply(net.state), model=without_norms(net.model)))
    assert is_undone(folded, net.state)


def test_what_a_norm_makes_of_a_sum_is_not_scaled() -> None:
    group = (
        GroupMember(tensor="one.weight", axis=0, block=1, runs=((0, 4),)),
        GroupMember(tensor="norm.weight", axis=0, block=1, runs=((0, 4),)),
    )
    state = {"one.weight": np.ones((4, 3)), "norm.weight": np.ones(4)}
    with pytest.raises(ValueError, match="norm 'norm' follows no layer of its group: say which, or leave it out"):
        Scaling.drawn(state, [group], generator=np.random.default_rng(0))


def test_layers_whose_sum_is_normalised_are_scaled_alike() -> None:
    """As in networks that normalise first: two layers make the stream, two norms take it."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)
            self.norm, self.final = nn.BatchNorm1d(6), nn.BatchNorm1d(6)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            stream = self.stem(inputs)
            return self.last(torch.relu(self.final(stream + self.inner(torch.relu(self.norm(stream))))))

    net = drawn(Sum(), (5,), seed=3)
    pairs = [("stem.weight", "norm"), ("stem.weight", "final"), ("inner.weight", "final")]
    norms = [Norm(layer=layer, norm=norm) for layer, norm in pairs]
    symmetry = NormScaling.drawn(net.state, norms, generator=np.random.default_rng(0), signs=True)
    assert changes(symmetry, net.state)
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)


def test_a_norm_without_scale_cannot_take_a_factor_back() -> None:
    with pytest.raises(ValueError, match="norm '1' has no scale: leave it out"):
        NormScaling.drawn({}, [Norm(layer="0.weight", norm="1")], generator=np.random.default_rng(0))


def without_norms(model: nn.Module) -> nn.Module:
    """Return a model of the same layers in which norms do nothing and every layer has a bias."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    layers = [nn.Identity() if isinstance(layer, norms) else copy.deepcopy(layer) for layer in model.children()]
    for layer in layers:
        if getattr(layer, "bias", 0) is None:
            layer.bias = nn.Parameter(torch.zeros(layer.weight.shape[0]))
    return nn.Sequential(*layers).double()


@FEW
@given(net=st.one_of(perceptrons(), chains()))
def test_folded_norms_leave_the_function_alone(net: Drawn) -> None:
    symmetry = NormFolding.of(net.state, net.norms)
    folded = symmetry.apply(net.state)
    assert not any("running" in name for name in folded)
    assert is_undone(symmetry, net.state)
    model = without_norms(net.model)
    folded = {**{name: torch.zeros_like(tensor).numpy() for name, tensor in model.state_dict().items()}, **folded}
    assert agree(net.outputs(net.state), net.outputs(folded, model=model))


def test_a_layer_behind_a_scale_of_zero_cannot_be_had_back() -> None:
    state = {"0.weight": np.ones((2, 2)), "1.weight": np.array([1.0, 0.0]), "1.bias": np.zeros(2)}
    state |= {"1.running_mean": np.zeros(2), "1.running_var": np.ones(2)}
    symmetry = NormFolding.of(state, [Norm(layer="0.weight", norm="1")])
    with pytest.raises(ValueError, match="norm '1' has a scale of zero: its layer cannot be had back"):
        symmetry.undo(symmetry.apply(state))


@FEW
@given(seed=SEEDS, blocks=st.integers(0, 2))
def test_streams_permuted_stage_by_stage_leave_the_function_alone(seed: int, blocks: int) -> None:
    widths = [3, 6, 8]
    net = drawn(residual(widths, 4, blocks), (3, SIDE, SIDE), seed)
    streams = streams_of(net.state, net.groups)
    assert sorted(member.channels for stream in streams for member in stream[:1]) == widths
    # Per stage one norm that its stream goes through.
    firsts = [1, *(3 + stage * (blocks + 1) - 1 for stage in (1, 2))]
    norms = ["1.weight", *(f"{first}.bn2.weight" for first in firsts[1:])]
    order = [next(i for i, stream in enumerate(streams) if norm in {m.tensor for m in stream}) for norm in norms]
    indices = {s: shortcut_index(net.state, net.groups, given=norms[s - 1], made=norms[s]) for s in (1, 2)}
    assert indices[1].tolist() == [-1, 0, 1, 2, -1, -1]
    indexed = residual(widths, 4, blocks, indices=indices)
    names = [name for name in indexed.state_dict() if name.endswith("index")]
    state = net.state | {name: indices[stage] for stage, name in enumerate(names, start=1)}
    symmetry = StreamPermutation.drawn(
        state,
        streams,
        generator=np.random.default_rng(seed),
        shortcuts=[
            Shortcut(given=order[stage - 1], made=order[stage], index=indices[stage], tensor=name)
            for stage, name in enumerate(names, start=1)
        ],
    )
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(state), model=indexed))
    assert is_undone(symmetry, state)


@FEW
@given(net=perceptrons(), seed=SEEDS)
def test_edges_permuted_need_a_wrapper_and_no_more(net: Drawn, seed: int) -> None:
    generator = np.random.default_rng(seed)
    last = [name for name in net.state if net.state[name].ndim > 1][-1]
    inputs = EdgePermutation.drawn(net.state, ["0.weight"], edge="inputs", generator=generator)
    outputs = EdgePermutation.drawn(
        net.state, [last, last.replace("weight", "bias")], edge="outputs", generator=generator
    )
    both = Chain(steps=(inputs, outputs))
    found = net.outputs(both.apply(net.state), net.inputs[:, inputs.order])
    assert agree(net.outputs(net.state)[:, outputs.order], found)
    assert is_undone(both, net.state)


def test_a_tied_embedding_takes_its_vocabulary_along() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.bias = nn.Embedding(7, 4), nn.Parameter(torch.zeros(7))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.tokens(tokens)) @ self.tokens.weight.T + self.bias

    generator = np.random.default_rng(0)
    model = Tied().double()
    state = {name: generator.standard_normal(tensor.shape) for name, tensor in model.state_dict().items()}
    net = Drawn(model=model, state=state, inputs=np.arange(7)[None], groups=(), norms=())
    layers = ["tokens.weight", "bias"]
    symmetry = EdgePermutation.drawn(state, layers, edge="vocabulary", generator=generator)
    number = np.argsort(symmetry.order)
    found = net.outputs(symmetry.apply(state), number[net.inputs])
    assert agree(net.outputs(state), found[..., number])
    assert "token numbers" in symmetry.description.around


def test_layers_that_do_not_share_an_edge_are_refused() -> None:
    state = {"one": np.ones((3, 2)), "other": np.ones((4, 3))}
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"\['one', 'other'\] have different numbers of inputs"):
        EdgePermutation.drawn(state, ["one", "other"], edge="inputs", generator=generator)
    with pytest.raises(ValueError, match="axis 1 of 'other' has 3 positions, expected blocks of 2"):
        EdgePermutation.drawn(state, ["other"], edge="inputs", generator=generator, block=2)


def test_norms_are_found_by_the_names_of_their_layers() -> None:
    model = nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 4, 1),
            "bn1": nn.BatchNorm2d(4),
            "down": nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
            "bn0": nn.BatchNorm2d(4),
        }
    )
    # Sorted, as safetensors keeps them: the order of names says nothing.
    state = {name: tensor.numpy() for name, tensor in sorted(model.state_dict().items())}
    members = [GroupMember(tensor=name, axis=0, block=1, runs=((0, 4),)) for name in state if state[name].ndim]
    alone = [member for member in members if member.tensor.startswith(("conv1", "bn0"))]
    assert norms_of(state, [tuple(alone)]) == (Norm(layer="conv1.weight", norm="bn0"),)
    wider = state | {"bn0.running_var": np.ones(5)}
    assert norms_of(wider, [tuple(alone)]) == ()
    assert set(norms_of(state, [tuple(members)])) == {
        Norm(layer="conv1.weight", norm="bn1"),
        Norm(layer="down.0.weight", norm="down.1"),
    }


def test_a_chain_says_what_its_steps_are() -> None:
    net = depthwise(norms=False)
    permutation = Permutation.drawn(net.state, net.groups, generator=np.random.default_rng(0))
    chain = Chain(steps=(permutation, Turn.every(net.state)[3], permutation))
    assert chain.description.name == "channels permuted + kernels turned: axes [0, 1], mirrored [0, 1]"
    assert chain.description.exact
    assert chain.description.around.startswith("inputs are turned the same way")
