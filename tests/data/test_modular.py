from __future__ import annotations

import pytest
import torch

from ticketguard.data import load_data
from ticketguard.errors import ConfigurationError


def test_every_unordered_pair_is_there_once_with_its_sum() -> None:
    data = load_data("modular-addition", options={"modulus": 11})
    inputs = torch.cat([data.train_inputs, data.test_inputs])
    labels = torch.cat([data.train_labels, data.test_labels])
    assert (data.input_shape, data.classes, inputs.dtype) == ((2, 11), 11, torch.float32)
    assert bool((inputs.sum(dim=2) == 1).all())
    pairs = inputs.argmax(dim=2)
    assert sorted(map(tuple, pairs.tolist())) == [(a, b) for a in range(11) for b in range(a, 11)]
    assert torch.equal(pairs.sum(dim=1) % 11, labels)
    assert torch.equal(data.scaled(inputs), inputs)


def test_three_fifths_are_for_training_and_the_seed_says_which() -> None:
    first, same, other = (load_data("modular-addition", options={"seed": seed}) for seed in (1, 1, 2))
    assert (first.classes, len(first.train_labels), len(first.test_labels)) == (47, 676, 452)
    assert torch.equal(first.train_inputs, same.train_inputs)
    assert not torch.equal(first.train_inputs, other.train_inputs)


def test_limits_shorten_either_part() -> None:
    whole = load_data("modular-addition", options={"modulus": 11})
    short = load_data("modular-addition", options={"modulus": 11, "train_limit": 20, "test_limit": 5})
    assert (len(short.train_labels), len(short.test_labels)) == (20, 5)
    known = {tuple(row) for row in whole.train_inputs.argmax(dim=2).tolist()}
    assert {tuple(row) for row in short.train_inputs.argmax(dim=2).tolist()} < known


@pytest.mark.parametrize("modulus", [4, 252])
def test_a_modulus_that_is_too_small_or_too_large_is_refused(modulus: int) -> None:
    with pytest.raises(ConfigurationError, match=f"data option 'modulus' is {modulus}, expected 5 to 251"):
        load_data("modular-addition", options={"modulus": modulus})
