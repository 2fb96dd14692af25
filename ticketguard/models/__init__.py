"""Architectures by name, or the user's own by import path, and their weights as arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from ticketguard.errors import ConfigurationError, TensorError, TicketguardError
from ticketguard.models.blocks import REMOVED_BLOCKS, Block, removable_blocks, remove_blocks
from ticketguard.models.mlp import mlp
from ticketguard.models.modular_mlp import modular_mlp
from ticketguard.models.resnet_cifar import resnet20, resnet32, resnet56
from ticketguard.models.resnet_torchvision import resnet18, resnet50
from ticketguard.models.shrinking import cuttable_groups, drop_missing_branches, remove_channels, resize_to
from ticketguard.models.supernet import supernet
from ticketguard.models.transformer import transformer
from ticketguard.plugins import is_import_path, load_object
from ticketguard.ticket import Array, Mask, Ticket

Factory: TypeAlias = Callable[..., nn.Module]

MODELS: dict[str, Factory] = {
    "mlp": mlp,
    "modular_mlp": modular_mlp,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet50": resnet50,
    "resnet56": resnet56,
    "supernet": supernet,
    "transformer": transformer,
}
# Structures of tickets whose tensors are smaller than those of the model they were found in.
CUT_STRUCTURES = ("filter", "channel")
PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def model_factory(model: str | Factory) -> Factory:
    """Return the factory a name, an import path or a factory stands for.

    Raises:
        ConfigurationError: There is no such model.
    """
    if callable(model):
        return model
    if model in MODELS:
        return MODELS[model]
    if is_import_path(model):
        found = load_object(model)
        if callable(found):
            return found
        raise ConfigurationError(
            f"model '{model}' is a {type(found).__name__}, expected a function that returns a module"
        )
    known = ", ".join(sorted(MODELS))
    raise ConfigurationError(f"unknown model '{model}', expected one of {known}, or package.module:factory")


def build_model(model: str | Factory, *, options: Mapping[str, Any], seed: int) -> nn.Module:
    """Build a model, initialised by *seed*; torch's global generator is left as it was.

    Args:
        model: A name, an import path or a factory.
        options: The factory's arguments; the built-in ones take ``classes`` and ``input_shape``, which are left out for
            a factory of the user's own that does not name them. ``removed_blocks`` is no factory's: it names modules
            that are taken out of what any factory returns.
        seed: Fixes the initialisation.

    Raises:
        ConfigurationError: There is no such model, or its factory does not take these options or return a module.
    """
    factory = model_factory(model)
    removed = options.get(REMOVED_BLOCKS, ())
    options = _understood(factory, {name: value for name, value in options.items() if name != REMOVED_BLOCKS})
    # Weights are drawn on the CPU: its generator is the only one to fork, and accelerators are not even started.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            network = factory(**options)
        except TypeError as error:
            raise ConfigurationError(
                f"model '{getattr(model, '__name__', model)}' does not take the options {sorted(options)}: {error}"
            ) from error
        # A factory is the user's own code: what it raises is no bug of ours.
        except (Exception, SystemExit) as error:
            if isinstance(error, TicketguardError | MemoryError):
                raise
            raise ConfigurationError(
                f"model '{getattr(model, '__name__', model)}' raised {type(error).__name__} ({error}): "
                f"call it with the options {sorted(options)} to see where"
            ) from error
    if not isinstance(network, nn.Module):
        raise ConfigurationError(f"model '{model}' returned a {type(network).__name__}, expected a torch.nn.Module")
    remove_blocks(network, removed)
    return network


def model_of(ticket: Ticket, *, seed: int = 0, model: str | Factory | None = None) -> nn.Module:
    """Build the model that *ticket* belongs to, at initialisation and in the ticket's size.

    Args:
        ticket: Says model and options, and by its tensors how large what remains of a structured one is.
        seed: Fixes the initialisation.
        model: Takes the place of the ticket's model.

    Raises:
        ConfigurationError: There is no such model, or it cannot be made as small as the ticket.
        TensorError: The ticket's tensors are those of another model.
    """
    network = build_model(model or ticket.info.model, options=ticket.info.model_options, seed=seed)
    if ticket.info.structure in CUT_STRUCTURES:
        drop_missing_branches(network, ticket.weights)
        resize_to(network, {name: array.shape for name, array in ticket.weights.items()})
    return network


def trained_network(ticket: Ticket, *, model: str | Factory | None = None) -> nn.Module:
    """Build the model that *ticket* belongs to with its trained weights, in evaluation mode.

    Args:
        ticket: Says model, options and input shape.
        model: Takes the place of the ticket's model.

    Raises:
        ConfigurationError: The ticket does not say its model or input shape.
        TensorError: The ticket's tensors are those of another model.
    """
    if not (model or ticket.info.model) or not ticket.info.input_shape:
        raise ConfigurationError(
            "the ticket does not say its model and input shape: name the model, and give the shape to 'import'"
        )
    network = model_of(ticket, model=model)
    load_arrays(network, ticket.weights)
    return network.eval()


def _understood(factory: Factory, options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is offered to every factory but this one has no parameter for."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # written in C, without a signature
        return dict(options)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    offered = {"classes", "input_shape"}
    return {name: value for name, value in options.items() if takes_all or name in parameters or name not in offered}


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
    state = model.state_dict()
    for name, tensor in state.items():
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
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[unwrapped_name(name)])))


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


__all__ = [
    "MODELS",
    "REMOVED_BLOCKS",
    "Block",
    "Factory",
    "build_model",
    "cuttable_groups",
    "drop_missing_branches",
    "load_arrays",
    "mask_tensors",
    "model_factory",
    "model_of",
    "named_parameters",
    "prunable_layers",
    "removable_blocks",
    "remove_blocks",
    "remove_channels",
    "resize_to",
    "state_arrays",
    "trained_network",
    "unwrapped_name",
]
