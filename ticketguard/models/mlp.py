"""Multi-layer perceptron for small images and feature vectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import nn


def mlp(*, classes: int, input_shape: Sequence[int], widths: Sequence[int] = (300, 100)) -> nn.Module:
    """Build a ReLU perceptron; the default widths are LeNet-300-100 (LeCun et al. 1998).

    Args:
        classes: Number of outputs.
        input_shape: Shape of one input, flattened first.
        widths: Hidden layers.
    """
    sizes = [math.prod(input_shape), *widths]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
