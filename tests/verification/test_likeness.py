"""How like layers tensors are: by numbers that pruning all of them alike leaves alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ticketguard.checkpoints.matching import layouts_of
from ticketguard.verification.likeness import FEWEST_PLACES, Seen, Wanted, distances, profile_nats

SHAPE = (40, 30)
(LAYOUT,) = layouts_of(SHAPE, SHAPE)


def wanted(rows: np.ndarray, columns: np.ndarray, sketch: np.ndarray, edges: int = 100) -> Wanted:
    return Wanted(
        shape=SHAPE,
        edges=edges,
        samples=np.arange(0),
        sketch=sketch,
        profiles=(rows.astype(float), columns.astype(float)),
    )


def seen(one: Wanted, *, times: float = 1.0) -> Seen:
    """A tensor that looks like a layer, with so many times its edges."""
    rows, columns = one.profiles
    return Seen(
        layout=LAYOUT,
        layers=frozenset(),
        nats={},
        sketch=one.sketch,
        profiles=(rows * times, columns * times),
        alive=round(one.edges * times),
    )


def layers(count: int) -> list[Wanted]:
    luck = np.random.default_rng(count)
    return [
        wanted(luck.poisson(20, 40), luck.poisson(20, 30), luck.normal(size=8), edges=100 * (index + 1))
        for index in range(count)
    ]


def test_profiles_in_their_places_say_what_their_correlation_says() -> None:
    """Of one layer alone: -n/2 ln(1 - r^2) for its rows and for its columns, and nothing of a negative one."""
    luck = np.random.default_rng(0)
    rows, columns = luck.poisson(20, 40), luck.poisson(20, 30)
    one, other = wanted(rows, columns, np.zeros(8)), wanted(rows + luck.poisson(5, 40), columns[::-1], np.zeros(8))
    expected = 0.0
    for size, mine, theirs in zip(SHAPE, one.profiles, other.profiles, strict=True):
        r = max(0.0, float(np.corrcoef(mine, theirs)[0, 1]))
        expected -= size / 2 * np.log(1 - r**2)
    assert profile_nats([one], [seen(other)])[0, 0] == pytest.approx(expected)
    against = wanted(rows.max() - rows, columns.max() - columns, np.zeros(8))
    assert profile_nats([one], [seen(against)])[0, 0] == 0


def test_few_channels_say_nothing_and_others_of_another_number_neither() -> None:
    few = wanted(np.arange(FEWEST_PLACES - 1), np.arange(FEWEST_PLACES - 1), np.zeros(8))
    enough = wanted(np.arange(FEWEST_PLACES), np.arange(FEWEST_PLACES), np.zeros(8))
    found = profile_nats([few, enough], [seen(few), seen(enough)])
    assert found[1, 1] > 100
    assert np.count_nonzero(found) == 1


def test_what_all_layers_have_in_common_makes_none_of_them_alike() -> None:
    """The stronger channels of a stream, say, however many edges each layer has."""
    luck = np.random.default_rng(0)
    stream = 10 + 40 * luck.random(40)
    ours = [wanted(luck.poisson(stream * times), np.ones(30), np.zeros(8)) for times in (1, 4, 16, 2, 8, 32)]
    nats = profile_nats(ours, [seen(one, times=times) for one, times in zip(ours, (9, 1, 3, 2, 7, 5), strict=True)])
    own, others = np.diag(nats), nats[~np.eye(6, dtype=bool)]
    assert own.min() > 50
    assert others.max() < 20


def test_a_tensor_is_as_far_from_a_layer_as_its_amount_and_its_look_are() -> None:
    ours = layers(6)
    # Nine of ten edges are pruned from all: what each has beside the others is the same.
    theirs = [seen(one, times=0.1) for one in ours]
    far = distances(ours, theirs)
    assert np.diag(far) == pytest.approx(0, abs=1e-9)
    assert (far + np.eye(6) > 0.1).all()
    alike = [dataclasses.replace(one, sketch=ours[0].sketch) for one in ours]
    by_amount = distances(alike, [seen(one) for one in alike])
    assert (by_amount.argmin(axis=1) == np.arange(6)).all()
    assert (by_amount[0, 1:] > 0).all()
