from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.verification.soft_decoding import nearest_word

# Extended Hamming [8, 4], and Golay [23, 12].
HAMMING = np.array(
    [[1, 0, 0, 0, 0, 1, 1, 1], [0, 1, 0, 0, 1, 0, 1, 1], [0, 0, 1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1, 1, 0]]
)
GOLAY = np.array([np.roll(np.pad([1, 0, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1], (0, 11)), shift) for shift in range(12)])


def words(generator: np.ndarray) -> np.ndarray:
    data = np.array([*itertools.product([0, 1], repeat=len(generator))])
    return data @ generator % 2


def score(word: np.ndarray, evidence: np.ndarray) -> float:
    return float(evidence @ (1 - 2.0 * word))


@given(st.lists(st.integers(-20, 20), min_size=8, max_size=8))
def test_of_a_small_code_the_word_is_the_most_likely_one(evidence: list[int]) -> None:
    seen = np.array(evidence, dtype=np.float64)
    found = nearest_word(HAMMING.astype(np.uint8), seen)
    assert score(found, seen) == max(score(word, seen) for word in words(HAMMING))


def test_any_two_wrong_bits_of_a_golay_word_are_put_right() -> None:
    generator, drawn = GOLAY.astype(np.uint8), np.random.default_rng(0)
    codebook = words(GOLAY)
    assert min(word.sum() for word in codebook[1:]) == 7
    for _ in range(60):
        sent = codebook[drawn.integers(len(codebook))]
        evidence = 1 - 2.0 * sent
        evidence[drawn.choice(23, 2, replace=False)] *= -1
        assert (nearest_word(generator, evidence) == sent).all()


@given(st.integers(0, 2**32 - 1))
def test_the_word_is_one_of_the_code_and_no_worse_than_what_is_read_of_the_surest_bits(seed: int) -> None:
    generator = np.random.default_rng(seed)
    code = np.hstack([np.eye(10, dtype=np.uint8), generator.integers(0, 2, (10, 14), dtype=np.uint8)])
    evidence = np.round(generator.normal(size=24), 1)
    found = nearest_word(code, evidence)
    assert (found[:10] @ code % 2 == found).all()
    # Words of the ten surest bits alone, where those are the first ones.
    evidence[:10] += np.sign(evidence[:10]) * 10
    hard = (evidence[:10] < 0).astype(np.uint8) @ code % 2
    assert score(nearest_word(code, evidence), evidence) >= score(hard, evidence)


def test_bits_that_say_nothing_are_filled_in_by_those_that_do() -> None:
    """A word is restored from any ten bits that determine it, however little each says."""
    generator = np.random.default_rng(1)
    code = np.hstack([np.eye(10, dtype=np.uint8), generator.integers(0, 2, (10, 30), dtype=np.uint8)])
    for _ in range(20):
        sent = generator.integers(0, 2, 10).astype(np.uint8) @ code % 2
        evidence = (1 - 2.0 * sent) * 1e-3
        evidence[generator.choice(40, 22, replace=False)] = 0.0
        assert (nearest_word(code, evidence) == sent).all()


def test_evidence_of_nothing_gives_some_word() -> None:
    assert nearest_word(HAMMING.astype(np.uint8), np.zeros(8)).tolist() in words(HAMMING).tolist()
