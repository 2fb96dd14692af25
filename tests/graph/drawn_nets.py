"""Random small networks with every kind of coupled channels, and what comes out of them under another state dict."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from ticketguard.graph import ChannelGroup, channel_groups
from ticketguard.graph.sides import Norm, norms_of, sides_of, takes
from ticketguard.graph.transformation import Array, State, Symmetry

# Odd, so that a kernel that takes every other place takes the same ones from both sides.
SIDE = 9


class Shortcut(nn.Module):
    """Every other place of some channels, picked by an index; -1 picks zeros."""

    def __init__(self, index: Array) -> None:
        super().__init__()
        self.register_buffer("index", torch.as_tensor(index))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        padded = torch.cat([inputs, torch.zeros_like(inputs[:, :1])], dim=1)
        return padded[:, self.index, ::2, ::2]


class Padding(nn.Module):
    """Every other place, between as many channels of zeros (He et al. 2016, option A)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    def __init__(self, given: int, inner: int, made: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, inner, 3, stride=1 if given == made else 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, made, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(made)
        self.shortcut = shortcut

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(inputs)))))
        return torch.relu(out + self.shortcut(inputs))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """A network, its tensors in double precision, a batch, and what is found out about it."""

    model: nn.Module
    state: dict[str, Array]
    inputs: Array
    groups: tuple[ChannelGroup, ...]
    norms: tuple[Norm, ...]

    def outputs(self, state: State, inputs: Array | None = None, model: nn.Module | None = None) -> Array:
        tensors = {name: torch.tensor(np.asarray(array)) for name, array in state.items()}
        batch = torch.as_tensor(self.inputs if inputs is None else inputs)
        with torch.no_grad():
            return functional_call((model or self.model).eval(), tensors, (batch,), strict=True).numpy()


def agree(one: Array, other: Array) -> bool:
    return bool(one.shape == other.shape and np.abs(one - other).max() <= 1e-9 * np.abs(one).max())


def is_undone(symmetry: Symmetry, state: State) -> bool:
    """Say whether what is undone is what was there, the state given being left alone."""
    copy = {name: array.copy() for name, array in state.items()}
    back = symmetry.undo(symmetry.apply(state))
    assert all(np.array_equal(copy[name], state[name]) for name in state)
    return back.keys() == state.keys() and all(
        back[name].dtype == state[name].dtype and np.allclose(back[name], state[name], rtol=1e-12, atol=1e-12)
        for name in state
    )


def changes(symmetry: Symmetry, state: State) -> bool:
    after = symmetry.apply(state)
    return any(not np.array_equal(after[name], state[name]) for name in state if name in after)


def drawn(model: nn.Module, shape: tuple[int, ...], seed: int) -> Drawn:
    """Give a network weights of which half are missing, scales of both signs and shifts that matter."""
    generator = np.random.default_rng(seed)
    model = model.double().eval()
    state: dict[str, Array] = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            state[name] = tensor.numpy().copy()
        elif tensor.ndim > 1:
            values = generator.standard_normal(tensor.shape) * (2 / tensor[0].numel()) ** 0.5
            state[name] = values * (generator.random(tensor.shape) < 0.5)
        elif name.endswith("running_var"):
            state[name] = generator.uniform(0.3, 2.0, tensor.shape)
        else:
            state[name] = generator.uniform(0.3, 1.2, tensor.shape) * generator.choice([-1.0, 1.0], tensor.shape)
    groups = channel_groups(model, torch.zeros(1, *shape))
    inputs = generator.standard_normal((3, *shape))
    return Drawn(model=model, state=state, inputs=inputs, groups=groups, norms=norms_of(state, groups))


def without_outgoing(state: State, group: ChannelGroup, channels: Array) -> dict[str, Array]:
    """Return *state* with some channels of a group that nobody takes."""
    result = dict(state)
    for side in sides_of(group, state):
        if takes(side, state):
            result[side.tensor] = result[side.tensor].copy()
            np.moveaxis(result[side.tensor], side.axis, 0)[side.positions()[channels].reshape(-1)] = 0
    return result


WIDTHS = st.integers(2, 6)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def perceptrons(draw: st.DrawFn) -> Drawn:
    widths = [5, *draw(st.lists(WIDTHS, min_size=1, max_size=3)), 4]
    has_norms, has_bias = draw(st.booleans()), draw(st.booleans())
    layers: list[nn.Module] = []
    for given, made in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(given, made, bias=has_bias), *([nn.BatchNorm1d(made)] if has_norms else []), nn.ReLU()]
    return drawn(nn.Sequential(*layers, nn.Linear(widths[-2], 4)), (5,), draw(SEEDS))


@st.composite
def chains(draw: st.DrawFn) -> Drawn:
    """Convolutions in a row, and a linear layer behind their flattened map or its mean."""
    widths = [3, *draw(st.lists(WIDTHS, min_size=1, max_size=3))]
    has_norms = draw(st.booleans())
    layers: list[nn.Module] = []
    for given, made in itertools.pairwise(widths):
        layers += [nn.Conv2d(given, made, 3, padding=1, bias=draw(st.booleans()))]
        layers += [*([nn.BatchNorm2d(made)] if has_norms else []), nn.LeakyReLU(0.1)]
    side = draw(st.sampled_from([1, 3]))
    pool = nn.AdaptiveAvgPool2d(1) if side == 1 else nn.MaxPool2d(3)
    layers += [pool, nn.Flatten(), nn.Linear(widths[-1] * side * side, 4)]
    return drawn(nn.Sequential(*layers), (3, SIDE, SIDE), draw(SEEDS))


def residual(widths: list[int], inner: int, blocks: int, *, indices: Mapping[int, Array] | None = None) -> nn.Module:
    """Build stages of equal blocks; between stages a shortcut pads, or picks by an index per stage."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    for stage, width in enumerate(widths):
        if stage:
            given = widths[stage - 1]
            before = (width - given) // 2
            pad = Padding(before, width - given - before)
            layers.append(Block(given, inner, width, pad if indices is None else Shortcut(indices[stage])))
        layers += [Block(width, inner, width, nn.Identity()) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4))


@st.composite
def residuals(draw: st.DrawFn) -> Drawn:
    """Residual networks of one stage: every shortcut is the identity."""
    return drawn(residual([draw(WIDTHS)], draw(WIDTHS), draw(st.integers(1, 2))), (3, SIDE, SIDE), draw(SEEDS))


class SelfFed(nn.Module):
    """A residual stream of which one layer takes and makes the same channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.inner, self.last = nn.Linear(5, width), nn.Linear(width, width), nn.Linear(width, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        stream = torch.relu(self.stem(inputs))
        return self.last(stream + torch.relu(self.inner(stream)))


@st.composite
def self_fed(draw: st.DrawFn) -> Drawn:
    return drawn(SelfFed(draw(WIDTHS)), (5,), draw(SEEDS))


NETWORKS = st.one_of(perceptrons(), chains(), residuals(), self_fed())
