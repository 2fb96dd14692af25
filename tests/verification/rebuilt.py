"""Small marked networks of three kinds, as if trained, for thieves to rebuild."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

import ticketguard as tg
from tests.verification.claims import marked_weights, planted_mark, signed
from ticketguard.graph import ChannelGroup, channel_groups, groups_to_json
from ticketguard.graph.sides import Norm, norms_of
from ticketguard.graph.transformation import Array
from ticketguard.ticket import Mask, Ticket, TicketInfo

State = dict[str, Array]


class Block(nn.Module):
    """A basic block whose shortcut takes every other place and pads its channels (He et al. 2016, option A)."""

    def __init__(self, given: int, inner: int, made: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, inner, 3, stride=1 if given == made else 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, made, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(made)
        self.before = (made - given) // 2
        self.after = made - given - self.before

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(inputs)))))
        if self.before + self.after:
            inputs = nn.functional.pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))
        return torch.relu(out + inputs)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 160), nn.ReLU(), nn.Linear(160, 100), nn.ReLU(), nn.Linear(100, 10))


def flattened() -> nn.Module:
    """Convolutions with norms, and linear layers behind a flattened map of 3 by 3 places."""
    convolutions = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    convolutions += [nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(3)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(24 * 9, 40), nn.ReLU(), nn.Linear(40, 10))


def residual() -> nn.Module:
    blocks = [Block(12, 16, 12), Block(12, 16, 20), Block(20, 16, 20)]
    stem = [nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10))


INPUTS = {perceptron: (64,), flattened: (3, 9, 9), residual: (3, 9, 9)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marked:
    """A marked network.

    Attributes:
        ticket: The unmarked ticket.
        groups: Its channel groups.
        credential: The owner's.
        state: All tensors of the marked network, as if trained.
        norms: Which norm follows which layer.
    """

    ticket: Ticket
    groups: tuple[ChannelGroup, ...]
    credential: tg.Credential
    state: State
    norms: tuple[Norm, ...]


def structured_mask(shape: tuple[int, ...], density: float, generator: np.random.Generator) -> Array:
    """Return edges of a layer whose rows and columns are of many sizes, as those of trained tickets are."""
    rows, columns = (generator.lognormal(0, 0.5, size) for size in shape[:2])
    kernel = generator.lognormal(0, 0.3, shape[2:]) if len(shape) > 2 else np.ones(())
    likely = np.multiply.outer(np.multiply.outer(rows, columns), kernel)
    return np.asarray(generator.random(shape) < likely * density / likely.mean())


def unmarked(model: nn.Module, *, density: float = 0.15, seed: int = 0) -> Ticket:
    generator = np.random.default_rng(seed)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if tensor.ndim > 1}
    state = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    mask = Mask(layers={name: structured_mask(shape, density, generator) for name, shape in shapes.items()})
    return Ticket(mask=mask, weights=mask.applied(state), rewind_weights=state, info=TicketInfo(method="random"))


def trained(weights: Mapping[str, Array], model: nn.Module, seed: int) -> State:
    """Return all tensors of a network: weights that correlate at 0.7 with those it started from, and the rest drawn."""
    generator = np.random.default_rng(seed)
    state: State = {}
    for name, tensor in model.state_dict().items():
        if name in weights:
            noise = generator.normal(size=tensor.shape) * (weights[name] != 0)
            state[name] = (0.7 * weights[name] + 0.7 * noise).astype(np.float32)
        elif tensor.is_floating_point():
            drawn = generator.uniform(0.3, 1.5, tensor.shape)
            is_signed = name.endswith(("bias", "mean"))
            state[name] = (drawn * (generator.choice((-1, 1), tensor.shape) if is_signed else 1)).astype(np.float32)
    return state


def marked(model: nn.Module, inputs: Sequence[int], *, seed: int = 0, has_groups: bool = True) -> Marked:
    ticket = unmarked(model, seed=seed)
    groups = channel_groups(model.eval(), torch.zeros(1, *inputs))
    bound = groups_to_json(groups) if has_groups else None
    made = planted_mark(reference=ticket.reference(), groups=bound)
    state = trained(marked_weights(made, ticket), model, seed + 1)
    return Marked(
        ticket=ticket,
        groups=groups,
        credential=signed(made, reference=ticket.reference(), groups=bound),
        state=state,
        norms=norms_of(state, groups),
    )
