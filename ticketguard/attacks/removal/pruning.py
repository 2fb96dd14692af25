"""Pruning the stolen ticket further: by magnitude, or by Fisher saliency."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from ticketguard.attacks.interface import Victim
from ticketguard.errors import ConfigurationError
from ticketguard.ticket import Array, Mask, Ticket


def _check_share(share: float) -> None:
    if not 0.0 < share < 1.0:
        raise ConfigurationError(f"share of edges to prune is {share}, expected above 0 and below 1")


def prune_lowest(ticket: Ticket, scores: Mapping[str, Array], share: float) -> Ticket:
    """Prune the *share* of the ticket's edges with the lowest scores, over all layers together."""
    names = list(ticket.mask)
    kept = np.concatenate([ticket.mask[name].reshape(-1) for name in names])
    flat = np.concatenate([np.asarray(scores[name], dtype=np.float64).reshape(-1) for name in names])
    edges = np.flatnonzero(kept)
    gone = edges[np.argsort(flat[edges], kind="stable")[: round(share * len(edges))]]
    kept[gone] = False
    ends = np.cumsum([ticket.mask[name].size for name in names])[:-1]
    mask = Mask(
        layers={
            name: part.reshape(ticket.mask[name].shape) for name, part in zip(names, np.split(kept, ends), strict=True)
        }
    )
    weights = dict(ticket.weights)
    for name in mask:
        weights[name] = np.where(mask[name], weights[name], 0).astype(weights[name].dtype)
    return dataclasses.replace(ticket, mask=mask, weights=weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MagnitudePruning:
    """Prune the smallest remaining weights.

    Attributes:
        share: Share of the remaining edges, in (0, 1).
    """

    share: float

    def __post_init__(self) -> None:
        _check_share(self.share)

    @property
    def name(self) -> str:
        """The attack in a few words."""
        return f"magnitude pruning {self.share:.0%}"

    def run(self, victim: Victim, *, generator: np.random.Generator) -> Ticket:
        """Return the pruned ticket."""
        scores = {name: np.abs(victim.ticket.weights[name]) for name in victim.ticket.mask}
        return prune_lowest(victim.ticket, scores, self.share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FisherPruning:
    """Prune the edges of lowest Fisher saliency w²·E[g²] (Theis et al., arXiv 1801.05787, eq. 5).

    Attributes:
        share: Share of the remaining edges, in (0, 1).
        batches: Mini-batches that estimate E[g²].
        batch_size: Examples in each.
    """

    share: float
    batches: int = 64
    batch_size: int = 16

    def __post_init__(self) -> None:
        _check_share(self.share)

    @property
    def name(self) -> str:
        """The attack in a few words."""
        return f"Fisher pruning {self.share:.0%}"

    def run(self, victim: Victim, *, generator: np.random.Generator) -> Ticket:
        """Return the pruned ticket."""
        network = victim.network().eval()
        parameters = {name: value for name, value in network.named_parameters() if name in victim.ticket.mask}
        squares = {name: torch.zeros_like(value) for name, value in parameters.items()}
        for _ in range(self.batches):
            chosen = torch.from_numpy(generator.integers(len(victim.data.train_labels), size=self.batch_size))
            outputs = network(victim.data.scaled(victim.data.train_inputs[chosen]))
            loss = torch.nn.functional.cross_entropy(outputs, victim.data.train_labels[chosen])
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for square, gradient in zip(squares.values(), gradients, strict=True):
                square += gradient.square()
        scores = {name: (value.detach().square() * squares[name]).numpy() for name, value in parameters.items()}
        return prune_lowest(victim.ticket, scores, self.share)
