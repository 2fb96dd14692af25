"""A model's answers: its class scores, in whatever its forward returns them, whatever precision it computes in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.graph.probing import SCORE_NAMES
from ticketguard.ticket import FloatArray

# Asks a model for the class scores of a batch of inputs.
Ask: TypeAlias = Callable[[nn.Module, torch.Tensor], Any]
ASKED_AT_ONCE = 256
WHAT_TO_DO = "wrap the model, or say how to ask it: prepare(..., ask=lambda model, inputs: model(inputs)...)"


def scores_of(output: Any) -> torch.Tensor:
    """Return the class scores in what a model returned: a tensor, its first, or what is called `SCORE_NAMES`.

    Raises:
        ConfigurationError: There are none.
    """
    if isinstance(output, torch.Tensor):
        return output
    for name in SCORE_NAMES:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, torch.Tensor):
            return found
    if isinstance(output, tuple | list) and output and isinstance(output[0], torch.Tensor):
        return output[0]
    names = f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise ConfigurationError(
        f"the model returns a {type(output).__name__}{names}, expected class scores: a tensor, the first of a tuple, "
        f"or {', '.join(SCORE_NAMES)} by name: {WHAT_TO_DO}"
    )


def answers_of(model: nn.Module, inputs: FloatArray, *, classes: int, ask: Ask | None = None) -> npt.NDArray[np.int64]:
    """Return the class that *model* gives each input, in evaluation mode; the model is left as it was.

    Args:
        model: Any classifier.
        inputs: Normalised inputs, shape (count, *input_shape).
        classes: Number of classes.
        ask: Asks the model; by default it is called with the inputs alone, in its own precision.

    Raises:
        ConfigurationError: It does not run on such inputs, or does not return a score for every class.
    """
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), torch.zeros(1))
    found = []
    with _undisturbed(model), torch.no_grad():
        for first in range(0, len(inputs), ASKED_AT_ONCE):
            batch = torch.from_numpy(inputs[first : first + ASKED_AT_ONCE]).to(like.device, like.dtype)
            try:
                output = model(batch) if ask is None else ask(model, batch)
            # The model is the user's own code.
            except Exception as error:
                raise ConfigurationError(
                    f"the model raised {type(error).__name__} on inputs of shape {tuple(batch.shape)} ({error}): "
                    f"{WHAT_TO_DO}"
                ) from error
            scores = scores_of(output)
            if tuple(scores.shape) != (len(batch), classes):
                raise ConfigurationError(
                    f"the model returns scores of shape {tuple(scores.shape)} for {len(batch)} inputs, expected "
                    f"{(len(batch), classes)}: {WHAT_TO_DO}, or correct the ticket's number of classes"
                )
            found.append(scores.float().argmax(dim=1).cpu().numpy())
    return np.concatenate(found)


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; give it back with its modes, buffers and torch's generators as they were."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {tensor.device for tensor in model.parameters() if tensor.device.type == "cuda"}
    model.eval()
    try:
        with torch.random.fork_rng(devices=[*devices]):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
