"""Models built by name, by import path, or by the user's own factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from ticketguard.errors import ConfigurationError, TicketguardError
from ticketguard.import_paths import is_import_path, load_object
from ticketguard.models.blocks import REMOVED_BLOCKS, remove_blocks
from ticketguard.models.mlp import mlp
from ticketguard.models.modular_mlp import modular_mlp
from ticketguard.models.resnet_cifar import resnet20, resnet32, resnet56
from ticketguard.models.resnet_torchvision import resnet18, resnet50
from ticketguard.models.supernet import supernet
from ticketguard.models.transformer import transformer
from ticketguard.seeds import fill_generator
from ticketguard.settings import checked_options
from ticketguard.torchvision_shim import explanation

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
            a factory of the user's own that does not name them. ``removed_blocks`` is not the factory's: it names
            modules that are taken out of what any factory returns.
        seed: Fixes the initialisation.

    Raises:
        ConfigurationError: There is no such model, or its factory does not take these options or return a module.
    """
    options = checked_options(options, what="model option")
    factory = model_factory(model)
    removed = options.get(REMOVED_BLOCKS, ())
    options = _understood(factory, {name: value for name, value in options.items() if name != REMOVED_BLOCKS})
    # Weights are drawn on the CPU: its generator is the only one to fork, and accelerators are not even started.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fill_generator(torch.default_generator, seed)
        try:
            network = factory(**options)
        except TypeError as error:
            refused = _refused(factory, options)
            raise ConfigurationError(
                f"model '{_name(model)}' does not take the options {refused}: {error}{_taken(factory)}"
            ) from error
        # A factory is the user's own code: what it raises is not a bug of ours.
        except (Exception, SystemExit) as error:
            if isinstance(error, TicketguardError | MemoryError):
                raise
            if (told := explanation(error)) is not None:
                raise ConfigurationError(f"model '{_name(model)}' cannot be built: {told}") from error
            raise ConfigurationError(
                f"model '{_name(model)}' raised {type(error).__name__} ({error}): "
                f"call it with the options {sorted(options)} to see where"
            ) from error
    if not isinstance(network, nn.Module):
        raise ConfigurationError(f"model '{model}' returned a {type(network).__name__}, expected a torch.nn.Module")
    remove_blocks(network, removed)
    return network


def _name(model: str | Factory) -> str:
    return str(getattr(model, "__name__", model))


def _refused(factory: Factory, options: Mapping[str, Any]) -> list[str]:
    """Return the options that a factory has no parameter for; all of them where its signature does not say."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # written in C, without a signature
        return sorted(options)
    return sorted(set(options) - set(parameters)) or sorted(options)


def _taken(factory: Factory) -> str:
    """Say which options a factory takes, as far as it says so itself."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # written in C, without a signature
        return ""
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return ""  # what becomes of the others is for its own code to say
    return f"; it takes {', '.join(parameters) or 'none'}"


def _understood(factory: Factory, options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is offered to every factory but this one has no parameter for."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # written in C, without a signature
        return dict(options)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    offered = {"classes", "input_shape"}
    return {name: value for name, value in options.items() if takes_all or name in parameters or name not in offered}
