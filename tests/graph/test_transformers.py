"""Symmetries and surgery of a small language model, whose groups are written out here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from drawn_nets import Drawn, agree, is_undone
from ticketguard.graph import ChannelGroup, GroupMember
from ticketguard.graph.sides import whole_axis
from ticketguard.graph.surgery import BlockRemoval, NewNeurons, Removal, SplitNeurons, in_every_group
from ticketguard.graph.symmetries import EdgePermutation, Permutation, Scaling
from ticketguard.graph.transformation import Array, Chain, State

WIDTH, HEAD, INNER, VOCABULARY, LENGTH = 12, 4, 10, 9, 7
# Query heads and key/value heads: attention with a head each, and with shared ones.
HEADS = [(3, 3), (4, 2)]
PROJECTIONS = ("query", "key", "value")


class Layer(nn.Module):
    """Attention of however many heads the weights have, and a gated feed-forward network."""

    def __init__(self, heads: int, pairs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH, eps=1e-6)
        self.query, self.key = nn.Linear(WIDTH, heads * HEAD), nn.Linear(WIDTH, pairs * HEAD)
        self.value, self.out = nn.Linear(WIDTH, pairs * HEAD), nn.Linear(heads * HEAD, WIDTH)
        self.gate, self.up = nn.Linear(WIDTH, INNER, bias=False), nn.Linear(WIDTH, INNER, bias=False)
        self.down = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(stream)
        query, key, value = (
            getattr(self, name)(normed).unflatten(-1, (-1, HEAD)).transpose(1, 2) for name in PROJECTIONS
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        stream = stream + self.out(mixed.transpose(1, 2).flatten(2))
        normed = self.norm2(stream)
        return stream + self.down(functional.silu(self.gate(normed)) * self.up(normed))


class LanguageModel(nn.Module):
    def __init__(self, heads: int, pairs: int, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Parameter(torch.zeros(1, LENGTH, WIDTH))
        self.layers = nn.ModuleList([Layer(heads, pairs) for _ in range(layers)])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        stream = self.tokens(tokens) + self.places
        for layer in self.layers:
            stream = layer(stream)
        return self.norm(stream) @ self.tokens.weight.T


def language_model(heads: int, pairs: int) -> Drawn:
    generator = np.random.default_rng(heads)
    model = LanguageModel(heads, pairs).double()
    state = {
        name: generator.standard_normal(tensor.shape) * (1.0 if tensor.ndim == 1 else 0.5)
        for name, tensor in model.state_dict().items()
    }
    inputs = generator.integers(0, VOCABULARY, (2, LENGTH))
    return Drawn(model=model, state=state, inputs=inputs, groups=(), norms=())


def member(tensor: str, axis: int, *starts: int, count: int, block: int = 1) -> list[GroupMember]:
    return [GroupMember(tensor=tensor, axis=axis, block=block, runs=((start, count),)) for start in starts]


def stream(state: State) -> ChannelGroup:
    """Return the residual stream: every axis that is as wide."""
    places = [(name, axis) for name, array in state.items() for axis in range(array.ndim) if array.shape[axis] == WIDTH]
    # Where there are as many dimensions in all heads, that axis is no stream's.
    inside = {(f"{name}.{last}", 0) for name in PROJECTIONS for last in ("weight", "bias")} | {("out.weight", 1)}
    places = [(name, axis) for name, axis in places if (".".join(name.split(".")[-2:]), axis) not in inside]
    return tuple(whole_axis(state, name, axis) for name, axis in places)


def pairs_of(front: str, heads: int, pairs: int) -> ChannelGroup:
    """Return the key/value heads, each with all its query heads."""
    shared = heads // pairs * HEAD
    group = [
        member(f"{front}.{name}.{last}", 0, 0, count=pairs, block=shared if name == "query" else HEAD)
        for name in PROJECTIONS
        for last in ("weight", "bias")
    ]
    group.append(member(f"{front}.out.weight", 1, 0, count=pairs, block=shared))
    return tuple(itertools.chain.from_iterable(group))


def queries_of(front: str, heads: int, pairs: int) -> list[ChannelGroup]:
    """Return, per key/value head, its query heads."""
    shared = heads // pairs
    axes = [(f"{front}.query.weight", 0), (f"{front}.query.bias", 0), (f"{front}.out.weight", 1)]
    return [
        tuple(
            part for name, axis in axes for part in member(name, axis, pair * shared * HEAD, count=shared, block=HEAD)
        )
        for pair in range(pairs)
    ]


def dimensions_of(front: str, heads: int, pairs: int, made: str, taken: str) -> list[ChannelGroup]:
    """Return, per key/value head, the dimensions inside it, with those of each of its query heads."""
    shared = heads // pairs
    groups = []
    for pair in range(pairs):
        group = [member(f"{front}.{made}.{last}", 0, pair * HEAD, count=HEAD) for last in ("weight", "bias")]
        starts = [(pair * shared + head) * HEAD for head in range(shared)]
        if taken == "out":
            group += [member(f"{front}.out.weight", 1, *starts, count=HEAD)]
        else:
            group += [member(f"{front}.query.{last}", 0, *starts, count=HEAD) for last in ("weight", "bias")]
        groups.append(tuple(itertools.chain.from_iterable(group)))
    return groups


def inner_of(front: str) -> ChannelGroup:
    axes = [(f"{front}.gate.weight", 0), (f"{front}.up.weight", 0), (f"{front}.down.weight", 1)]
    return tuple(part for name, axis in axes for part in member(name, axis, 0, count=INNER))


def all_groups(state: State, heads: int, pairs: int) -> list[ChannelGroup]:
    groups = [stream(state)]
    for front in ("layers.0", "layers.1"):
        groups += [pairs_of(front, heads, pairs), *queries_of(front, heads, pairs), inner_of(front)]
        groups += dimensions_of(front, heads, pairs, "value", "out") + dimensions_of(
            front, heads, pairs, "key", "query"
        )
    return groups


@pytest.mark.parametrize(("heads", "pairs"), HEADS)
def test_everything_permuted_leaves_the_function_alone(heads: int, pairs: int) -> None:
    net = language_model(heads, pairs)
    groups = all_groups(net.state, heads, pairs)
    generator = np.random.default_rng(1)
    inside = Permutation.drawn(net.state, groups, generator=generator)
    vocabulary = EdgePermutation.drawn(net.state, ["tokens.weight"], edge="vocabulary", generator=generator)
    symmetry = Chain(steps=(inside, vocabulary))
    number = np.argsort(vocabulary.order)
    moved = symmetry.apply(net.state)
    assert all(not np.array_equal(moved[name], net.state[name]) for name in net.state)
    assert agree(net.outputs(net.state), net.outputs(moved, number[net.inputs])[..., number])
    assert is_undone(symmetry, net.state)


@pytest.mark.parametrize(("heads", "pairs"), HEADS)
def test_what_is_linear_scales_by_any_factor(heads: int, pairs: int) -> None:
    """Values, one factor of the gated product, what a norm gives: none of them goes through a function."""
    net = language_model(heads, pairs)
    generator = np.random.default_rng(2)
    steps: list[Scaling] = []
    for front in ("layers.0", "layers.1"):
        values = dimensions_of(front, heads, pairs, "value", "out")
        steps.append(Scaling.drawn(net.state, values, generator=generator, signs=True))
        inner = {part.tensor.split(".")[-2]: part for part in inner_of(front)}
        norm = tuple(whole_axis(net.state, f"{front}.norm1.{last}", 0) for last in ("weight", "bias"))
        taken = tuple(whole_axis(net.state, f"{front}.{name}.weight", 1) for name in PROJECTIONS)
        for made, by in (((inner["up"],), (inner["down"],)), (norm, taken)):
            factors = generator.uniform(0.5, 2.0, made[0].channels) * generator.choice([-1, 1], made[0].channels)
            steps.append(Scaling.between(net.state, made=made, taken=by, factors=factors))
        for group in dimensions_of(front, heads, pairs, "key", "query"):
            keys = tuple(part for part in group if ".key." in part.tensor)
            queries = tuple(part for part in group if ".query." in part.tensor)
            factors = np.array([2.0, -0.5, 1.0, -3.0])
            steps.append(Scaling.between(net.state, made=keys, taken=queries, factors=factors))
    symmetry = Chain(steps=tuple(steps))
    assert agree(net.outputs(net.state), net.outputs(symmetry.apply(net.state)))
    assert is_undone(symmetry, net.state)


@pytest.mark.parametrize(("heads", "pairs"), HEADS)
@pytest.mark.parametrize("kind", ["dead", "cancelling", "split"])
def test_heads_and_gated_units_are_added(heads: int, pairs: int, kind: str) -> None:
    net = language_model(heads, pairs)
    generator = np.random.default_rng(3)
    draw = {
        "dead": lambda state, group: NewNeurons.dead(state, group, generator=generator),
        "cancelling": lambda state, group: NewNeurons.cancelling(state, group, generator=generator),
        "split": lambda state, group: SplitNeurons.drawn(state, group, generator=generator),
    }[kind]
    groups = [make for front in ("layers.0", "layers.1") for make in (pairs_of(front, heads, pairs), inner_of(front))]
    symmetry, _ = in_every_group(net.state, groups, draw)
    wider = symmetry.apply(net.state)
    added = 2 if kind == "cancelling" else 1
    assert wider["layers.0.key.weight"].shape == ((pairs + added) * HEAD, WIDTH)
    assert agree(net.outputs(net.state), net.outputs(wider))
    assert is_undone(symmetry, net.state)


@pytest.mark.parametrize(("heads", "pairs"), HEADS)
def test_removed_heads_are_as_good_as_silent(heads: int, pairs: int) -> None:
    net = language_model(heads, pairs)
    group = pairs_of("layers.1", heads, pairs)
    removal = Removal(groups=(group,), kept=(np.arange(1, pairs),))
    silent = net.state | {"layers.1.out.weight": net.state["layers.1.out.weight"].copy()}
    silent["layers.1.out.weight"][:, : heads // pairs * HEAD] = 0
    assert agree(net.outputs(silent), net.outputs(removal.apply(net.state)))


def test_groups_of_what_is_left_of_shared_heads_still_hold() -> None:
    """Of four query heads that share two keys and values, one of each two goes."""
    net = language_model(4, 2)
    queries = queries_of("layers.0", 4, 2)
    inside = dimensions_of("layers.0", 4, 2, "value", "out") + dimensions_of("layers.0", 4, 2, "key", "query")
    removal = Removal(groups=tuple(queries), kept=(np.array([0]), np.array([1])))
    fewer = removal.apply(net.state)
    left = removal.groups_after(net.state, inside)
    assert [len(group) for group in left] == [
        len(group) - (1 if ".value." in group[0].tensor else 2) for group in inside
    ]
    permuted = Permutation.drawn(fewer, left, generator=np.random.default_rng(0)).apply(fewer)
    # The other layer has four query heads still, for the model reads off the weights how many there are.
    assert agree(net.outputs(fewer), net.outputs(permuted))


def test_groups_of_what_is_gone_are_gone() -> None:
    net = language_model(4, 2)
    removal = Removal(groups=(pairs_of("layers.0", 4, 2),), kept=(np.array([1]),))
    inside = dimensions_of("layers.0", 4, 2, "value", "out")
    assert len(removal.groups_after(net.state, inside)) == 1


def test_a_removed_block_is_as_good_as_its_shortcut() -> None:
    net = language_model(3, 3)
    removal = BlockRemoval.drawn(["layers.0", "layers.1"], generator=np.random.default_rng(0))
    number = int(removal.blocks[0][-1])
    silent: dict[str, Array] = dict(net.state)
    for last in ("out.weight", "out.bias", "down.weight"):
        silent[f"layers.{number}.{last}"] = np.zeros_like(silent[f"layers.{number}.{last}"])
    fewer = removal.apply(net.state)
    shallow = LanguageModel(3, 3, layers=1)
    assert fewer.keys() == shallow.state_dict().keys()
    assert agree(net.outputs(silent), net.outputs(fewer, model=shallow))
    assert not removal.description.exact
