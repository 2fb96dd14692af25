"""Residual blocks of any model: which can be removed, and the model without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ticketguard.errors import ConfigurationError

if TYPE_CHECKING:
    from ticketguard.graph.probing import Probe

# The option of every model that names the blocks it is built without; a ticket keeps it with the factory's own.
REMOVED_BLOCKS = "removed_blocks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A residual block that can be removed.

    Attributes:
        name: Its module's name, such as "layer1.2".
        layers: State-dict names of its prunable weights, sorted.
    """

    name: str
    layers: tuple[str, ...]


def removable_blocks(model: nn.Module, example_input: torch.Tensor, *, layers: Sequence[str]) -> tuple[Block, ...]:
    """Find the residual blocks of *model* whose shortcut is the identity.

    Each has been tried: with all its tensors zero, so that only the shortcut is left, the model computes what it
    computes without the block. That excludes whatever changes resolution or width beside its branch, and everything
    that is not a residual block. Of blocks within blocks the innermost are returned.

    Args:
        model: Any model; it is copied, not changed.
        example_input: A batch the model accepts; floating inputs give only their shape.
        layers: State-dict names of the prunable weights; a block has some of them.

    Returns:
        The blocks in the order of the model's modules; none if there are none.
    """
    from ticketguard.graph.probing import outputs_agree, probe_of

    probe = probe_of(model, example_input)
    found: dict[str, Block] = {}
    names = [name for name, _ in probe.model.named_modules() if name]
    for name in sorted(names, key=lambda name: -name.count(".")):  # inner ones before those around them
        own = tuple(layer for layer in sorted(layers) if layer.startswith(f"{name}.") and layer != f"{name}.weight")
        if not own or any(inner.startswith(f"{name}.") for inner in found):
            continue
        answers = _without(probe, name)
        if answers is not None and outputs_agree(*answers) and not probe.agrees(answers[0]):
            found[name] = Block(name=name, layers=own)
    return tuple(found[name] for name in names if name in found)


def _without(probe: Probe, name: str) -> tuple[list[torch.Tensor], list[torch.Tensor]] | None:
    """Return the answers with module *name* zeroed, and with it taken out; None where it cannot be."""
    module = probe.model.get_submodule(name)
    tensors = [*module.parameters(), *module.buffers()]
    kept = [tensor.clone() for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.zero_()
        zeroed = probe.ask(probe.model)
        _replace(probe.model, name, nn.Identity())
        return zeroed, probe.ask(probe.model)
    except Exception:  # whatever a model's own code raises where a part of it is not the one it expects
        return None
    finally:
        _replace(probe.model, name, module)
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.copy_(value)


def remove_blocks(model: nn.Module, names: Sequence[str]) -> None:
    """Put nothing in the place of blocks of *model*, in place; all other modules keep their names.

    Raises:
        ConfigurationError: *names* is not a list of names, or the model has no such module.
    """
    given: object = names  # from a user, or a file
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise ConfigurationError(f"{REMOVED_BLOCKS} is {names!r}, expected a list of names such as ['layer1.1']")
    if len(names) > (modules := sum(1 for _ in model.modules())):
        raise ConfigurationError(f"{REMOVED_BLOCKS} has {len(names)} names, more than the {modules} modules there are")
    for name in names:
        try:
            model.get_submodule(name)
        except AttributeError as error:
            raise ConfigurationError(
                f"{REMOVED_BLOCKS} names '{name}', which this model does not have: "
                "name blocks as its state dict does, such as 'layer1.1'"
            ) from error
        if not name:
            raise ConfigurationError(f"{REMOVED_BLOCKS} names the whole model: name blocks such as 'layer1.1'")
        _replace(model, name, nn.Identity())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
