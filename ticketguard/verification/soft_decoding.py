"""Decoding a binary linear code from bits of which some are surer than others.

Ordered-statistics decoding of order 2: the surest bits that determine a word are taken as they are read, then with any
one and any two of them turned, and the word that what was read speaks for most is kept. (Fossorier and Lin,
"Soft-decision decoding of linear block codes based on ordered statistics", IEEE Trans. Inf. Theory 41(5), 1995.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.pairs import Bits


def nearest_word(generator: Bits, evidence: npt.NDArray[np.float64]) -> Bits:
    """Return the code word that the evidence speaks for most, of those that are looked at.

    Args:
        generator: The code's generator matrix of full rank, shape (data bits, bits), 0 or 1.
        evidence: For each bit how much speaks for 0, less how much speaks for 1.
    """
    reduced, surest = _reduced(generator, np.argsort(-np.abs(evidence), kind="stable"))
    word = np.bitwise_xor.reduce(reduced[evidence[surest] < 0], axis=0, initial=0)
    agreeing = evidence * (1.0 - 2.0 * word)
    signs = 1.0 - 2.0 * reduced
    once = signs @ agreeing
    # A row turned twice is not turned: the diagonal is the word itself.
    twice = (signs * agreeing) @ signs.T
    one, two = np.unravel_index(int(np.argmax(twice)), twice.shape)
    if once.max() > twice[one, two]:
        return np.asarray(word ^ reduced[int(np.argmax(once))])
    return np.asarray(word ^ reduced[one] ^ reduced[two])


def _reduced(generator: Bits, order: npt.NDArray[np.int64]) -> tuple[Bits, npt.NDArray[np.int64]]:
    """Bring a generator matrix into a form in which each row alone has one of the first independent columns of *order*.

    Returns:
        The matrix, and the column of each row.
    """
    rows, columns = generator.shape
    packed = np.packbits(generator, axis=1)
    found: list[int] = []
    for column in order.tolist():
        has = packed[:, column // 8] >> (7 - column % 8) & 1
        below = np.flatnonzero(has[len(found) :])
        if not len(below):
            continue
        row, pivot = len(found), len(found) + int(below[0])
        packed[[row, pivot]] = packed[[pivot, row]]
        has[[row, pivot]] = has[[pivot, row]]
        has[row] = 0
        packed[has == 1] ^= packed[row]
        found.append(column)
        if len(found) == rows:
            break
    return np.unpackbits(packed, axis=1, count=columns), np.array(found, dtype=np.int64)
