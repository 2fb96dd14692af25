"""Lottery jackpots: masks of a trained network's frozen weights.

Zhang et al. 2021, "Lottery Jackpots Exist in Pre-trained Models", arXiv 2104.08700.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import PRUNABLE
from ticketguard.pruning.descriptions.jackpot import JackpotConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.batch_norm import batch_statistics
from ticketguard.pruning.engine.dense import pretrained_network
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.masked_network import MaskedNetwork, in_numpy, weights_under
from ticketguard.pruning.engine.result import Found, Spent, ready_ticket, train_found
from ticketguard.pruning.engine.selection import comparable, full_mask, global_top_k, largest
from ticketguard.pruning.engine.stepped import run_search
from ticketguard.ticket import Array, BoolArray, Mask, Ticket, weights_digest
from ticketguard.training.checkpoint import of_kind, prefixed
from ticketguard.training.feeding import Feeder, generator_for
from ticketguard.training.optimizers import load_optimizer, optimizer_tensors

# Scores that the search starts from, where the first mask keeps a weight and where it does not (section 3.3).
KEPT_SCORE, PRUNED_SCORE = 1.0, 0.99


# Fine-tuning of the paper (section 4.1): what follows where the weights are to change after all.
FINE_TUNE_EPOCHS, FINE_TUNE_RATE = 10.0, 0.01


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return a ticket of the trained dense network's own weights.

    How many weights each layer keeps is decided once, by one global threshold of magnitude. The classifier, the
    prunable layer that the model registers last, stays dense; it counts among the weights that the density keeps,
    and the other layers share what is left, so the density is met exactly all the same.

    Raises:
        ConfigurationError: There is no trained network, or the density keeps too little beside the classifier.
    """
    config = create_config(JackpotConfig, problem.method_options)
    problem.require_batch(config.batch_size, option="batch_size")
    network = problem.build()
    everything = problem.everything(network)
    classifier = _classifier(network) if config.dense_classifier else None
    keep = problem.keep(everything.size)
    _check_room(everything, keep, classifier)
    recipe = dataclasses.replace(
        problem.training, optimizer="sgd", momentum=config.momentum, weight_decay=0.0, schedule="cosine",
        learning_rate=FINE_TUNE_RATE, epochs=config.fine_tune_epochs or FINE_TUNE_EPOCHS,
        batch_size=config.batch_size,
    )  # fmt: skip
    dense = pretrained_network(problem, network, epochs=config.pretrain_epochs, method=method)
    counts = _counts(dense.state, everything, keep, classifier)
    search = _Search(problem, config, network, _first_mask(problem, config, dense.state, counts))
    identity = problem.identity(method, config, weights_digest(dense.state).hex())
    seconds = run_search(problem, search, name=method, steps=search.steps, identity=identity)
    scores = search.scores()
    mask = problem.choose(comparable(scores, counts), keep, within=everything, start=dense.state)
    spent = dense.spent + Spent(examples=search.steps * config.batch_size, steps=search.steps, seconds=seconds)
    found = Found(mask=mask, start=dense.state, spent=spent, dense_accuracy=dense.accuracy)
    if config.fine_tune_epochs:
        fine_tuning = dataclasses.replace(problem, training=recipe)
        return train_found(fine_tuning, network, found, method=method)
    weights = weights_under(problem, network, mask, dense.state, batch_size=config.batch_size)
    return ready_ticket(problem, network, found, method=method, weights=weights, recipe=recipe)


def _classifier(network: nn.Module) -> str:
    """Return the weight of the prunable layer that *network* registers last."""
    return [
        f"{name}.weight" if name else "weight"
        for name, module in network.named_modules()
        if isinstance(module, PRUNABLE)
    ][-1]


def _check_room(everything: Mask, keep: int, classifier: str | None) -> None:
    """Check that the density keeps more than the dense classifier.

    Raises:
        ConfigurationError: It leaves the other layers fewer weights than there are layers.
    """
    if classifier is None:
        return
    taken, others = everything[classifier].size, len(everything) - 1
    if not others or keep - taken < others:
        raise ConfigurationError(
            f"the density keeps {keep} of {everything.size} weights, expected the dense classifier's {taken} "
            f"('{classifier}') and more for {others} other layers: raise it, or set dense_classifier=false"
        )


def _counts(state: Mapping[str, Array], everything: Mask, keep: int, classifier: str | None) -> dict[str, int]:
    """Return how many weights each layer keeps: those above one global threshold of magnitude (section 3.2)."""
    rest = full_mask({name: everything[name].shape for name in everything if name != classifier})
    taken = {} if classifier is None else {classifier: everything[classifier].size}
    magnitudes = {name: np.abs(state[name]) for name in rest}
    mask = global_top_k(magnitudes, keep - sum(taken.values()), within=rest)
    return {**{name: int(mask[name].sum()) for name in mask}, **taken}


