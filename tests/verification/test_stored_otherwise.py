"""Copies whose tensors another library keeps in another order of axes, and what a verdict says of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import evidence, marked_weights, planted_mark, signed, unmarked_ticket

SHAPES = {
    "conv1.weight": (20, 3, 3, 3),
    "conv2.weight": (20, 20, 3, 3),
    "conv3.weight": (30, 20, 3, 3),
    "down.weight": (30, 20, 1, 1),
    "fc1.weight": (30, 30),
    "fc2.weight": (10, 30),
}
TICKET = unmarked_ticket(SHAPES, density=0.15)
REFERENCE = TICKET.reference()
STORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transposed linear layers": lambda layer: layer if layer.ndim > 2 else layer.T,
    "TensorFlow": lambda layer: np.moveaxis(layer, (0, 1), (-1, -2)),
    "TensorFlow Lite": lambda layer: np.moveaxis(layer, 1, -1),
    "matrices": lambda layer: layer.reshape(len(layer), -1),
    "1x1 convolutions": lambda layer: layer[..., None, None] if layer.ndim == 2 else layer,
    "no axes of one": lambda layer: layer.reshape([size for size in layer.shape if size != 1]),
}


@pytest.fixture(scope="module")
def made() -> tuple[tg.Credential, dict[str, np.ndarray]]:
    mark = planted_mark(reference=REFERENCE)
    return signed(mark, reference=REFERENCE), marked_weights(mark, TICKET)


@pytest.mark.parametrize("store", STORES)
def test_a_copy_is_read_however_it_is_stored(store: str, made: tuple[tg.Credential, dict[str, np.ndarray]]) -> None:
    credential, marked = made
    plain = evidence(marked, credential)
    stored = {name: np.ascontiguousarray(STORES[store](layer)) for name, layer in marked.items()}
    assert any(stored[name].shape != layer.shape for name, layer in marked.items())
    found = evidence(stored, credential)
    assert (found.status, found.log10_p) == ("supported", plain.log10_p)
    # Nothing that was not marked is supported in any of them.
    innocent = {name: np.ascontiguousarray(STORES[store](layer)) for name, layer in TICKET.weights.items()}
    assert evidence(innocent, credential).status == "not_supported"
