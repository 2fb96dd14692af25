"""A suspect's channels are put into the order of start weights by what anchors say."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_perceptron import GROUPS, permuted
from drawn_start import ANCHORS, a_start, rescaled, strongest, trained

from ticketguard.errors import TensorError, UnverifiableError
from ticketguard.graph import Alignment, align
from ticketguard.ticket.start_reference import StartLayer, StartReference


def right(found: Alignment, orders: list[np.ndarray]) -> float:
    """Return the share of channels that are found in their place."""
    pairs = zip(found.orders, orders, strict=True)
    return sum(int((one == other).sum()) for one, other in pairs) / sum(map(len, orders))


def test_a_permuted_and_rescaled_copy_is_found_again() -> None:
    reference, weights = a_start()
    suspect, orders = permuted(rescaled(trained(weights)))
    found = align(suspect, reference, GROUPS)
    assert right(found, orders) >= 0.95
    assert (found.is_found, found.is_clear, found.chance) == (True, True, 0.5)


def test_a_copy_that_was_not_permuted_is_left_as_it_is() -> None:
    reference, weights = a_start()
    found = align(trained(weights), reference, GROUPS)
    assert found.is_clear
    assert found.changes_nothing


def test_votes_say_nothing_of_their_signs() -> None:
    reference, weights = a_start()
    flipped = {
        name: np.where(reference.anchors(name).reshape(layer.shape), layer, -layer) for name, layer in weights.items()
    }
    other = StartReference(layers={name: StartLayer.of(name, layer, share=ANCHORS) for name, layer in flipped.items()})
    suspect, _ = permuted(trained(weights))
    one, same = (align(suspect, each, GROUPS) for each in (reference, other))
    assert [order.tolist() for order in one.orders] == [order.tolist() for order in same.orders]


def test_a_dense_suspect_is_compared_by_its_strongest_weights() -> None:
    reference, weights = a_start()
    luck = np.random.default_rng(8)
    dense = {name: layer + luck.normal(size=layer.shape).astype(np.float32) for name, layer in weights.items()}
    suspect, orders = permuted(dense)
    found = align(suspect, reference, GROUPS)
    assert right(found, orders) >= 0.95
    # Of the strongest quarter nearly all signs are kept, of all weights three in four.
    assert found.overlap > 0.85
    counts = {name: round(0.1 * layer.size) for name, layer in weights.items()}
    few = align(suspect, reference, GROUPS, counts=counts)
    same = align({name: strongest(layer, 0.1) for name, layer in suspect.items()}, reference, GROUPS, counts=counts)
    assert few.overlap == pytest.approx(same.overlap, abs=0.1)
    assert few.overlap > found.overlap


def test_what_does_not_fit_is_refused() -> None:
    reference, _ = a_start()
    with pytest.raises(UnverifiableError, match="none of the reference's layers"):
        align({}, reference, GROUPS)
    with pytest.raises(TensorError, match="has shape"):
        align({"a": np.zeros((60, 80, 3), np.float32)}, reference, GROUPS)
