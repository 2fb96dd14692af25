"""ResNet-20, 32 and 56 for CIFAR (He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ticketguard.errors import ConfigurationError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A: subsample, pad with zero channels)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.extra_channels = outputs - inputs

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return activations of shape (batch, outputs, height / stride, width / stride)."""
        shortcut = inputs
        if self.stride != 1 or self.extra_channels:
            before = self.extra_channels // 2
            shortcut = functional.pad(
                inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra_channels - before)
            )
        hidden = functional.relu(self.bn1(self.conv1(inputs)))
        return functional.relu(self.bn2(self.conv2(hidden)) + shortcut)


class ResNetCifar(nn.Module):
    """A stem, three stages of basic blocks at once, twice and four times the width, and a linear classifier.

    Initialised as torch does, with a sixth of He et al.'s variance: global magnitude pruning after short training then
    ranks weights by what they learned rather than by their layer's initial scale.
    """

    def __init__(self, *, classes: int, channels: int, blocks: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks[0], 1)
        self.layer2 = self._stage(width, 2 * width, blocks[1], 2)
        self.layer3 = self._stage(2 * width, 4 * width, blocks[2], 2)
        self.fc = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, classes)."""
        hidden = functional.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: torch.Tensor = self.fc(hidden.mean(dim=(2, 3)))
        return logits


def resnet20(
    *, classes: int, input_shape: Sequence[int], blocks: Sequence[int] = (3, 3, 3), width: int = 16
) -> nn.Module:
    """Build ResNet-20: 0.27 million parameters.

    Args:
        classes: Number of outputs.
        input_shape: (channels, height, width).
        blocks: Residual blocks in each of the three stages.
        width: Channels of the first stage; the others have twice and four times as many.

    Raises:
        ConfigurationError: Inputs are not images, or the numbers of blocks or the width are not valid.
    """
    return _resnet("resnet20", classes=classes, input_shape=input_shape, blocks=blocks, width=width)


def resnet32(
    *, classes: int, input_shape: Sequence[int], blocks: Sequence[int] = (5, 5, 5), width: int = 16
) -> nn.Module:
    """Build ResNet-32: 0.46 million parameters; see `resnet20`."""
    return _resnet("resnet32", classes=classes, input_shape=input_shape, blocks=blocks, width=width)


def resnet56(
    *, classes: int, input_shape: Sequence[int], blocks: Sequence[int] = (9, 9, 9), width: int = 16
) -> nn.Module:
    """Build ResNet-56: 0.85 million parameters; see `resnet20`."""
    return _resnet("resnet56", classes=classes, input_shape=input_shape, blocks=blocks, width=width)


def _resnet(name: str, *, classes: int, input_shape: Sequence[int], blocks: Sequence[int], width: int) -> nn.Module:
    if len(input_shape) != 3:
        raise ConfigurationError(
            f"{name} takes images (channels, height, width), got inputs of shape {tuple(input_shape)}: use mlp"
        )
    given: object = blocks  # from a user
    if not isinstance(given, Sequence) or len(given) != 3 or not all(type(n) is int and n > 0 for n in given):
        raise ConfigurationError(f"{name}'s blocks are {blocks!r}, expected three numbers from 1, such as [3, 3, 3]")
    if type(width) is not int or width < 1:
        raise ConfigurationError(f"{name}'s width is {width!r}, expected a number of channels, such as 16")
    return ResNetCifar(classes=classes, channels=input_shape[0], blocks=blocks, width=width)
