"""How much a network computes: multiply-accumulates, layer by layer."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def uses_per_weight(model: nn.Module, input_shape: Sequence[int]) -> dict[str, int]:
    """Return how often one example multiplies each weight of a convolution or linear layer, by state-dict name.

    A layer's multiply-accumulates are that number times its weights, or times those that a mask keeps. Layers that one
    example does not pass have 0.

    Args:
        model: Any model; it is copied, not changed.
        input_shape: Shape of one input without the batch axis.
    """
    probe = copy.deepcopy(model).cpu().eval()
    uses: dict[str, int] = {}

    def count(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, _ConvNd):
            places = math.prod((inputs[0] if isinstance(module, _ConvTransposeNd) else output).shape[2:])
        else:
            places = math.prod(output.shape[1:-1])
        uses[name] += places

    for path, module in probe.named_modules():
        if isinstance(module, (_ConvNd, nn.Linear)):
            name = f"{path}.weight" if path else "weight"
            uses[name] = 0
            hook: Any = functools.partial(count, name)
            module.register_forward_hook(hook)
    with torch.no_grad():
        probe(torch.zeros(1, *input_shape))
    return uses
