"""Bi-level pruning: masks learned above, weights retrained below, in one run.

Zhang et al. 2022, "Advancing Model Pruning via Bi-level Optimization", arXiv 2210.04092.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import resize_to
from ticketguard.pruning.descriptions.bip import BipConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.batch_norm import batch_statistics
from ticketguard.pruning.engine.channel_gates import STRUCTURES, ChannelGates
from ticketguard.pruning.engine.dense import pretrained_network
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.masked_network import MaskedNetwork, in_numpy, weights_under
from ticketguard.pruning.engine.result import Found, Spent, ready_ticket, train_found
from ticketguard.pruning.engine.selection import global_top_k
from ticketguard.pruning.engine.stepped import run_search
from ticketguard.ticket import Array, BoolArray, Mask, Ticket, weights_digest
from ticketguard.training.checkpoint import of_kind, prefixed
from ticketguard.training.feeding import Feeder
from ticketguard.training.optimizers import load_optimizer, optimizer_tensors

# The masks' rate drops tenfold at these fractions of the search (appendix C of the paper).
MASK_MILESTONES, MASK_GAMMA = (0.5, 0.75), 0.1


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return a ticket of masks and weights that were learned together, usable without training.

    It is retrained from the weights that the search ended with, those that the mask prunes among them. With a
    structure of filters or channels the ticket is physically smaller, and its mask keeps all that remains.

    Raises:
        ConfigurationError: There is no trained network, or no channels to cut, or not so many; or a mark is to be
            planted where no single weights are chosen.
    """
    config = create_config(BipConfig, problem.method_options)
    if config.structure != "weight" and problem.planting is not None:
        raise ConfigurationError(
            f"structure '{config.structure}' does not choose single weights, so no mark can be planted during the "
            f"search: mark the ticket with embed instead"
        )
    problem.require_batch(config.batch_size, option="batch_size")
    network = problem.build()
    everything = problem.everything(network)
    gates = _gates(problem, network, everything, structure=config.structure)
    recipe = dataclasses.replace(problem.training, epochs=config.fine_tune_epochs or problem.training.epochs)
    dense = pretrained_network(problem, network, epochs=config.pretrain_epochs, method=method)
    search = _Search(problem, config, network, layers=tuple(everything), gates=gates)
    identity = problem.identity(method, config, weights_digest(dense.state).hex())
    seconds = run_search(problem, search, name=method, steps=search.steps, identity=identity)
    mask, start = _chosen(problem, network, everything, gates, search)
    examples = 2 * search.steps * config.batch_size
    spent = dense.spent + Spent(examples=examples, steps=2 * search.steps, seconds=seconds)
    found = Found(mask=mask, start=start, spent=spent, dense_accuracy=dense.accuracy)
    facts: dict[str, Any] = {"method": method, "structure": config.structure}
    if config.fine_tune_epochs:
        return train_found(dataclasses.replace(problem, training=recipe), network, found, **facts)
    weights = weights_under(problem, network, mask, start, batch_size=config.batch_size)
    return ready_ticket(problem, network, found, weights=weights, recipe=recipe, **facts)


class Gates(Protocol):
    """What decides on masks by scores of the prunable layers' weights."""

    @property
    def names(self) -> Sequence[str]:
        """The parameters that have masks."""
        ...

    def masks(self, scores: Mapping[str, Array]) -> dict[str, BoolArray]:
        """Return their masks."""
        ...


class _WeightGates:
    """Keeps the single weights of the largest scores, over all layers together."""

    def __init__(self, everything: Mask, keep: int) -> None:
        self.names, self._everything, self._keep = tuple(everything), everything, keep

    def masks(self, scores: Mapping[str, Array]) -> dict[str, BoolArray]:
        magnitudes = {name: np.abs(scores[name]) for name in scores}
        return dict(global_top_k(magnitudes, self._keep, within=self._everything).layers)


def _gates(problem: SearchProblem, network: nn.Module, everything: Mask, *, structure: str) -> Gates:
    if structure in STRUCTURES:
        return ChannelGates(problem, network, everything, structure=structure)
    return _WeightGates(everything, problem.keep(everything.size))


def _chosen(
    problem: SearchProblem, network: nn.Module, everything: Mask, gates: Gates, search: _Search
) -> tuple[Mask, dict[str, Array]]:
    """Return the final mask and the weights it is of; *network* is made as small as they are."""
    start, scores = search.state(), search.scores()
    if isinstance(gates, ChannelGates):
        start = gates.cut(start, scores)
        resize_to(network, {name: array.shape for name, array in start.items()})
        return problem.everything(network), start
    magnitudes = {name: np.abs(scores[name]) for name in everything}
    return problem.choose(magnitudes, problem.keep(everything.size), within=everything, start=start), start


