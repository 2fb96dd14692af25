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

from ticketguard.ticket import Mask


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


def multiplications(model: nn.Module, input_shape: Sequence[int], *, mask: Mask | None = None) -> int:
    """Return the multiply-accumulates that one example takes, one for every use of a weight that is kept.

    Normalisation, activations and what attention multiplies besides its weights are left out, as is usual.

    Args:
        model: Any model; it is copied, not changed.
        input_shape: Shape of one input without the batch axis.
        mask: Weights outside it are not multiplied with.
    """
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    kept = {name: int(mask[name].sum()) for name in mask} if mask is not None else {}
    return sum(count * kept.get(name, sizes[name]) for name, count in uses_per_weight(model, input_shape).items())
