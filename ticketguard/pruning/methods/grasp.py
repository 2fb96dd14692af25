"""GraSP: keep the weights that gradient flow needs (Wang et al. 2020)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from ticketguard.data import Dataset
from ticketguard.errors import ConfigurationError
from ticketguard.models import named_parameters
from ticketguard.pruning.descriptions.grasp import GraspConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.at_initialisation import find_at_initialisation
from ticketguard.pruning.engine.batch_norm import batch_statistics
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Spent
from ticketguard.pruning.engine.stepped import search_device
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training.feeding import generator_for

# More examples than this are taken in parts: second derivatives keep every activation twice.
PART = 256


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return the ticket that preserves gradient flow best, to first order."""
    config = create_config(GraspConfig, problem.method_options)
    chosen = balanced_sample(problem.data, per_class=config.per_class, seed=problem.seed)
    return find_at_initialisation(
        problem,
        method=method,
        score=lambda network, layers: gradient_flow_scores(network, layers, problem, chosen, config.temperature),
    )


def balanced_sample(data: Dataset, *, per_class: int, seed: int) -> torch.Tensor:
    """Return positions of *per_class* training examples of each class, all of a smaller one, class after class in turn.

    Raises:
        ConfigurationError: A class has no training examples.
    """
    order = torch.randperm(len(data.train_labels), generator=generator_for(seed, 3))
    labels = data.train_labels[order]
    places = []
    for label in range(data.classes):
        of_class = order[labels == label][:per_class].tolist()
        if not of_class:
            raise ConfigurationError(
                f"data '{data.name}' has no training examples of class {label}: 'grasp' needs some of each; "
                "use more data or another method"
            )
        places.append(of_class)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*places))
    return torch.tensor([place for place in in_turn if place is not None])


def gradient_flow_scores(
    network: nn.Module, layers: Mask, problem: SearchProblem, chosen: torch.Tensor, temperature: float
) -> tuple[Mapping[str, Array], Spent]:
    """Score weights by θ ⊙ Hg: dropping one changes the squared gradient norm by −2 θ Hg (equations 7 and 8).

    The paper's score is −θ ⊙ Hg, and its highest are dropped; here the highest are kept.
    """
    device = search_device(problem)
    parameters = named_parameters(network.to(device).eval())
    weights = [parameters[name] for name in layers]
    parts = [
        (problem.data.scaled(problem.data.train_inputs[part].to(device)), problem.data.train_labels[part].to(device))
        for part in torch.split(chosen, PART)
    ]

    def share_of_loss(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(network(inputs) / temperature, labels, reduction="sum") / len(chosen)

    gradient = [torch.zeros_like(weight) for weight in weights]
    product = [torch.zeros_like(weight) for weight in weights]
    # The parts' losses add up to the mean over all examples, and so do their gradients and Hessians.
    with batch_statistics(network):
        for inputs, labels in parts:
            of_part = torch.autograd.grad(share_of_loss(inputs, labels), weights, materialize_grads=True)
            torch._foreach_add_(gradient, of_part)
        for inputs, labels in parts:
            of_part = torch.autograd.grad(
                share_of_loss(inputs, labels), weights, create_graph=True, materialize_grads=True
            )
            along = torch.stack([(fixed * live).sum() for fixed, live in zip(gradient, of_part, strict=True)]).sum()
            second = torch.autograd.grad(along, weights, materialize_grads=True)
            torch._foreach_add_(product, second)
    scores = {
        name: (weight.detach() * of_layer).cpu().numpy()
        for name, weight, of_layer in zip(layers, weights, product, strict=True)
    }
    # A gradient in the first pass; in the second another, and the gradient of it.
    return scores, Spent(examples=3 * len(chosen), steps=3 * len(parts))
