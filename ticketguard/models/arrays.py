"""A model's weights as arrays, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ticketguard.errors import TensorError
from ticketguard.settings import require_kind
from ticketguard.ticket import Array, Mask
from ticketguard.ticket.masked_tensors import require_text

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
    """Return a copy of the state dict as numpy arrays; floating tensors of 8 and 16 bits become float32.

    A buffer that holds infinities, as a mask of attention does, is left out: no ticket can hold it, and every model
    makes its own. NaN is not left out: a buffer that training spoilt holds it.

    Raises:
        ConfigurationError: *model* is not a model.
        TensorError: A tensor has no values, or is stored in a form that is not read.
    """
    _require_module(model)
    arrays: dict[str, Array] = {}
    buffers = _buffer_names(model)
    for name, tensor in model.state_dict().items():
        if (why := _why_unreadable(tensor)) is not None:
            raise TensorError(name=unwrapped_name(name), reason=why[0], hint=why[1])
        require_text(name)
        if unwrapped_name(name) in buffers and not _can_be_stored(tensor) and not tensor.isnan().any():
            continue
        plain = tensor.detach().cpu()
        if plain.is_floating_point() and plain.element_size() < torch.float32.itemsize:
            plain = plain.float()
        arrays[unwrapped_name(name)] = np.array(plain.contiguous().numpy())
    return arrays


def _require_module(model: object) -> None:
    require_kind(model, nn.Module, what="the model", hint="give the torch.nn.Module itself, not its state dict or name")


def _why_unreadable(tensor: object) -> tuple[str, str] | None:
    """Return why an entry of a state dict cannot be an array, and what to do about it; None if it can."""
    if not isinstance(tensor, torch.Tensor):
        hint = "a quantised model is not read: give the network as it was before"
        return f"is a {type(tensor).__name__}, expected a tensor", hint
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        return "has no shape yet", "run the model on a batch first: lazy layers get their weights then"
    if tensor.is_meta:
        return "is on the meta device and has no values", "build the model on another device, or load its weights"
    if tensor.is_quantized:
        return "is quantised", "give the network as it was before"
    if tensor.layout != torch.strided:
        return f"is stored as {tensor.layout}", "make it dense first (to_dense())"
    return None


def load_arrays(model: nn.Module, arrays: Mapping[str, Array], *, masked: Collection[str] = ()) -> None:
    """Load arrays by state-dict name into *model*, in place.

    Args:
        model: The model.
        arrays: Its state dict, as `require_shapes` takes it.
        masked: Of the names of tied weights, the one that is among these counts.

    Raises:
        TensorError: A tensor of the model is missing, has another shape, or has no memory of its own.
    """
    require_shapes(model, arrays)
    state = model.state_dict()
    for name, tensor in state.items():
        if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
            raise TensorError(
                name=unwrapped_name(name),
                reason="is expanded: several of its values lie in one place",
                hint="copy it (clone()) before it becomes a parameter",
            )
    with torch.no_grad():
        # Those that count are copied last.
        for name in sorted(state, key=lambda name: unwrapped_name(name) in masked):
            if unwrapped_name(name) in arrays:
                state[name].copy_(torch.from_numpy(np.array(arrays[unwrapped_name(name)])))


def require_shapes(model: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Check that arrays fit *model*, which may be on the meta device.

    Of tied weights one name is enough. A buffer that holds infinities, as a mask of attention does, may be missing and
    keeps the values it was made with: no ticket can hold them.

    Raises:
        ConfigurationError: *model* is not a model.
        TensorError: A tensor of the model is missing, or has another shape.
    """
    _require_module(model)
    tied = tied_names(model)
    given = {tied.get(name, name) for name in arrays}
    buffers = _buffer_names(model)
    for name, tensor in model.state_dict().items():
        plain = unwrapped_name(name)
        if plain not in arrays and not (
            tied.get(plain, plain) in given or (plain in buffers and not _can_be_stored(tensor))
        ):
            raise TensorError(
                name=plain, reason="is in the model but not in the ticket", hint="name the ticket's own model"
            )
        if plain in arrays and tuple(tensor.shape) != arrays[plain].shape:
            raise TensorError(
                name=plain,
                reason=f"has shape {arrays[plain].shape}, expected {tuple(tensor.shape)}",
                hint="name the ticket's own model",
            )


def _can_be_stored(tensor: torch.Tensor) -> bool:
    # What is on the meta device has no values yet; they are looked at when there are some.
    return not tensor.is_meta and (not tensor.is_floating_point() or bool(tensor.isfinite().all()))


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return the first name of each parameter that has several, by its other names."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, parameter in named_parameters(model, every_name=True).items():
        known = first.setdefault(id(parameter), name)
        if known != name:
            found[name] = known
    return found


def not_prunable(model: nn.Module) -> dict[str, str]:
    """Return why tensors of *model* are not weights to prune, in words, by name: buffers, tables, second names.

    Parameters of layers that are not pruned here, such as an LSTM's, are not among them: somebody may have pruned them.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    reasons = {name: f"it is '{first}' under a second name" for name, first in tied_names(model).items()}
    for name, parameter in named_parameters(model, every_name=True).items():
        if id(parameter) in tables:
            reasons[name] = "it is the table of an embedding"
    return reasons | dict.fromkeys(_buffer_names(model), "it is a buffer of the model, not a parameter")


def require_parameters(model: nn.Module, mask: Mask) -> None:
    """Check that a mask covers nothing but parameters of *model*, each under one name.

    Raises:
        ConfigurationError: *model* is not a model.
        TensorError: A layer is a buffer, is missing, is another one under a second name, or has another shape.
    """
    _require_module(model)
    tied = tied_names(model)
    first = {tied.get(name, name): name for name in mask}
    parameters, buffers = named_parameters(model, every_name=True), _buffer_names(model)
    for name in mask:
        if name in buffers:
            raise TensorError(
                name=name,
                reason="is masked but is a buffer of the model, which is neither trained nor pruned",
                hint="import the checkpoint again, with its model",
            )
        _require_masked(parameters, mask, name)
        if (other := first[tied.get(name, name)]) != name:
            raise TensorError(
                name=name,
                reason=f"is masked and is '{other}' under a second name, which is masked too",
                hint="mask it under one of its names",
            )


def _buffer_names(model: nn.Module) -> set[str]:
    return {unwrapped_name(name) for name, _ in model.named_buffers(remove_duplicate=False)}


def unwrapped_name(name: str) -> str:
    """Return a tensor's name without the prefixes of data-parallel wrappers and torch.compile."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


def named_parameters(model: nn.Module, *, every_name: bool = False) -> dict[str, nn.Parameter]:
    """Return the parameters by the names they have without wrappers; tied ones by their first, or by *every_name*."""
    return {
        unwrapped_name(name): parameter for name, parameter in model.named_parameters(remove_duplicate=not every_name)
    }


def mask_tensors(mask: Mask, parameters: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return each layer's mask as a tensor of its parameter's device, type and memory layout.

    Raises:
        TensorError: A masked layer is missing, or has another shape.
    """
    tensors = []
    for name in mask:
        _require_masked(parameters, mask, name)
        tensors.append(torch.empty_like(parameters[name]).detach().copy_(torch.from_numpy(np.array(mask[name]))))
    return tensors


def _require_masked(parameters: Mapping[str, torch.Tensor], mask: Mask, name: str) -> None:
    if name not in parameters or tuple(parameters[name].shape) != mask[name].shape:
        raise TensorError(
            name=name,
            reason="is masked but the model has no weights of its shape",
            hint="name the ticket's own model",
        )
