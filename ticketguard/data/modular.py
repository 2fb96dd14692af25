"""Modular addition: all the pairs there are, learnt from a part of them."""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot

from ticketguard.data.dataset import DataOptions, Dataset, shortened
from ticketguard.errors import ConfigurationError

MODULAR_ADDITION = "modular-addition"
# Small enough to be learnt in seconds, large enough to be memorised long before it is understood.
DEFAULT_MODULUS = 47
# One-hot pairs take 4 p^3 bytes in all, and are held in memory.
SMALLEST_MODULUS, LARGEST_MODULUS = 5, 251
TRAIN_SHARE = 0.6


def modular_addition(options: DataOptions) -> Dataset:
    """Make the sums (a + b) mod p of all pairs a ≤ b; 60% of them, drawn by the options' seed, are for training.

    Pairs are unordered: with (b, a) in training, (a, b) would test nothing. Inputs are one-hot, shape (2, p).

    Raises:
        ConfigurationError: The modulus is out of range.
    """
    modulus = options.modulus or DEFAULT_MODULUS
    if not SMALLEST_MODULUS <= modulus <= LARGEST_MODULUS:
        raise ConfigurationError(
            f"data option 'modulus' is {modulus}, expected {SMALLEST_MODULUS} to {LARGEST_MODULUS}"
        )
    pairs = torch.combinations(torch.arange(modulus), with_replacement=True)
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(options.seed))]
    inputs, labels = one_hot(pairs, modulus).float(), pairs.sum(dim=1) % modulus
    split = int(TRAIN_SHARE * len(pairs))
    train_inputs, train_labels = shortened(inputs[:split], labels[:split], options.train_limit, seed=options.seed)
    test_inputs, test_labels = shortened(inputs[split:], labels[split:], options.test_limit, seed=options.seed)
    return Dataset(
        name=MODULAR_ADDITION,
        train_inputs=train_inputs,
        train_labels=train_labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
        classes=modulus,
        mean=(),
        std=(),
    )
