"""A model's weights as arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ticketguard.errors import TensorError
from ticketguard.ticket import Array, Mask

PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def prunable_layers(model: nn.Module) -> tuple[str, ...]:
    """Return the state-dict names of all convolution and linear weights, sorted."""
    return tuple(
        sorted(
            f"{name}.weight" if name else "weight"
            for name, module in model.named_modules()
            if isinstance(module, PRUNABLE)
        )
    )


def state_arrays(model: nn.Module) -> dict[str, Array]:
    """Return a copy of the state dict as numpy arrays; half-precision tensors become float32."""
    arrays: dict[str, Array] = {}
    for name, tensor in model.state_dict().items():
        plain = tensor.detach().cpu()
        if plain.dtype in (torch.bfloat16, torch.float16):
            plain = plain.float()
        arrays[unwrapped_name(name)] = np.array(plain.contiguous().numpy())
    return arrays


def load_arrays(model: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Load arrays by state-dict name into *model*, in place.

    Raises:
        TensorError: A tensor of the model is missing, or has another shape.
    """
    require_shapes(model, arrays)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.from_numpy(np.array(arrays[unwrapped_name(name)])))


def require_shapes(model: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Check that arrays fit *model*, which may be on the meta device.

    Raises:
        TensorError: A tensor of the model is missing, or has another shape.
    """
    for name, tensor in model.state_dict().items():
        plain = unwrapped_name(name)
        if plain not in arrays:
            raise TensorError(
                name=plain, reason="is in the model but not in the ticket", hint="name the ticket's own model"
            )
        if tuple(tensor.shape) != arrays[plain].shape:
            raise TensorError(
                name=plain,
                reason=f"has shape {arrays[plain].shape}, expected {tuple(tensor.shape)}",
                hint="name the ticket's own model",
            )


def unwrapped_name(name: str) -> str:
    """Return a tensor's name without the prefixes of data-parallel wrappers and torch.compile."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by the names they have without wrappers."""
    return {unwrapped_name(name): parameter for name, parameter in model.named_parameters()}


def mask_tensors(mask: Mask, parameters: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return each layer's mask as a tensor of its parameter's device, type and memory layout.

    Raises:
        TensorError: A masked layer is missing, or has another shape.
    """
    tensors = []
    for name in mask:
        if name not in parameters or tuple(parameters[name].shape) != mask[name].shape:
            raise TensorError(
                name=name,
                reason="is masked but the model has no weights of its shape",
                hint="name the ticket's own model",
            )
        tensors.append(torch.empty_like(parameters[name]).detach().copy_(torch.from_numpy(np.array(mask[name]))))
    return tensors
