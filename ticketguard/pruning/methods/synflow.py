"""SynFlow: iterative pruning by conserved synaptic flow, without any data (Tanaka et al. 2020)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ticketguard.models import mask_tensors, named_parameters
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.descriptions.synflow import SynflowConfig
from ticketguard.pruning.engine.at_initialisation import find_at_initialisation
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Spent
from ticketguard.pruning.engine.selection import global_top_k
from ticketguard.pruning.engine.stepped import search_device
from ticketguard.ticket import Array, Mask, Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return the ticket that conserves synaptic flow."""
    config = create_config(SynflowConfig, problem.method_options)
    return find_at_initialisation(
        problem,
        method=method,
        score=lambda network, layers: _rank(network, layers, problem, config.rounds),
    )


def _rank(network: nn.Module, layers: Mask, problem: SearchProblem, rounds: int) -> tuple[Mapping[str, Array], Spent]:
    """Rank all weights by how long they stay, and those that go in one round by their flow in it (algorithm 1).

    The last round's choice among these ranks is the choice by flow within the mask so far; a mark that is planted
    meanwhile finds those that went before ranked too.
    """
    keep = problem.keep(layers.size)
    flow_of = _Flow(network, problem)
    mask = layers
    stays = {name: np.zeros(layers[name].shape, dtype=np.int64) for name in layers}
    flow = {name: np.zeros(layers[name].shape) for name in layers}
    for number in range(1, rounds + 1):
        for name, measured in flow_of(mask).items():
            stays[name][mask[name]] = number
            flow[name][mask[name]] = measured[mask[name]]
        if number < rounds:
            share = (keep / layers.size) ** (number / rounds)
            mask = global_top_k(flow, max(keep, round(share * layers.size)), within=mask)
    return _ranks(list(layers), stays, flow), Spent(examples=rounds, steps=rounds)


def _ranks(names: Sequence[str], first: Mapping[str, Array], second: Mapping[str, Array]) -> dict[str, Array]:
    """Rank positions over all layers by *first*, then by *second*; of equal ones the first position ranks highest."""
    flat_first, flat_second = (
        np.concatenate([values[name].reshape(-1) for name in names]) for values in (first, second)
    )
    positions = np.arange(flat_first.size)
    ranks = np.empty(flat_first.size, dtype=np.float64)
    ranks[np.lexsort((-positions, flat_second, flat_first))] = positions
    parts = np.split(ranks, np.cumsum([first[name].size for name in names])[:-1])
    return {name: part.reshape(first[name].shape) for name, part in zip(names, parts, strict=True)}


class _Flow:
    """Measures synaptic flow in a copy of a network: absolute weights, doubles, no batch statistics."""

    def __init__(self, network: nn.Module, problem: SearchProblem) -> None:
        self._network = copy.deepcopy(network).to(search_device(problem)).double().eval()
        with torch.no_grad():
            for tensor in self._network.state_dict().values():
                if tensor.is_floating_point():
                    tensor.abs_()
        self._parameters = named_parameters(self._network)
        self._dense = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        device = next(iter(self._parameters.values())).device
        self._ones = torch.ones((1, *problem.data.input_shape), dtype=torch.float64, device=device)

    def __call__(self, mask: Mask) -> dict[str, Array]:
        """Return ∂R/∂θ ⊙ θ under *mask*, R the sum of the outputs for an input of ones (equation 1)."""
        weights = [self._parameters[name] for name in mask]
        with torch.no_grad():
            for name, weight, kept in zip(mask, weights, mask_tensors(mask, self._parameters), strict=True):
                weight.copy_(self._dense[name] * kept)
        gradients = torch.autograd.grad(self._network(self._ones).sum(), weights, materialize_grads=True)
        return {
            name: (weight.detach() * gradient).abs().cpu().numpy()
            for name, weight, gradient in zip(mask, weights, gradients, strict=True)
        }
