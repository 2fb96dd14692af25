"""SNIP: single-shot pruning by connection sensitivity (Lee et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ticketguard.models import named_parameters
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.descriptions.snip import SnipConfig
from ticketguard.pruning.engine.at_initialisation import find_at_initialisation
from ticketguard.pruning.engine.batch_norm import batch_statistics
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Spent
from ticketguard.pruning.engine.stepped import search_device
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training.feeding import Feeder


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return the ticket of the highest connection sensitivities."""
    config = create_config(SnipConfig, problem.method_options)
    problem.require_batch(config.examples, option="examples")
    return find_at_initialisation(
        problem,
        method=method,
        score=lambda network, layers: (
            connection_sensitivity(network, layers, problem=problem, examples=config.examples),
            Spent(examples=config.examples, steps=1),
        ),
    )


def connection_sensitivity(
    network: nn.Module, layers: Mask, *, problem: SearchProblem, examples: int
) -> Mapping[str, Array]:
    """Return |θ ⊙ g| of each layer, g the gradient of the mean loss of one batch (Lee et al. 2019, equations 4 to 6).

    The paper divides by the sum over all layers, which changes no order.

    Args:
        network: Scored as it stands; moved to the search's device.
        layers: The layers to score.
        problem: Gives the data; its seed fixes the batch.
        examples: Examples in the batch.
    """
    device = search_device(problem)
    feeder = Feeder(problem.data, batch_size=examples, seed=problem.seed, augment=False, device=device, process=(0, 1))
    inputs, labels = feeder.batch(0)
    parameters = named_parameters(network.to(device).eval())
    weights = [parameters[name] for name in layers]
    # Without training mode dropout draws nothing, so that the batch alone decides.
    with batch_statistics(network):
        loss = nn.functional.cross_entropy(network(inputs), labels)
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return {
        name: (weight.detach() * gradient).abs().cpu().numpy()
        for name, weight, gradient in zip(layers, weights, gradients, strict=True)
    }