def _first_mask(
    problem: SearchProblem, config: JackpotConfig, state: Mapping[str, Array], counts: Mapping[str, int]
) -> dict[str, BoolArray]:
    mask = {}
    for number, (name, count) in enumerate(sorted(counts.items())):
        scores = np.abs(state[name])
        if config.start == "random":
            scores = torch.rand(scores.shape, generator=generator_for(problem.seed, 2, number)).numpy()
        mask[name] = largest(scores.reshape(-1), count).reshape(scores.shape)
    return mask


class _Search:
    """Learns scores of frozen weights by straight-through gradients, and exchanges weights by them."""

    def __init__(
        self, problem: SearchProblem, config: JackpotConfig, network: nn.Module, first: Mapping[str, BoolArray]
    ) -> None:
        self._config = config
        # Where everything is kept there is nothing to search.
        self._names = [name for name in sorted(first) if not first[name].all()]
        self._masked = MaskedNetwork(problem, network, self._names)
        self._kept = {name: np.array(first[name]) for name in first}
        self._masked.put_on(self._kept)
        self._scores = [
            torch.where(mask > 0, KEPT_SCORE, PRUNED_SCORE).to(weight.dtype)
            for mask, weight in zip(self._masked.masks, self._masked.weights, strict=True)
        ]
        self._optimizer = torch.optim.SGD(
            self._scores, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self._feeder = Feeder(
            problem.data, batch_size=config.batch_size, seed=problem.seed, augment=problem.training.augment,
            device=self._masked.device, process=(0, 1),
        )  # fmt: skip
        self.steps = self._feeder.steps(config.epochs)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return scores, momenta and masks."""
        return {
            **{f"score/{name}": score for name, score in zip(self._names, self._scores, strict=True)},
            **{f"kept/{name}": torch.from_numpy(self._kept[name]) for name in self._names},
            **prefixed("optimizer", optimizer_tensors(self._optimizer)),
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from what `tensors` returned."""
        with torch.no_grad():
            for name, score in zip(self._names, self._scores, strict=True):
                score.copy_(tensors[f"score/{name}"])
                self._kept[name] = tensors[f"kept/{name}"].cpu().numpy().copy()
        load_optimizer(self._optimizer, of_kind("optimizer", tensors))
        self._masked.put_on(self._kept)

    def step(self, number: int) -> None:
        """Take one step on the scores, and exchange what has changed places."""
        cosine = 0.5 * (1.0 + math.cos(math.pi * number / self.steps))
        with batch_statistics(self._masked.network):
            gradients = self._masked.gradients(self._feeder.batch(number), self._masked.parameters, step=number)
        # Straight through the binary mask: ∂ℓ/∂score = ∂ℓ/∂(m ⊙ w) ⊙ w (equation 5).
        for score, gradient, weight in zip(self._scores, gradients, self._masked.weights, strict=True):
            score.grad = gradient * weight
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * cosine
        self._optimizer.step()
        share = cosine if self._config.short_restriction else 1.0
        for name, score in zip(self._names, self._scores, strict=True):
            exchange(self._kept[name].reshape(-1), in_numpy(score).reshape(-1), share=share)
        self._masked.put_on(self._kept)

    def scores(self) -> dict[str, Array]:
        """Return scores by which all that is kept precedes all that is not, and by the search's own within each."""
        ranked = {name: kept.astype(np.float64) for name, kept in self._kept.items()}
        for name, score in zip(self._names, self._scores, strict=True):
            values = in_numpy(score).astype(np.float64)
            ranked[name] = values + (np.ptp(values) + 1.0) * self._kept[name]
        return ranked


def exchange(kept: BoolArray, scores: npt.NDArray[Any], *, share: float) -> None:
    """Exchange pruned weights that scored into the top for the kept ones they beat, in place (equation 8).

    Args:
        kept: The mask, shape (n,), changed; its number of kept weights stays.
        scores: Shape (n,).
        share: ``ceil(share·pairs)`` pairs are exchanged, those of the highest coming and the lowest leaving scores.
    """
    wanted = largest(scores, int(kept.sum()))
    coming, leaving = np.flatnonzero(wanted & ~kept), np.flatnonzero(kept & ~wanted)
    swaps = math.ceil(share * len(coming))
    kept[coming[largest(scores[coming], swaps)]] = True
    kept[leaving[largest(-scores[leaving], swaps)]] = False
