"""What is checked before a ticket is released, and what it no longer says then."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from ticketguard.errors import ConfigurationError, TensorError, TicketguardWarning
from ticketguard.marking.release import for_release, probes_of, require_fit, require_masked, warn_of_guessable_seed
from ticketguard.seeds import GUESSABLE
from ticketguard.ticket import Mask, TicketInfo

MASK = Mask(layers={"fc": np.array([[True, False], [True, True]])})


def test_a_released_ticket_forgets_where_the_data_lie_and_the_seed() -> None:
    info = TicketInfo(
        method="imp",
        model="mlp",
        data="/home/ada/scans/train.npz",
        data_options={"folder": "/home/ada/scans", "test_path": "/home/ada/test.npz", "image_size": 32},
        seed=GUESSABLE + 5,
        classes=4,
        training={"epochs": 3},
    )
    released = for_release(info)
    assert (released.data, released.data_options, released.seed) == ("train.npz", {"image_size": 32}, None)
    assert (released.method, released.model, released.classes, released.training) == ("imp", "mlp", 4, {"epochs": 3})
    assert "ada" not in repr(released)
    assert info.seed == GUESSABLE + 5


def test_only_a_seed_that_is_known_and_can_be_guessed_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in (None, GUESSABLE, 2**53 - 1):
            warn_of_guessable_seed(seed, what="the mask", instead="do not")
    for seed in (0, GUESSABLE - 1):
        with pytest.warns(TicketguardWarning, match=f"^seed {seed} can be guessed: who does has the mask; do not$"):
            warn_of_guessable_seed(seed, what="the mask", instead="do not")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, "'fc' is masked but the model has no weights of its shape"),
        ({"fc": np.ones((2, 3))}, "'fc' is masked but the model has no weights of its shape"),
        ({"fc": np.array([[1, 0], [np.nan, 1]])}, "'fc' has values that are NaN or infinite"),
        ({"fc": np.array([[1, 0], [-np.inf, 1]], np.float16)}, "'fc' has values that are NaN or infinite"),
        # Of other tensors, too.
        ({"fc": np.ones((2, 2)), "bn.running_var": np.array([np.inf])}, "'bn.running_var' has values that are NaN"),
    ],
)
def test_what_cannot_be_released_is_named(state: dict[str, Any], told: str) -> None:
    with pytest.raises(TensorError, match=told):
        require_fit(state, MASK)


def test_what_can_be_released_is_let_through() -> None:
    require_fit({"fc": np.ones((2, 2), np.float32), "steps": np.array(3), "seen": np.array([True])}, MASK)


def test_one_weight_outside_the_mask_is_too_many() -> None:
    require_masked({"fc": np.array([[1.0, 0.0], [0.0, 2.0]]), "bias": np.ones(3)}, MASK)
    with pytest.raises(ConfigurationError, match="^1 weights lie outside the marked mask"):
        require_masked({"fc": np.array([[1.0, -1e-30], [1.0, 2.0]])}, MASK)


def test_probes_are_noise_of_the_tickets_shape_and_none_if_it_is_unknown() -> None:
    probes = probes_of(TicketInfo(method="imp", input_shape=(1, 4, 4)), [])
    assert probes is not None
    assert probes.shape == (8, 1, 4, 4)
    assert probes.dtype == np.float32
    assert probes_of(TicketInfo(method="imp"), []) is None
