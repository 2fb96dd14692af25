"""How votes are counted where a suspect's filters were turned, for many keys at once, and of tiny networks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.verification.claims import SECRET
from tests.verification.signed_starts import Weights, as_if_trained, bound, drawn_start, sign_mark, signed_weights
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import SignParameters
from ticketguard.verification.keyed_signs.counting import ReadVotes, count_agreements, edges_to_read, signs_of_votes
from ticketguard.verification.memory import Memory

# Two layers of one size: what is kept of one is not to pass for the other.
SHAPES = {"a.weight": (40, 30), "b.weight": (40, 30)}
START = drawn_start(SHAPES)
REFERENCE = bound(START)
MADE = sign_mark(REFERENCE)
BINDING = Binding(secret=SECRET, commitment=MADE.commitment)
COPY = as_if_trained(signed_weights(START, REFERENCE, MADE))
WHOLE = SignParameters(density_ppm=1_000_000)


def counted(suspect: Weights, binding: Binding = BINDING, memory: Memory | None = None) -> list[tuple[int, int]]:
    found = count_agreements(ReadVotes.of(suspect, REFERENCE, WHOLE), REFERENCE, binding, memory)
    return [(count.agreements, count.votes) for count in found]


def test_filters_that_a_thief_turned_are_turned_back() -> None:
    turned = {}
    for name, layer in COPY.items():
        turned[name] = layer.copy()
        turned[name][::3] *= -1
        turned[name][:, 1::4] *= -1
    assert counted(turned) == counted(COPY)
    agreements, votes = counted(COPY)[0]
    assert agreements > 0.85 * votes
    assert (turned["a.weight"] == COPY["a.weight"]).mean() < 0.6


def test_what_is_kept_of_votes_is_of_one_key_and_one_layer() -> None:
    """Of many credentials whose suspects are judged together, each counts its own votes."""
    memory = Memory(limit_bytes=10**6)
    others = (
        Binding(secret=bytes(32), commitment=BINDING.commitment),
        Binding(secret=SECRET, commitment=bytes([1] * 32)),
    )
    for binding in (BINDING, *others, BINDING):
        assert counted(COPY, binding, memory) == counted(COPY, binding)
        for name in SHAPES:
            kept = signs_of_votes(REFERENCE, name, binding, memory)
            assert (kept == signs_of_votes(REFERENCE, name, binding)).all()
    assert memory.held_bytes == 3 * sum(int((~REFERENCE.anchors(name)).sum()) for name in SHAPES)


@pytest.mark.parametrize(("density_ppm", "edges"), [(1, 1), (833, 1), (834, 2), (500_000, 1200), (1_000_000, 2400)])
def test_the_edges_to_read_are_the_largest_of_all_layers_and_one_at_least(density_ppm: int, edges: int) -> None:
    suspect = {"a.weight": COPY["a.weight"], "b.weight": 3 * COPY["b.weight"]}
    found = edges_to_read(suspect, REFERENCE, SignParameters(density_ppm=density_ppm))
    assert sum(found.values()) == edges
    together = np.sort(np.abs(np.concatenate([layer.reshape(-1) for layer in suspect.values()])))[-edges]
    assert found == {name: int((np.abs(layer) >= together).sum()) for name, layer in suspect.items()}


def test_weights_that_are_zero_are_no_edges() -> None:
    suspect = {"a.weight": np.zeros((40, 30), np.float32), "b.weight": COPY["b.weight"]}
    assert edges_to_read(suspect, REFERENCE, WHOLE) == {"a.weight": 0, "b.weight": 1200}
