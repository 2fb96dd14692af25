"""torchvision's ResNet-18 and ResNet-50 with the stem that CIFAR-sized images take."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.torchvision_shim import import_torchvision


def _with_cifar_stem(name: str, classes: int, input_shape: Sequence[int]) -> nn.Module:
    if len(input_shape) != 3:
        raise ConfigurationError(
            f"{name} takes images (channels, height, width), got inputs of shape {tuple(input_shape)}: use mlp"
        )
    # A 7x7 stride-2 convolution and pooling would leave 8x8 of a 32x32 image: the usual CIFAR stem is 3x3, stride 1.
    network: nn.Module = getattr(import_torchvision("torchvision.models"), name)(weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(input_shape[0], 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


def resnet18(*, classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Build ResNet-18 with a CIFAR stem: 11.2 million parameters.

    Args:
        classes: Number of outputs.
        input_shape: (channels, height, width).
    """
    return _with_cifar_stem("resnet18", classes, input_shape)


def resnet50(*, classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Build ResNet-50 with a CIFAR stem: 23.5 million parameters.

    Args:
        classes: Number of outputs.
        input_shape: (channels, height, width).
    """
    return _with_cifar_stem("resnet50", classes, input_shape)
