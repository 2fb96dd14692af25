"""A first sight is one count that is as rare as it says, on every suspect."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import SHAPES, TICKET, unmarked_ticket
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.interface import Glance
from ticketguard.verification.memory import Memory
from ticketguard.verification.planted_graph.glancing import glance

REFERENCE = TICKET.reference()
OTHER = unmarked_ticket(seed=7)
FULL = Reference(
    mask=Mask(layers={name: np.ones(shape, dtype=np.bool_) for name, shape in SHAPES.items()}),
    kept_weights={name: np.asarray(TICKET.rewind_weights[name]).reshape(-1) for name in SHAPES},
)
PARAMETERS = PlantedParameters(secret_ppm=30_000, share_ppm=100_000)
LATER = PlantedParameters(secret_ppm=30_000, share_ppm=100_000, density_ppm=100_000)
HOLES = PlantedParameters(secret_ppm=30_000, share_ppm=100_000, holes_ppm=200_000)


def first_sights(
    weights: object, reference: Reference, parameters: PlantedParameters, *, keys: int = 300
) -> list[Glance]:
    suspect, seen = tg.Checkpoint(weights), Memory(limit_bytes=2**24)  # type: ignore[arg-type]
    return [
        glance(
            suspect,
            reference,
            Binding(secret=index.to_bytes(32, "little"), commitment=bytes(32)),
            parameters,
            groups=(),
            memory=None,
            seen=seen,
        )
        for index in range(keys)
    ]


@pytest.mark.parametrize(
    ("weights", "reference", "parameters"),
    [
        (OTHER.weights, REFERENCE, PARAMETERS),
        (OTHER.rewind_weights, REFERENCE, PARAMETERS),
        (TICKET.rewind_weights, REFERENCE, PARAMETERS),
        (OTHER.weights, FULL, LATER),
        (OTHER.rewind_weights, FULL, HOLES),
    ],
    ids=["sparse", "dense", "the reference's own", "found later", "holes"],
)
def test_wrong_keys_see_a_small_p_as_rarely_as_it_says(
    weights: object, reference: Reference, parameters: PlantedParameters
) -> None:
    p = 10.0 ** np.array([found.log10_p for found in first_sights(weights, reference, parameters)])
    for level in (0.1, 0.03, 0.01):
        # Five standard deviations above the level.
        assert (p <= level).mean() <= level + 5 * math.sqrt(level * (1 - level) / len(p))


def test_a_dense_and_a_sparse_suspect_show_unlikely_counts_now_and_then() -> None:
    for weights in (OTHER.weights, OTHER.rewind_weights):
        p = 10.0 ** np.array([found.log10_p for found in first_sights(weights, REFERENCE, PARAMETERS)])
        assert 0.005 < (p <= 0.05).mean() < 0.1


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_a_constant_suspect_shows_nothing(value: float) -> None:
    weights = {name: np.full(shape, value, dtype=np.float32) for name, shape in SHAPES.items()}
    for found in first_sights(weights, REFERENCE, PARAMETERS, keys=20):
        assert (found.log10_p, found.likeness) == (0.0, 0.0)


def test_likeness_is_one_of_the_reference_and_nothing_of_another() -> None:
    (own,) = first_sights(TICKET.weights, REFERENCE, PARAMETERS, keys=1)
    (other,) = first_sights(OTHER.weights, REFERENCE, PARAMETERS, keys=1)
    assert own.likeness == pytest.approx(1.0)
    assert abs(other.likeness) < 0.05


def test_several_networks_are_paid_for() -> None:
    third = unmarked_ticket(seed=9)
    fronts = {"net": OTHER.weights, "ema": third.weights}
    both = {f"{front}.{name}": array for front, weights in fronts.items() for name, array in weights.items()}
    found, *alone = (
        [sight.log10_p for sight in first_sights(weights, REFERENCE, PARAMETERS, keys=150)]
        for weights in (both, OTHER.weights, third.weights)
    )
    expected = [min(0.0, min(pair) + math.log10(2)) for pair in zip(*alone, strict=True)]
    assert found == pytest.approx(expected)
    assert any(expected)
