"""Assignments that are not made up yet: how likely each channel is each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Rounds of division by sums of rows and of columns.
ROUNDS = 20
# So small a share is none.
LEAST = 1e-12


def shared_out(nats: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return how likely channels are each other's, given log likelihoods: every channel of the fewer has one.

    (Sinkhorn and Knopp 1967; as a relaxed assignment, Gold and Rangarajan 1996, "A graduated assignment algorithm for
    graph matching".)

    Args:
        nats: Shape (channels, suspect's channels).

    Returns:
        The same shape. Sums are 1 along the channels of the side that has fewer, at most about 1 along the other.
    """
    if nats.shape[0] > nats.shape[1]:
        return np.ascontiguousarray(shared_out(nats.T).T)
    shares = np.exp(nats - nats.max(axis=1, keepdims=True)) + LEAST
    # What no channel takes of the suspect's further channels.
    free = nats.shape[1] - nats.shape[0]
    rows, columns = np.ones(len(shares)), np.ones(nats.shape[1])
    left = free / nats.shape[1]
    for _ in range(ROUNDS):
        rows = 1 / (shares @ columns)
        columns = 1 / (rows @ shares + left)
        if free:
            left = free / columns.sum()
    rows = 1 / (shares @ columns)
    return np.asarray(shares * rows[:, None] * columns, dtype=np.float32)
