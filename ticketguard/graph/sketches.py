"""What a layer's strong weights look like in any order of its channels: which of several layers it may be.

Degrees are compared, of output and of input channels, at each place of the kernel, and those of the channels at the
other ends of their edges; each as a share of the mean and in ascending order, so that neither the order nor the number
of channels matters, nor how many edges there are in all.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import IndexArray

# Points of a distribution that are compared.
QUANTILES = 16
# Of more places of a kernel than this only their sum is compared.
MOST_PLACES = 32


def profiles(flat: IndexArray, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return how many edges each output channel, and each input channel, has at each place of the kernel.

    Args:
        flat: Flat positions of the edges, distinct.
        shape: The layer's shape (out, in, *kernel).

    Returns:
        Two arrays of shape (channels · places,), in the order of the layer's channels.
    """
    out, given, place, places = _ends(flat, shape)
    sizes = (max(1, size) for size in shape[:2])
    rows, columns = (
        np.bincount(ends * places + place, minlength=size * places).astype(np.float32)
        for ends, size in zip((out, given), sizes, strict=True)
    )
    return rows, columns


def _ends(flat: IndexArray, shape: tuple[int, ...]) -> tuple[IndexArray, IndexArray, IndexArray, int]:
    """Return each edge's output channel, input channel and place, and how many places there are."""
    places = max(1, math.prod(shape[2:]))
    out, rest = np.divmod(flat, max(1, shape[1]) * places)
    given, place = np.divmod(rest, places)
    if places > MOST_PLACES:
        place, places = np.zeros_like(place), 1
    return out, given, place, places


def sketch(flat: IndexArray, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return the sketch of a layer's edges.

    Args:
        flat: Flat positions of the edges, distinct.
        shape: The layer's shape (out, in, *kernel).

    Returns:
        Features; as many for every layer with this kernel.
    """
    outs, ins = (max(1, size) for size in shape[:2])
    out, given, place, places = _ends(flat, shape)
    degrees = [np.bincount(ends, minlength=size) for ends, size in ((out, outs), (given, ins))]
    parts = [np.bincount(place, minlength=places) * (places / max(1, len(flat)))]
    for ends, size, own, other, others in (
        (out, outs, degrees[0], given, degrees[1]),
        (given, ins, degrees[1], out, degrees[0]),
    ):
        mean = max(len(flat) / size, 1e-9)
        at_place = np.bincount(ends * places + place, minlength=size * places).reshape(size, places)
        beyond = np.bincount(ends, weights=others[other], minlength=size) / np.maximum(own, 1)
        columns = np.column_stack([own / mean, at_place * (places / mean), beyond / max(beyond.mean(), 1e-9)])
        points = np.linspace(0, 1, QUANTILES)
        parts.append(np.quantile(columns, points, axis=0).reshape(-1))
    return np.concatenate(parts).astype(np.float32)
