"""Weights laid out as other frameworks do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from ticketguard.graph.transformation import Array, Description, State

Shape: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """One tensor's new layout.

    Attributes:
        shape: Its shape before.
        axes: The old axis that each axis of the result is, before some are joined.
        joined: Its shape after.
    """

    shape: Shape
    axes: tuple[int, ...]
    joined: Shape

    def there(self, array: Array) -> Array:
        """Lay *array* out anew."""
        if array.shape != self.shape:
            raise ValueError(f"a tensor has shape {array.shape}, expected {self.shape}")
        return np.ascontiguousarray(array.transpose(self.axes)).reshape(self.joined)

    def back(self, array: Array) -> Array:
        """Lay *array* out as it was."""
        if array.shape != self.joined:
            raise ValueError(f"a tensor has shape {array.shape}, expected {self.joined}")
        apart = array.reshape([self.shape[axis] for axis in self.axes])
        return np.ascontiguousarray(apart.transpose(np.argsort(self.axes)))


def _moved(shape: Shape, axes: tuple[int, ...]) -> Move:
    return Move(shape=shape, axes=axes, joined=tuple(shape[axis] for axis in axes))


def _reshaped(shape: Shape, joined: Shape) -> Move:
    return Move(shape=shape, axes=tuple(range(len(shape))), joined=joined)


# By name: which shapes, laid out (out, in, *kernel), can be laid out so, and how.
LAYOUTS: Mapping[str, tuple[Callable[[Shape], bool], Callable[[Shape], Move]]] = {
    # GPT-2's Conv1D, and every dense layer of TensorFlow and JAX.
    "in first": (lambda shape: len(shape) > 1, lambda shape: _moved(shape, (1, 0, *range(2, len(shape))))),
    # TensorFlow's and JAX's HWIO.
    "kernel first": (lambda shape: len(shape) > 2, lambda shape: _moved(shape, (*range(2, len(shape)), 1, 0))),
    # OHWI: TensorFlow Lite, and torch's channels last when it is saved by other tools.
    "channels last": (lambda shape: len(shape) > 2, lambda shape: _moved(shape, (0, *range(2, len(shape)), 1))),
    # One row per filter, as for a product with unfolded patches.
    "matrix": (lambda shape: len(shape) > 2, lambda shape: _reshaped(shape, (shape[0], int(np.prod(shape[1:]))))),
    "linear as 1x1": (lambda shape: len(shape) == 2, lambda shape: _reshaped(shape, (*shape, 1, 1))),
    "1x1 as linear": (
        lambda shape: len(shape) > 2 and set(shape[2:]) == {1},
        lambda shape: _reshaped(shape, shape[:2]),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relayout:
    """Some weights laid out another way.

    Attributes:
        moves: By tensor, its new layout.
    """

    moves: Mapping[str, Move]

    @classmethod
    def of(cls, state: State, layouts: Mapping[str, str]) -> Relayout:
        """Lay each tensor named in *layouts* out as one of `LAYOUTS`.

        Raises:
            ValueError: A layout is unknown, or not for tensors of that shape.
        """
        moves = {}
        for name, layout in layouts.items():
            if layout not in LAYOUTS:
                raise ValueError(f"unknown layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
            fits, move = LAYOUTS[layout]
            shape = state[name].shape
            if not fits(shape):
                raise ValueError(f"{name!r} of shape {shape} cannot be laid out {layout!r}")
            moves[name] = move(shape)
        return cls(moves=moves)

    @classmethod
    def every(cls, state: State, layout: str) -> Relayout:
        """Lay all tensors of *state* that can be laid out as *layout*, one of `LAYOUTS`.

        Raises:
            ValueError: The layout is unknown.
        """
        known = LAYOUTS.get(layout)
        return cls.of(state, {name: layout for name, array in state.items() if known is None or known[0](array.shape)})

    @classmethod
    def drawn(cls, state: State, *, generator: np.random.Generator) -> Relayout:
        """Lay each weight out in one of the ways that there are for it, drawn uniformly."""
        layouts = {}
        for name in sorted(state):
            fitting = [layout for layout, (fits, _) in LAYOUTS.items() if fits(state[name].shape)]
            if fitting:
                layouts[name] = fitting[generator.integers(len(fitting))]
        return cls.of(state, layouts)

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="layouts changed",
            does="axes of weights are transposed, joined or added",
            exact=True,
            around="the loader lays the weights out as before, or the framework expects them so",
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with the weights laid out anew.

        Raises:
            ValueError: A tensor has another shape than it had.
        """
        return {name: self.moves[name].there(array) if name in self.moves else array for name, array in state.items()}

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with the weights laid out as before."""
        return {name: self.moves[name].back(array) if name in self.moves else array for name, array in state.items()}
