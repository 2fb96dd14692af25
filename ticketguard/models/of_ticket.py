"""The model that a ticket belongs to: the one place where what a ticket names as its model is built.

A ticket that was read from a file may be a stranger's. Of it only the names of `MODELS` are used, with options that
make a model no larger than its tensors call for; anything else needs the user's word.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ticketguard.errors import ConfigurationError, UntrustedNameError
from ticketguard.import_paths import is_import_path
from ticketguard.models.arrays import load_arrays, require_shapes
from ticketguard.models.blocks import REMOVED_BLOCKS
from ticketguard.models.building import MODELS, Factory, build_model
from ticketguard.models.shrinking import drop_missing_branches, resize_to
from ticketguard.settings import checked_options
from ticketguard.ticket import Ticket

# Structures of tickets whose tensors are smaller than those of the model they were found in.
CUT_STRUCTURES = ("filter", "channel")

# What a file's options may ask for, as multiples of the file's own tensors: structured pruning that keeps an eighth of
# the channels keeps a 64th of the weights, and a few removed blocks leave most of the tensors. The constants let small
# tickets be cut further; ResNet-50 has 23.5 million weights in 161 tensors.
MOST_TIMES_VALUES, LEAST_VALUES = 64, 2**25
MOST_TIMES_TENSORS, LEAST_TENSORS = 16, 256
# An image of three channels at 591 x 591: activations are tens of times as large.
LARGEST_INPUT = 2**20


def model_of(ticket: Ticket, *, seed: int = 0, model: str | Factory | None = None) -> nn.Module:
    """Build the model that *ticket* belongs to, at initialisation and in the ticket's size.

    Args:
        ticket: Says model and options, and by its tensors how large what remains of a structured one is.
        seed: Fixes the initialisation.
        model: Takes the place of the ticket's model.

    Raises:
        ConfigurationError: There is no such model, or it cannot be made as small as the ticket.
        UntrustedNameError: The ticket is from a file that names an import path, and *model* is not given.
        TensorError: The ticket's tensors are those of another model.
    """
    network = _build(ticket, model, ticket.info.model_options, seed=seed, whole=False)
    if ticket.info.structure in CUT_STRUCTURES:
        drop_missing_branches(network, ticket.weights)
        resize_to(network, {name: array.shape for name, array in ticket.weights.items()})
    return network


def whole_model_of(
    ticket: Ticket, *, seed: int = 0, model: str | Factory | None = None, changes: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build the model that *ticket* was found in, at initialisation, before anything was removed from it.

    Args:
        ticket: Says model and options.
        seed: Fixes the initialisation.
        model: Takes the place of the ticket's model.
        changes: To the ticket's model options.

    Raises:
        ConfigurationError: There is no such model.
        UntrustedNameError: As `model_of`.
    """
    options = {name: value for name, value in ticket.info.model_options.items() if name != REMOVED_BLOCKS}
    changed = {**options, **checked_options(changes, what="model option")}
    return _build(ticket, model, changed, seed=seed, whole=True)


def trained_network(ticket: Ticket, *, model: str | Factory | None = None) -> nn.Module:
    """Build the model that *ticket* belongs to with its trained weights, in evaluation mode.

    Args:
        ticket: Says model, options and input shape.
        model: Takes the place of the ticket's model.

    Raises:
        ConfigurationError: The ticket does not name its model or input shape, or its file names a huge one.
        UntrustedNameError: As `model_of`.
        TensorError: The ticket's tensors are those of another model.
    """
    info = ticket.info
    if not (model or info.model) or not info.input_shape:
        raise ConfigurationError(
            "the ticket does not name its model and input shape: name the model, and give the shape to 'import'"
        )
    if info.from_file and math.prod(info.input_shape) > LARGEST_INPUT:
        raise UntrustedNameError(
            names=f"an input shape of {reprlib.repr(info.input_shape)}",
            deed=f"run though it has more than {LARGEST_INPUT} values",
            repeat="import the weights with your own --input-shape",
        )
    network = model_of(ticket, model=model)
    load_arrays(network, ticket.weights)
    return network.eval()


def _build(
    ticket: Ticket, model: str | Factory | None, options: Mapping[str, Any], *, seed: int, whole: bool
) -> nn.Module:
    info = ticket.info
    if not model and info.from_file and is_import_path(info.model):
        raise UntrustedNameError(
            names=f"code, model '{info.model}'",
            deed=f"imported and called with {_shown(options)}",
            repeat=f"repeat it with --model {info.model} (model=...)",
        )
    named = model or info.model
    if info.from_file and isinstance(named, str) and named in MODELS:
        _require_bounded(ticket, named, options, whole=whole)
    return build_model(named, options=options, seed=seed)


def _shown(options: Mapping[str, Any]) -> str:
    shown = reprlib.Repr()
    shown.maxdict, shown.maxstring, shown.maxother, shown.maxlevel = 12, 200, 60, 3
    return shown.repr(dict(options))


def _require_bounded(ticket: Ticket, name: str, options: Mapping[str, Any], *, whole: bool) -> None:
    """Refuse options that make more of a model than the ticket's tensors are, before any of it takes memory.

    Raises:
        ConfigurationError: The model would be far larger than the ticket.
        TensorError: A ticket that no tensor was cut of has other tensors than the model.
    """
    for option, value in options.items():
        numbers = value if isinstance(value, list | tuple) else (value,)
        if option != REMOVED_BLOCKS and not all(isinstance(n, int | float) and abs(n) < 2**31 for n in numbers):
            raise ConfigurationError(
                f"the ticket's model option '{option}' is {reprlib.repr(value)}, expected a number or a list of "
                "numbers: its file is damaged or forged"
            )
    values = max(LEAST_VALUES, MOST_TIMES_VALUES * sum(array.size for array in ticket.weights.values()))
    tensors = LEAST_TENSORS + MOST_TIMES_TENSORS * len(ticket.weights)
    with torch.device("meta"), _counted(name, values=values, tensors=tensors):
        sketch = build_model(name, options=options, seed=0)
    if not whole and ticket.info.structure not in CUT_STRUCTURES:
        require_shapes(sketch, ticket.weights)


@contextmanager
def _counted(name: str, *, values: int, tensors: int) -> Iterator[None]:
    """End the building of a model as soon as it has more than so many tensors, or values in them."""
    left = [values, tensors]

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        left[0] -= 0 if parameter is None else parameter.numel()
        left[1] -= 1
        if min(left) < 0:
            raise ConfigurationError(
                f"the ticket's options make model '{name}' larger than {values} values in {tensors} tensors, far more "
                "than the ticket has: its file is damaged or forged; name your own model with --model, or find it anew"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
