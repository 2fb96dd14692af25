"""Which layers of a model get signs, and why others do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ticketguard.errors import ConfigurationError, TensorError, shortened
from ticketguard.ticket import Array

if TYPE_CHECKING:
    from torch import nn


def layers_to_sign(
    model: nn.Module, state: Mapping[str, Array], layers: Iterable[str] | None
) -> tuple[list[str], dict[str, str]]:
    """Return the names of the layers to sign, and why others with two or more axes are not, by name.

    Args:
        model: Any model.
        state: Its tensors.
        layers: The names that were asked for; None for all that can be signed, but for embeddings.

    Raises:
        ConfigurationError: There are none, or *layers* are not names.
        TensorError: A layer that was asked for cannot be signed.
    """
    from ticketguard.models import tied_names
    from ticketguard.models.arrays import named_parameters, not_prunable

    if layers is not None:
        return _named(layers, state, tied_names(model)), {}
    refused = not_prunable(model)
    names = [name for name in named_parameters(model) if name not in refused and state[name].ndim > 1]
    left_out = {name: why for name in names if (why := _why_not(state[name])) is not None}
    if len(left_out) == len(names):
        found = "".join(f"; '{name}' {why}" for name, why in list(left_out.items())[:1])
        raise ConfigurationError(
            f"the model has no weights with two or more axes to sign: name them with layers={found}"
        )
    return [name for name in names if name not in left_out], left_out


def _named(layers: Iterable[str], state: Mapping[str, Array], tied: Mapping[str, str]) -> list[str]:
    if isinstance(layers, str) or not isinstance(layers, Sequence | set | frozenset):
        raise ConfigurationError(f"layers are {shortened(layers)}, expected a list of state-dict names")
    if not layers:
        raise ConfigurationError("layers are an empty list: name some, or leave layers= out to sign all")
    for name in layers:
        if not isinstance(name, str):
            raise ConfigurationError(f"layers hold {shortened(name)}, expected state-dict names")
        if name not in state:
            raise TensorError(name=name, reason="is not in the model", hint="name layers as its state dict does")
        if name in tied:
            raise TensorError(
                name=name, reason=f"is '{tied[name]}' under a second name", hint=f"name '{tied[name]}' alone"
            )
        if (why := _why_not(state[name])) is not None:
            raise TensorError(name=name, reason=why, hint="leave it out")
    return list(layers)


def _why_not(layer: Array) -> str | None:
    if not layer.size:
        return "has no elements"
    return None if layer.dtype.kind == "f" else f"has type {layer.dtype}, whose values have no sign to draw"
