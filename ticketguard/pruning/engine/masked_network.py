"""A network that computes with m ⊙ θ while θ is kept apart: what a search over masks of trained weights needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ticketguard.errors import TicketguardError
from ticketguard.models import load_arrays, named_parameters, state_arrays
from ticketguard.pruning.engine.batch_norm import recalibrate
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.stepped import search_device
from ticketguard.ticket import Array, BoolArray, Mask

# How often a loss is looked at: reading it makes an accelerator wait.
LOSS_CHECK_STEPS = 50


class MaskedNetwork:
    """A network on the search's device, its layers' masks, and the weights they are masks of.

    Args:
        problem: Says which device, and how inputs look.
        network: Holds θ; from now on its masked layers hold m ⊙ θ.
        names: State-dict names of the layers that are masked.

    Attributes:
        network: The model.
        weights: θ of the masked layers, in the order of *names*.
    """

    def __init__(self, problem: SearchProblem, network: nn.Module, names: Sequence[str]) -> None:
        self.device = search_device(problem)
        network.to(self.device)
        if len(problem.data.input_shape) == 3:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        parameters = named_parameters(network)
        self.parameters: list[torch.Tensor] = [parameters[name] for name in names]
        self.weights = [parameter.detach().clone() for parameter in self.parameters]
        self._names = list(names)
        self._masks = [torch.ones_like(weight) for weight in self.weights]

    @property
    def masks(self) -> list[torch.Tensor]:
        """The present masks, 1 where a weight is kept, in the order of the weights."""
        return self._masks

    @torch.no_grad()
    def put_on(self, masks: Mapping[str, BoolArray]) -> None:
        """Give the layers other masks, per name of its layer's shape, and compute with the present θ."""
        for tensor, name in zip(self._masks, self._names, strict=True):
            tensor.copy_(torch.from_numpy(np.array(masks[name])))
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute with θ as it is now, under the present masks."""
        torch._foreach_copy_(self.parameters, torch._foreach_mul(self.weights, self._masks))

    def unmasked_state(self) -> dict[str, Array]:
        """Return the state dict with θ in place of m ⊙ θ."""
        weights = {name: np.array(in_numpy(weight)) for name, weight in zip(self._names, self.weights, strict=True)}
        return {**state_arrays(self.network), **weights}

    def gradients(
        self, batch: tuple[torch.Tensor, torch.Tensor], of: Sequence[torch.Tensor], *, step: int
    ) -> list[torch.Tensor]:
        """Return the cross-entropy's gradients at m ⊙ θ.

        Args:
            batch: Normalised inputs and their labels.
            of: Parameters of the network; a masked layer's gives ∂ℓ/∂(m ⊙ θ), pruned positions among them.
            step: The step's number; every so often the loss is looked at.

        Raises:
            TicketguardError: The loss became NaN or infinite.
        """
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.network(inputs), labels)
        if step % LOSS_CHECK_STEPS == 0 and not bool(torch.isfinite(loss)):
            raise TicketguardError(
                f"the search diverged: the loss is {loss.item()} at step {step}: lower its learning_rate"
            )
        # A layer that took no part has a gradient of zero.
        return list(torch.autograd.grad(loss, list(of), allow_unused=True, materialize_grads=True))


def weights_under(
    problem: SearchProblem, network: nn.Module, mask: Mask, state: Mapping[str, Array], *, batch_size: int
) -> dict[str, Array]:
    """Return the state dict *state* under *mask*, its running statistics measured anew.

    Args:
        problem: Says data, seed and device.
        network: The model; it is left on the CPU.
        mask: Which weights are kept.
        state: The weights.
        batch_size: Examples in a batch that is measured on.
    """
    load_arrays(network, mask.applied(state))
    device = search_device(problem)
    recalibrate(network.to(device), problem.data, batch_size=batch_size, seed=problem.seed, device=device)
    return state_arrays(network.cpu())


def in_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """Return *tensor* as an array on the CPU, without a copy where it is there already."""
    return np.asarray(tensor.detach().cpu().numpy())
