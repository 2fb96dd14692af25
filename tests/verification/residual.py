"""A ticket with the layers, edges and sizes of weights of a ResNet-20 of 5% density that was found and trained."""

from __future__ import annotations

import math

import numpy as np

from ticketguard.ticket import Mask, Ticket, TicketInfo

# Name, shape, edges, median magnitude of the edges, 90% quantile: late rewinding on Fashion-MNIST at 14x14, seed 0
# (benchmarks/tickets.py).
LAYERS = (
    ("conv1.weight", (16, 1, 3, 3), 120, 0.293, 0.552),
    ("fc.weight", (10, 64), 416, 0.235, 0.452),
    ("layer1.0.conv1.weight", (16, 16, 3, 3), 913, 0.125, 0.211),
    ("layer1.0.conv2.weight", (16, 16, 3, 3), 820, 0.126, 0.218),
    ("layer1.1.conv1.weight", (16, 16, 3, 3), 695, 0.116, 0.195),
    ("layer1.1.conv2.weight", (16, 16, 3, 3), 639, 0.117, 0.201),
    ("layer1.2.conv1.weight", (16, 16, 3, 3), 596, 0.114, 0.192),
    ("layer1.2.conv2.weight", (16, 16, 3, 3), 604, 0.107, 0.194),
    ("layer2.0.conv1.weight", (32, 16, 3, 3), 979, 0.103, 0.183),
    ("layer2.0.conv2.weight", (32, 32, 3, 3), 933, 0.106, 0.187),
    ("layer2.1.conv1.weight", (32, 32, 3, 3), 784, 0.106, 0.200),
    ("layer2.1.conv2.weight", (32, 32, 3, 3), 839, 0.102, 0.202),
    ("layer2.2.conv1.weight", (32, 32, 3, 3), 686, 0.106, 0.196),
    ("layer2.2.conv2.weight", (32, 32, 3, 3), 730, 0.098, 0.191),
    ("layer3.0.conv1.weight", (64, 32, 3, 3), 1112, 0.099, 0.194),
    ("layer3.0.conv2.weight", (64, 64, 3, 3), 625, 0.111, 0.201),
    ("layer3.1.conv1.weight", (64, 64, 3, 3), 680, 0.107, 0.206),
    ("layer3.1.conv2.weight", (64, 64, 3, 3), 456, 0.102, 0.194),
    ("layer3.2.conv1.weight", (64, 64, 3, 3), 420, 0.099, 0.189),
    ("layer3.2.conv2.weight", (64, 64, 3, 3), 355, 0.093, 0.167),
)
# Of the standard normal distribution.
NINETY_PERCENT = 1.2816


def residual_ticket(seed: int = 0) -> Ticket:
    """Return the ticket, its edges at random places and their magnitudes lognormal."""
    generator = np.random.default_rng(seed)
    layers, weights = {}, {}
    for name, shape, edges, median, high in LAYERS:
        places = generator.permutation(math.prod(shape))[:edges]
        spread = math.log(high / median) / NINETY_PERCENT
        values = np.zeros(math.prod(shape), dtype=np.float32)
        values[places] = generator.lognormal(math.log(median), spread, size=edges) * generator.choice((-1, 1), edges)
        weights[name] = values.reshape(shape)
        layers[name] = weights[name] != 0
    info = TicketInfo(method="ltr", classes=10, input_shape=(1, 14, 14))
    return Ticket(mask=Mask(layers=layers), weights=weights, rewind_weights=None, info=info)
