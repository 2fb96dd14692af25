"""Whether a layer's start weights could as well have other signs: whether drawing some of them changes nothing.

The entries of an ordinary initialisation are independent and symmetric. Constant and zero-initialised layers are not,
orthogonal ones are not independent, and neither are trained weights: their spectrum is another once signs are drawn.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ticketguard.ticket import Array

# A share of positive weights this many standard deviations from a half is no chance.
MOST_DEVIATIONS = 6.0
# Single zeros among millions of normal variables are a float's rounding.
MOST_ZEROS = 1e-4
# Draws of other signs that a layer's largest singular value is compared with, and by what factor, and how many standard
# deviations, it may differ: of independent entries it varies by a few percent.
DRAWS, MOST_FACTOR, MOST_SPECTRAL_DEVIATIONS = 6, 1.12, 8.0
ITERATIONS = 40
# Of larger layers rows and columns up to so many are looked at.
MOST_ROWS = 1024


def why_not_symmetric(layer: Array) -> str | None:
    """Return why a layer cannot carry drawn signs, in words that follow its name; None if it can.

    Args:
        layer: Start weights, shape (out, in, *kernel).
    """
    flat = np.asarray(layer, dtype=np.float64).reshape(-1)
    if not np.isfinite(flat).all():
        return "has values that are NaN or infinite"
    zeros = int(np.count_nonzero(flat == 0))
    if zeros > MOST_ZEROS * len(flat):
        return f"has {zeros} of {len(flat)} start weights that are exactly zero, which have no sign"
    positive = int(np.count_nonzero(flat > 0))
    if abs(positive - len(flat) / 2) > MOST_DEVIATIONS * math.sqrt(len(flat)) / 2:
        return f"has {positive} of {len(flat)} start weights that are positive, which is not symmetric around zero"
    if _spectrum_depends_on_signs(flat.reshape(len(layer), -1)):
        return "has start weights that depend on each other, as those of a trained or an orthogonal layer do"
    return None


def _spectrum_depends_on_signs(matrix: npt.NDArray[np.float64]) -> bool:
    """Say whether the largest singular value would be another if the entries had other signs."""
    generator = np.random.default_rng(0)
    matrix = matrix[:MOST_ROWS, :MOST_ROWS]
    if min(matrix.shape) < 2:
        return False
    own = _largest_singular_value(matrix, generator)
    others = [
        _largest_singular_value(np.abs(matrix) * generator.choice([-1.0, 1.0], size=matrix.shape), generator)
        for _ in range(DRAWS)
    ]
    mean, deviation = float(np.mean(others)), float(np.std(others, ddof=1))
    apart = abs(math.log(max(own, 1e-300) / max(mean, 1e-300)))
    return apart > max(math.log(MOST_FACTOR), MOST_SPECTRAL_DEVIATIONS * deviation / max(mean, 1e-300))


def _largest_singular_value(matrix: npt.NDArray[np.float64], generator: np.random.Generator) -> float:
    vector: npt.NDArray[np.float64] = generator.standard_normal(size=(matrix.shape[1],))
    for _ in range(ITERATIONS):
        vector = vector / max(float(np.linalg.norm(vector)), 1e-300)
        vector = matrix.T @ (matrix @ vector)
    return math.sqrt(float(np.linalg.norm(vector)))
