"""What a thief does to hide any suspect at no cost: channels permuted within their groups, and rescaled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ticketguard.graph import ChannelGroup, channel_groups
from ticketguard.graph.sides import norms_of
from ticketguard.graph.symmetries import NormScaling, Permutation, Scaling
from ticketguard.models import load_arrays
from ticketguard.models.blocks import remove_blocks
from ticketguard.models.shrinking import resize_to
from ticketguard.ticket import Array

# How far two runs of one function may be apart, as a share of the answers' spread: sums are rounded in another order.
ROUNDED = 2e-3


def fitted(model: nn.Module, state: Mapping[str, Array]) -> nn.Module:
    """Make *model* as wide and deep as *state*, in place, and load it.

    Args:
        model: As it was built, with every channel and every block.
        state: Of the same network with fewer channels, or without some residual blocks.
    """
    known = list(model.state_dict())
    gone: list[str] = []
    for module, _ in model.named_modules():
        front = f"{module}."
        has_any = any(name.startswith(front) for name in known)
        if has_any and not any(name.startswith(front) for name in state) and not front.startswith(tuple(gone)):
            gone.append(front)
    remove_blocks(model, [front.removesuffix(".") for front in gone])
    resize_to(model, {name: array.shape for name, array in state.items()})
    load_arrays(model, state)
    return model.eval()


class Disguise:
    """Permutations and factors of one network, drawn once.

    Args:
        model: The network, `fitted`; its weights change.
        state: Its tensors.
        inputs: Some, on which the answers must stay what they are; shape (examples, *input_shape).
        generator: Of the thief's choices.
    """

    def __init__(
        self, model: nn.Module, state: Mapping[str, Array], inputs: torch.Tensor, generator: np.random.Generator
    ) -> None:
        self._model, self._inputs, self._generator = model, inputs, generator
        self._before = self._answers(state)
        self.groups: tuple[ChannelGroup, ...] = channel_groups(model, torch.zeros_like(inputs[:1]))

    def put_on(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """Return *state* permuted and rescaled, with factors of any sign in front of norms.

        Raises:
            AssertionError: The network then answers differently: the benchmark is at fault.
        """
        norms = norms_of(state, self.groups)
        before = NormScaling.drawn(state, norms, generator=self._generator, signs=True).apply(state)
        scaled = Scaling.drawn(before, self.groups, generator=self._generator, norms=norms).apply(before)
        result = Permutation.drawn(scaled, self.groups, generator=self._generator).apply(scaled)
        if not self._is_same(result):
            raise AssertionError("a suspect that was permuted and rescaled answers differently")
        return result

    def _is_same(self, state: Mapping[str, Array]) -> bool:
        return bool(np.abs(self._answers(state) - self._before).max() <= ROUNDED * self._before.std())

    def _answers(self, state: Mapping[str, Array]) -> Array:
        load_arrays(self._model, state)
        with torch.no_grad():
            return np.asarray(self._model(self._inputs).numpy())
