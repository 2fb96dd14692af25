"""A suspect's doubles as float32, whatever their scale: signs, and sizes beside those of the same row or column, stay.

Behind a rectifier a layer can be multiplied by 10^-60, or each of its channels by another factor, if the next layer
takes it back: no answer changes, and little of it would be left in float32's range. A network that is used is never
scaled; this is for suspects, in whom signs and relative sizes are all that is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.ticket import Array, FloatArray

Exponents: TypeAlias = npt.NDArray[np.float32]

# Scales of rows, and of columns, stay as they are within 2^8 of their middle and end there: which are small is still
# seen, and dividing rows and columns by their norms in turn, as readings do, soon undoes what is left.
_ROOM = 8
# What is smaller than 2^-80 of its row's and column's scale says nothing of that: a thief can fill holes with it.
_NEAR = 80
# Rounds until the scales of rows and of columns agree; with sparse layers of some hundred channels, ten do.
_ROUNDS = 12


def narrowed(values: Array) -> FloatArray:
    """Return a suspect's floating-point values in float32: as they are, or scaled where that would lose some.

    A power of two for the whole tensor is tried first, then one for each row and column (axes 0 and 1); whichever
    keeps more values is taken, the one that changes less if two keep as many. NaN and infinity stay what they are.

    Args:
        values: Of any floating-point type; float32 is returned as it is.
    """
    if values.dtype == np.float32:
        return values
    plain = _cast(values)
    finite = np.where(np.isfinite(values), values, 0)
    wanted = int(np.count_nonzero(finite))
    if _kept(plain) == wanted:
        return plain
    exponents = np.where(finite != 0, np.frexp(finite)[1], -np.inf).astype(np.float32)
    whole = _scaled(values, np.zeros_like(exponents), exponents)
    if _kept(whole) == wanted:
        return whole
    return _scaled(values, _channel_scales(exponents), exponents)


def _cast(values: Array) -> FloatArray:
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float32)


def _kept(values: FloatArray) -> int:
    """Count what is finite and has all of float32's precision: of what is smaller, the order is lost as well."""
    return int(np.count_nonzero(np.isfinite(values) & (np.abs(values) >= np.finfo(np.float32).tiny)))


def _scaled(values: Array, scales: Exponents, exponents: Exponents) -> FloatArray:
    """Divide by two to the *scales*, and so that the largest is between a half and one."""
    top = (exponents - scales).max(initial=-np.inf)
    with np.errstate(under="ignore"):
        return _cast(np.ldexp(values, -(scales + top).astype(np.int32)))


def _channel_scales(exponents: Exponents) -> Exponents:
    """Return what to take from the exponents, whole numbers, so that no row or column is far from the others."""
    shape = exponents.shape
    matrix = exponents.reshape(shape[0], shape[1] if len(shape) > 1 else 1, -1).max(axis=2)
    scales = np.zeros_like(matrix)
    for fitted, axis in zip(_rank_one(matrix), (1, 0), strict=True):
        live = np.isfinite(matrix).any(axis=axis, keepdims=True)
        middle = np.median(fitted[live])
        scales += np.rint(fitted - np.clip(fitted - middle, -_ROOM, _ROOM))
    return np.broadcast_to(scales.reshape(*scales.shape[: len(shape)], *[1] * (len(shape) - 2)), shape)


def _rank_one(matrix: Exponents) -> tuple[Exponents, Exponents]:
    """Fit a scale for each row and one for each column to exponents, minus infinity where there is nothing.

    First to all of them: where no hole is filled, that is it. Then to the largest of each row and column, and to what
    is near these, which what fills holes is not.
    """
    rest, rows, columns = matrix.copy(), np.zeros((len(matrix), 1)), np.zeros((1, matrix.shape[1]))

    def fit(estimate: Callable[[Exponents, int], Exponents]) -> None:
        for scales, axis in ((rows, 1), (columns, 0)):
            change = estimate(rest, axis)
            np.add(scales, change, out=scales)
            np.subtract(rest, change, out=rest)

    for _ in range(_ROUNDS):
        fit(lambda rest, axis: _mean(rest, axis, above=-np.inf))
    fit(lambda rest, axis: np.nan_to_num(rest.max(axis=axis, keepdims=True), neginf=0.0))
    for _ in range(_ROUNDS):
        fit(lambda rest, axis: _mean(rest, axis, above=-_NEAR))
    return rows.astype(np.float32), columns.astype(np.float32)


def _mean(rest: Exponents, axis: int, *, above: float) -> Exponents:
    """Return the mean along an axis of what is above a number; 0 where nothing is."""
    some = rest > above
    total = np.add.reduce(rest, axis=axis, where=some, keepdims=True)
    return np.asarray(total / np.maximum(np.count_nonzero(some, axis=axis, keepdims=True), 1), dtype=np.float32)
