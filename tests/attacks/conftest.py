from __future__ import annotations

import numpy as np
import pytest
import torch

from ticketguard.attacks import Victim
from ticketguard.data import Dataset, load_data
from ticketguard.models import build_model, prunable_layers, state_arrays
from ticketguard.ticket import Mask, Ticket, TicketInfo

OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [32]}


def build() -> torch.nn.Module:
    return build_model("mlp", options=OPTIONS, seed=0)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", options={"train_limit": 256, "test_limit": 100})


@pytest.fixture
def victim(data: Dataset) -> Victim:
    network = build()
    state = state_arrays(network)
    generator = np.random.default_rng(0)
    mask = Mask(layers={name: generator.random(state[name].shape) < 0.3 for name in prunable_layers(network)})
    weights = {name: np.where(mask[name], array, 0) if name in mask else array for name, array in state.items()}
    ticket = Ticket(mask=mask, weights=weights, rewind_weights=None, info=TicketInfo(method="import"))
    return Victim(ticket=ticket, build=build, data=data)
