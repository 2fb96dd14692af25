"""How much a network computes: multiplications of its convolution and linear layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from ticketguard.ticket import Mask


def multiplications(model: nn.Module, example: torch.Tensor, *, mask: Mask | None = None) -> int:
    """Return the multiplications of one forward pass, one for every use of a weight that is kept.

    Normalisation, activations and what attention multiplies besides its weights are left out, as is usual.

    Args:
        model: Any model on the CPU; its mode is left as it was.
        example: One normalised input, with the batch axis.
        mask: Weights outside it are not multiplied with.
    """
    uses: Counter[str] = Counter()

    def counter(name: str, transposed: bool) -> Any:
        def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            # Every weight is used once at each place that its layer writes to, or, transposed, reads from.
            if isinstance(module, nn.Linear):
                uses[name] += output.numel() // module.out_features
            else:
                uses[name] += (inputs[0] if transposed else output)[0, 0].numel()

        return count

    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    plain = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    handles = [
        module.register_forward_hook(counter(f"{path}.weight" if path else "weight", isinstance(module, transposed)))
        for path, module in model.named_modules()
        if isinstance(module, plain + transposed)
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    state = model.state_dict()
    kept = {name: int(mask[name].sum()) for name in mask} if mask is not None else {}
    return sum(count * kept.get(name, state[name].numel()) for name, count in uses.items())