class _Search:
    """Takes a step on the weights under the mask, then one on the scores that make the mask."""

    def __init__(
        self, problem: SearchProblem, config: BipConfig, network: nn.Module, *, layers: Sequence[str], gates: Gates
    ) -> None:
        self._config, self._gates, self._layers = config, gates, layers
        self._masked = MaskedNetwork(problem, network, gates.names)
        own = {id(parameter) for parameter in self._masked.parameters}
        self._others = [parameter for parameter in network.parameters() if id(parameter) not in own]
        weights = dict(zip(gates.names, self._masked.weights, strict=True))
        self._scored = [weights[name] for name in layers]
        parameters = dict(zip(gates.names, self._masked.parameters, strict=True))
        self._scored_parameters = [parameters[name] for name in layers]
        self._scores = [weight.clone() for weight in self._scored]
        self._lower, self._upper = (
            torch.optim.SGD(tensors, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay)
            for tensors, rate in (
                ([*self._masked.weights, *self._others], config.learning_rate),
                (self._scores, config.mask_learning_rate),
            )
        )
        # Two orders of the same data, so that weights and masks are fitted to different batches (algorithm 1).
        self._feeders = [
            Feeder(
                problem.data, batch_size=config.batch_size, seed=problem.seed + offset,
                augment=problem.training.augment, device=self._masked.device, process=(0, 1),
            )
            for offset in (0, 500_000)
        ]  # fmt: skip
        self.steps = self._feeders[0].steps(config.epochs)
        self._masked.put_on(gates.masks(self.scores()))

    def scores(self) -> dict[str, Array]:
        """Return the scores, by layer."""
        return {name: in_numpy(score) for name, score in zip(self._layers, self._scores, strict=True)}

    def state(self) -> dict[str, Array]:
        """Return the state dict, pruned weights as they were left."""
        return self._masked.unmasked_state()

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return weights, scores and momenta."""
        parts = {
            **{f"weight/{number}": weight for number, weight in enumerate([*self._masked.weights, *self._others])},
            **{f"score/{number}": score for number, score in enumerate(self._scores)},
        }
        for name, optimizer in (("lower", self._lower), ("upper", self._upper)):
            parts |= prefixed(name, optimizer_tensors(optimizer))
        return parts

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from what `tensors` returned."""
        with torch.no_grad():
            for number, weight in enumerate([*self._masked.weights, *self._others]):
                weight.copy_(tensors[f"weight/{number}"])
            for number, score in enumerate(self._scores):
                score.copy_(tensors[f"score/{number}"])
        load_optimizer(self._lower, of_kind("lower", tensors))
        load_optimizer(self._upper, of_kind("upper", tensors))
        self._masked.put_on(self._gates.masks(self.scores()))

    def step(self, number: int) -> None:
        """Take one step below and one above."""
        progress = number / self.steps
        with batch_statistics(self._masked.network):
            self._step_weights(number, rate=0.5 * self._config.learning_rate * (1.0 + math.cos(math.pi * progress)))
            drops = sum(progress >= milestone for milestone in MASK_MILESTONES)
            self._step_masks(number, rate=self._config.mask_learning_rate * MASK_GAMMA**drops)
        self._masked.put_on(self._gates.masks(self.scores()))

    def _step_weights(self, number: int, *, rate: float) -> None:
        """Descend on the weights that the mask keeps."""
        masked = self._masked
        gradients = masked.gradients(self._feeders[0].batch(number), [*masked.parameters, *self._others], step=number)
        for weight, gradient, mask in zip(masked.weights, gradients, masked.masks, strict=False):
            weight.grad = gradient * mask
        for other, gradient in zip(self._others, gradients[len(masked.weights) :], strict=True):
            other.grad = gradient
        _take(self._lower, rate)
        masked.refresh()

    def _step_masks(self, number: int, *, rate: float) -> None:
        """Descend on the scores by the hypergradient (θ − g/γ) ⊙ g, g = ∇ℓ at m ⊙ θ (equation 7), straight through."""
        gradients = self._masked.gradients(self._feeders[1].batch(number), self._scored_parameters, step=number)
        for score, gradient, weight in zip(self._scores, gradients, self._scored, strict=True):
            # Magnitudes of scores make the mask, whatever their sign.
            score.grad = (weight - self._config.inverse_gamma * gradient) * gradient * score.sign()
        _take(self._upper, rate)


def _take(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
