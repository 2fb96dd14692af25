"""Filters whose signs a thief has turned, for nothing, in front of a normalisation."""

from __future__ import annotations

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.signed_starts import as_if_trained, bound, credential_of, drawn_start, sign_mark, signed_weights

SHAPES = {"a.weight": (40, 30), "b.weight": (24, 10, 3, 3)}


def turned(weights: dict[str, np.ndarray], share: float, seed: int = 0) -> dict[str, np.ndarray]:
    luck = np.random.default_rng(seed)
    return {
        name: layer * np.where(luck.random(len(layer)) < share, -1, 1).reshape(-1, *[1] * (layer.ndim - 1))
        for name, layer in weights.items()
    }


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_turned_filters_read_as_the_copy_does(share: float) -> None:
    start = drawn_start(SHAPES)
    reference = bound(start)
    made = sign_mark(reference)
    credential = credential_of(made, reference=reference)
    copy = as_if_trained(signed_weights(start, reference, made), density=0.5)
    (plain,) = tg.verify(tg.Checkpoint(copy), credential).evidence
    (seen,) = tg.verify(tg.Checkpoint(turned(copy, share)), credential).evidence
    assert plain.log10_p < -70
    assert seen.observed >= 0.99 * plain.observed
    assert seen.details["looks"] == plain.details["looks"]
