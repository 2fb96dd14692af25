"""What becomes of values that are NaN or infinite: a network that is used is refused, a suspect is read without them.

A thief can put one, at no cost, where it changes no answer: before a neuron that is always off.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from ticketguard.errors import TensorError
from ticketguard.ticket import Array, FloatArray

_HINT = "such a network cannot answer; ask for the weights that are in use"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotFinite:
    """How much of a tensor is NaN or infinite.

    Attributes:
        values: Values that are.
        of: Values that are not zero.
    """

    values: int
    of: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damage:
    """What of some tensors cannot be read as a suspect's weights.

    Attributes:
        unreadable: What is wrong with those that cannot be read at all, by name.
        not_finite: Of those that can, how much is NaN or infinite, by name.
    """

    unreadable: Mapping[str, str]
    not_finite: Mapping[str, NotFinite]


def require_finite(values: Array, *, name: str) -> None:
    """Check that a tensor of the network is finite.

    Raises:
        TensorError: It is not.
    """
    if not _is_finite(values):
        raise TensorError(name=name, reason="has values that are NaN or infinite (in float32)", hint=_HINT)


def without_not_finite(values: FloatArray, *, name: str) -> NotFinite | None:
    """Put zeros for what is NaN or infinite in a suspect's tensor, in place, and say how much it was; None if nothing.

    Raises:
        TensorError: Nothing else is there.
    """
    if _is_finite(values):
        return None
    wrong = ~np.isfinite(values)
    found = NotFinite(values=int(np.count_nonzero(wrong)), of=int(np.count_nonzero(values)))
    if found.values == found.of:
        raise TensorError(
            name=name, reason="has values that are NaN or infinite (in float32), and no others but zeros", hint=_HINT
        )
    values[wrong] = 0
    return found


def _is_finite(values: Array) -> bool:
    # Smallest and largest see a NaN or infinity anywhere, and need no second array.
    return not values.size or (math.isfinite(values.min()) and math.isfinite(values.max()))
