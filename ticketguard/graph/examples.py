"""Inputs that a model may take: numbers, or the tokens of a vocabulary, alone or with what else it asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

# Asks a model for its outputs on an input.
Ask: TypeAlias = Callable[[nn.Module, Any], Any]
# What a model takes: one tensor, several in order, or several by name; the first axis of each is the batch.
Example: TypeAlias = torch.Tensor | Sequence[Any] | Mapping[str, Any]

# What ties channels together does not depend on how many tokens there are, and few are quick.
TOKENS = 16
# Every vocabulary has two tokens.
LEAST_VOCABULARY = 2


def examples(model: nn.Module, example: Example | None, generator: torch.Generator) -> Iterator[Example]:
    """Yield inputs of one example each that *model* may run on, the likeliest first.

    All are in double precision or whole numbers. Those of a model's own choice differ from place to place, so that a
    wrong group of channels is noticed.

    Args:
        model: Its embedding layers say how many tokens there may be.
        example: An input that the model accepts, or zeros of its shape; None if unknown.
        generator: Draws values.
    """
    if example is None:
        if is_of_tokens(model):
            yield from _tokens(model, (1, TOKENS), generator)
        return
    if not isinstance(example, torch.Tensor):
        yield _each(example, lambda tensor: _drawn(_first(tensor), generator))
        yield _each(example, _first)
        return
    given = _first(example)
    is_telling = bool((given != given.reshape(-1)[0]).any()) if given.numel() else False
    if given.is_floating_point():
        yield _drawn(given, generator)
    if is_telling:
        yield given
    shape = tuple(given.shape)
    if len(shape) == 2 and shape[1] > TOKENS and not is_telling:
        yield from _tokens(model, (1, TOKENS), generator)
    yield from _tokens(model, shape, generator)
    if given.is_floating_point():  # a model that makes whole numbers of what it is given
        yield from (tokens.to(torch.float64) for tokens in _tokens(model, shape, generator))
    if not is_telling:
        yield given


def _first(tensor: torch.Tensor) -> torch.Tensor:
    """Return the first example of a batch, on the CPU."""
    one = tensor[:1].detach().to("cpu")
    return one.to(torch.float64) if one.is_floating_point() else one


def _drawn(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64)


def _each(example: Sequence[Any] | Mapping[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> Example:
    if isinstance(example, Mapping):
        return {key: change(one) if isinstance(one, torch.Tensor) else one for key, one in example.items()}
    return tuple(change(one) if isinstance(one, torch.Tensor) else one for one in example)


def is_tokens(value: Example) -> bool:
    """Say whether an input is of whole numbers."""
    return isinstance(value, torch.Tensor) and not value.is_floating_point()


def is_of_tokens(model: nn.Module) -> bool:
    """Say whether a model has look-up tables."""
    return bool(_vocabularies(model))


def _vocabularies(model: nn.Module) -> list[int]:
    """Return the sizes of the model's look-up tables, largest first: of words, places, kinds of segment."""
    sizes = [getattr(module, "num_embeddings", None) for module in model.modules()]
    return sorted({size for size in sizes if type(size) is int and size >= LEAST_VOCABULARY}, reverse=True)


def _tokens(model: nn.Module, shape: tuple[int, ...], generator: torch.Generator) -> Iterator[torch.Tensor]:
    for size in [*_vocabularies(model), LEAST_VOCABULARY]:
        yield torch.randint(size, shape, generator=generator)


def call_with(model: nn.Module, value: Example) -> Any:
    """Call *model* with an example, and with what else its forward cannot do without, as far as names say what it is.

    A language model is asked to return no cache: what it keeps for itself is not its answer.
    """
    if isinstance(value, Mapping):
        return model(**_without_cache(model, value))
    if not isinstance(value, torch.Tensor):
        return model(*value)
    others = list(inspect.signature(model.forward).parameters.values())[1:]
    extras = {other.name: _guess(other.name, value) for other in others if _is_needed(other)}
    return model(value, **_without_cache(model, extras))


def _is_needed(parameter: inspect.Parameter) -> bool:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    return parameter.default is parameter.empty or parameter.name == "decoder_input_ids"


def _guess(name: str, value: torch.Tensor) -> torch.Tensor:
    """Return what a parameter of this name goes with *value* for."""
    if "mask" in name:
        return torch.ones(value.shape, dtype=torch.int64)
    if "type" in name or "segment" in name:
        return torch.zeros(value.shape, dtype=torch.int64)
    if "position" in name:
        return torch.arange(value.shape[-1]).expand(value.shape)
    return value


def _without_cache(model: nn.Module, named: Mapping[str, Any]) -> dict[str, Any]:
    takes = inspect.signature(model.forward).parameters
    return {"use_cache": False, **named} if "use_cache" in takes else dict(named)
