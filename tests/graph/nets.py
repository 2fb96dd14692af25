"""Small networks with every kind of coupled channels, and suspects made from a reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ticketguard.ticket import FloatArray, Mask, Reference


class Block(nn.Module):
    """A CIFAR ResNet's basic block with a zero-padded shortcut (He et al. 2016, option A)."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, made, 3, stride=made // given, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(made)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(made)
        self.grown = made - given

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(inputs)))))
        if self.grown:
            inputs = functional.pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, self.grown // 2, self.grown - self.grown // 2))
        return torch.relu(out + inputs)


def resnet(blocks: int = 2, width: int = 16) -> nn.Module:
    widths = [width * 2 ** (index // blocks) for index in range(3 * blocks)]
    stages = [Block(given, made) for given, made in zip([width, *widths], widths, strict=False)]
    stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10))


def flattened() -> nn.Module:
    """A linear layer behind a feature map: each channel is 16 of its inputs."""
    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 10))


def depthwise() -> nn.Module:
    layers = [
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.BatchNorm2d(16),
        nn.Hardswish(),
        nn.Conv2d(16, 6, 1),
    ]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(96, 5))


def grouped() -> nn.Module:
    """Groups of four filters move as blocks."""
    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=3), nn.ReLU(), nn.Conv2d(12, 5, 1))


class Concatenated(nn.Module):
    """DenseNet's way: features are concatenated, split and multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 12, 3, padding=1)
        self.bn = nn.BatchNorm2d(20)
        self.gate = nn.Conv2d(20, 12, 1)
        self.norm = nn.GroupNorm(3, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        one = torch.relu(self.one(inputs))
        both = self.bn(torch.cat([one, self.two(one)], dim=1))
        value, gate = self.gate(both).chunk(2, dim=1)
        return self.last(self.norm(value * torch.sigmoid(gate)).mean(dim=(2, 3)))


class TokenMixer(nn.Module):
    """Transposed features, a layer norm and attention-like heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.norm = nn.LayerNorm(12)
        self.mix = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(32, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)
        heads = self.mix(functional.gelu(self.norm(tokens))).reshape(1, -1, 4, 2).transpose(1, 2)
        return self.head(torch.softmax(heads, dim=-1).transpose(1, 2).reshape(1, -1).unsqueeze(0).squeeze(0))


class Selected(nn.Module):
    """Takes out one channel, and answers from the last row."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 1)
        self.first = nn.Linear(8, 12)
        self.second = nn.Linear(12, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = self.first(torch.relu(self.convolution(inputs))[:, 2])
        return self.second(torch.relu(rows)[:, -1])


def reference_of(model: nn.Module, *, density: float, seed: int) -> tuple[Reference, dict[str, FloatArray]]:
    """Return a reference ticket and the marked, retrained ticket that came of it.

    The mask holds the largest of weights that have drifted from the rewind weights. In the marked ticket 5% of its
    edges moved, and the weights correlate with the rewind weights at about 0.6.
    """
    generator = np.random.default_rng(seed)
    mask, rewind, marked = {}, {}, {}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        start = generator.standard_normal(parameter.shape)
        drifted = np.abs(start + generator.standard_normal(start.shape))
        layer_density = max(density, min(1.0, 60 / start.size))
        mask[name] = drifted >= np.quantile(drifted, 1 - layer_density)
        kept, pruned = np.flatnonzero(mask[name]), np.flatnonzero(~mask[name])
        moved = min(len(kept) // 20, len(pruned))
        edges = mask[name].reshape(-1).copy()
        edges[generator.choice(kept, moved, replace=False)] = False
        edges[generator.choice(pruned, moved, replace=False)] = True
        rewind[name] = start.astype(np.float32)
        trained = 0.6 * start + 0.8 * generator.standard_normal(start.shape)
        marked[name] = (trained * edges.reshape(start.shape)).astype(np.float32)
    kept_weights = {name: rewind[name][mask[name]] for name in mask}
    return Reference(mask=Mask(layers=mask), kept_weights=kept_weights), marked


def rescaled(layers: Mapping[str, FloatArray], generator: np.random.Generator) -> dict[str, FloatArray]:
    """Multiply every row and column by positive factors between 1/3 and 3."""
    result = {}
    for name, layer in layers.items():
        rows = np.exp(generator.uniform(-1.1, 1.1, (layer.shape[0],) + (1,) * (layer.ndim - 1)))
        columns = np.exp(generator.uniform(-1.1, 1.1, (1, layer.shape[1]) + (1,) * (layer.ndim - 2)))
        result[name] = (layer * rows * columns).astype(np.float32)
    return result
