"""A ticket that was found and embedded, once for all tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

import ticketguard as tg
from ticketguard.models import build_model, load_arrays
from ticketguard.ticket import Array

MODEL_OPTIONS = {"classes": 10, "input_shape": [1, 8, 8]}
TRAINING = {"epochs": 60}


@pytest.fixture(scope="session")
def owner() -> tg.Owner:
    return tg.Owner.generate("Ada")


@pytest.fixture(scope="session")
def ticket() -> tg.Ticket:
    return tg.find(
        "mlp",
        data="digits",
        density=0.1,
        training={"epochs": 12},
        method_options={"prune_fraction": 0.7, "level_epochs": 5},
    )


@pytest.fixture(scope="session")
def embedded(ticket: tg.Ticket, owner: tg.Owner) -> tuple[tg.Ticket, tg.Credential]:
    return tg.embed(ticket, owner=owner, training=TRAINING, secret=bytes(range(32)))


def state_of(ticket: tg.Ticket) -> dict[str, Array]:
    return dict(ticket.weights)


def predictor_of(weights: Mapping[str, Array]) -> tg.CallablePredictor:
    network = build_model("mlp", options=MODEL_OPTIONS, seed=0).eval()
    load_arrays(network, weights)

    def predict(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            answer: np.ndarray = network(torch.from_numpy(inputs)).numpy()
        return answer

    return tg.CallablePredictor(predict)
