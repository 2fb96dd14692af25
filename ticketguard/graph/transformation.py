"""What can be done to a network's weights: values that are applied to a state dict and, where nothing is lost, undone.

None of them needs torch or the model. A state dict is only read: what comes back shares the arrays that stay the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
State: TypeAlias = Mapping[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What a transformation is, for tables and reports.

    Attributes:
        name: A few words.
        does: What happens to the weights, as half a sentence.
        exact: Whether the function stays the same, up to the rounding of sums.
        around: What whoever runs the model must change around the weights; empty if nothing.
    """

    name: str
    does: str
    exact: bool
    around: str = ""


class Transformation(Protocol):
    """One change of a network's weights, all random choices made."""

    @property
    def description(self) -> Description:
        """Say what it is."""
        ...

    def apply(self, state: State) -> dict[str, Array]:
        """Return the changed state; tensors that *state* lacks are left out, so a mask or a part of it will do."""
        ...


class Symmetry(Transformation, Protocol):
    """A transformation that leaves the function alone and loses nothing."""

    def undo(self, state: State) -> dict[str, Array]:
        """Return what `apply` was given."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """Symmetries one after another; itself a symmetry.

    Attributes:
        steps: The symmetries, in the order in which they are applied.
    """

    steps: tuple[Symmetry, ...]

    @property
    def description(self) -> Description:
        """Say what it is."""
        parts = list(dict.fromkeys(step.description for step in self.steps))
        return Description(
            name=" + ".join(part.name for part in parts),
            does="; ".join(part.does for part in parts),
            exact=all(part.exact for part in parts),
            around="; ".join(part.around for part in parts if part.around),
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return the state after every step."""
        result = dict(state)
        for step in self.steps:
            result = step.apply(result)
        return result

    def undo(self, state: State) -> dict[str, Array]:
        """Return the state before the first step."""
        result = dict(state)
        for step in reversed(self.steps):
            result = step.undo(result)
        return result


def along(array: Array, axis: int, vector: Array) -> Array:
    """Return *vector* shaped to broadcast along one *axis* of *array*."""
    return vector.reshape([-1 if other == axis else 1 for other in range(array.ndim)])


def like(array: Array, values: Array) -> Array:
    """Return *values*, computed in double precision, in the precision of *array*."""
    return np.asarray(values).astype(array.dtype, copy=False)
