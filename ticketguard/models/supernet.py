"""A small supernet: inverted-residual cells of parallel depthwise branches, from which a search drops channels.

The search block is that of You et al. 2022, "SuperTickets", section 3.1, after HR-NAS (Ding et al. 2021) and AtomNAS
(Mei et al. 2020, section 3.1): a cell's output is a sum over hidden channels, each with its row of the expansion, its
depthwise kernel and its column of the projection, so each can be dropped on its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ticketguard.errors import ConfigurationError


class Branch(nn.Module):
    """Hidden channels of one depthwise kernel size: expansion, depthwise convolution, projection."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.expand_bn = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return this branch's part of the cell's sum, shape (batch, outputs, height / stride, width / stride)."""
        hidden = functional.relu(self.expand_bn(self.expand(inputs)))
        hidden = functional.relu(self.depthwise_bn(self.depthwise(hidden)))
        result: torch.Tensor = self.project(hidden)
        return result


class Cell(nn.Module):
    """The sum of its branches, normalised, and a shortcut where the shape stays.

    Attributes:
        branches: By name, ``kernel3`` and so on; a branch that a search emptied is not there.
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int, kernels: Sequence[int], stride: int) -> None:
        super().__init__()
        # The kernels share the hidden channels evenly; the smaller, cheaper ones take what is left over.
        share, rest = divmod(hidden, len(kernels))
        self.branches = nn.ModuleDict(
            {
                f"kernel{kernel}": Branch(inputs, share + (place < rest), outputs, kernel=kernel, stride=stride)
                for place, kernel in enumerate(kernels)
            }
        )
        self.bn = nn.BatchNorm2d(outputs)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return activations of shape (batch, outputs, height / stride, width / stride)."""
        first, *others = (branch(inputs) for branch in self.branches.values())
        result: torch.Tensor = self.bn(sum(others, start=first))
        return result + inputs if self.has_shortcut else result


class Supernet(nn.Module):
    """A stem, stages of cells that halve the resolution from the second on, and a linear classifier."""

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        kernels: Sequence[int],
        expansion: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(widths[0])
        cells: list[nn.Module] = []
        inputs = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for place in range(depth):
                stride = 2 if stage and not place else 1
                cells.append(Cell(inputs, width, hidden=expansion * inputs, kernels=kernels, stride=stride))
                inputs = width
        self.cells = nn.Sequential(*cells)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, classes)."""
        hidden = self.cells(functional.relu(self.stem_bn(self.stem(inputs))))
        logits: torch.Tensor = self.classifier(hidden.mean(dim=(2, 3)))
        return logits


def supernet(
    *,
    classes: int,
    input_shape: Sequence[int],
    widths: Sequence[int] = (16, 24, 40),
    depths: Sequence[int] = (2, 2, 2),
    kernels: Sequence[int] = (3, 5, 7),
    expansion: int = 4,
) -> nn.Module:
    """Build a supernet for small images.

    Args:
        classes: Number of outputs.
        input_shape: (channels, height, width).
        widths: Channels between the cells, a stage each.
        depths: Cells of each stage.
        kernels: Depthwise kernel sizes, odd; a branch each.
        expansion: A cell's hidden channels, over all branches, as a multiple of its inputs (the paper's is 4).

    Raises:
        ConfigurationError: Inputs are not images, or the sizes do not make a network.
    """
    if len(input_shape) != 3:
        raise ConfigurationError(
            f"supernet takes images (channels, height, width), got inputs of shape {tuple(input_shape)}: use mlp"
        )
    if not widths or len(widths) != len(depths) or min(*widths, *depths) < 1:
        raise ConfigurationError(
            f"supernet has widths {list(widths)} and depths {list(depths)}, expected one of each a stage, 1 or more"
        )
    if not kernels or len(set(kernels)) != len(kernels) or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
        raise ConfigurationError(f"supernet has kernels {list(kernels)}, expected distinct odd numbers")
    if expansion * min(widths) < len(kernels):
        raise ConfigurationError(
            f"supernet has {expansion * min(widths)} hidden channels in its narrowest cell for {len(kernels)} "
            "branches: raise widths or expansion"
        )
    return Supernet(
        classes=classes,
        channels=input_shape[0],
        widths=widths,
        depths=depths,
        kernels=sorted(kernels),
        expansion=expansion,
    )
