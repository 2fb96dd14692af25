"""Weights as people have them: dense, and pruned somewhere else."""

from __future__ import annotations

import numpy as np

GENERATOR = np.random.default_rng(3)


def state(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "fc.weight": generator.normal(size=(20, 30)).astype(np.float32),
        "fc.bias": generator.normal(size=20).astype(np.float32),
        "norm.num_batches_tracked": np.array(7, dtype=np.int64),
    }


def sparse(seed: int = 0) -> dict[str, np.ndarray]:
    weights = state(seed)
    weights["fc.weight"][np.random.default_rng(seed + 1).random((20, 30)) < 0.8] = 0
    return weights


def pruned(*shape: int) -> np.ndarray:
    array = GENERATOR.normal(size=shape).astype(np.float32)
    array[GENERATOR.random(shape) < 0.8] = 0
    return array


def full(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape).astype(np.float32)
