"""Tensors under other names, and files with a second network in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

from ticketguard.graph.transformation import Array, Description, State

Style: TypeAlias = Literal["shuffled", "numbered"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Renaming:
    """Every tensor under another name, in another order of the file.

    Attributes:
        names: New name by old name, no two alike; in the new order.
    """

    names: Mapping[str, str]

    @classmethod
    def drawn(cls, state: State, *, generator: np.random.Generator, style: Style = "shuffled") -> Renaming:
        """Draw the new names.

        Args:
            state: The network's tensors.
            generator: Source of the names and of their order.
            style: ``shuffled`` deals the old names out to other tensors, ``numbered`` gives names that say nothing.
        """
        old = list(state)
        order = [old[index] for index in generator.permutation(len(old))]
        dealt = [old[index] for index in generator.permutation(len(old))]
        new = dealt if style == "shuffled" else [f"tensor_{number:05d}" for number in range(len(old))]
        return cls(names=dict(zip(order, new, strict=True)))

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="names shuffled",
            does="every tensor gets another name",
            exact=True,
            around="the loader gives each tensor its name back",
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* under the new names."""
        return {new: state[old] for old, new in self.names.items() if old in state}

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* under the old names."""
        return {old: state[new] for old, new in self.names.items() if new in state}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Companion:
    """A second network in the same file: a teacher, a moving average, the other encoder.

    Attributes:
        prefix: What is put in front of the network's own names.
        other_prefix: What is put in front of the other's.
        other: The other network's tensors.
    """

    prefix: str
    other_prefix: str
    other: State

    def __post_init__(self) -> None:
        """Check that the two can be told apart.

        Raises:
            ValueError: One prefix begins with the other.
        """
        if self.prefix.startswith(self.other_prefix) or self.other_prefix.startswith(self.prefix):
            raise ValueError(f"prefixes {self.prefix!r} and {self.other_prefix!r} cannot be told apart")

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="second network beside",
            does="another network's tensors lie in the same file",
            exact=True,
            around="the loader takes the tensors under one prefix",
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return both networks' tensors, sorted by name as files have them."""
        both = {f"{self.prefix}{name}": array for name, array in state.items()}
        both |= {f"{self.other_prefix}{name}": array for name, array in self.other.items()}
        return dict(sorted(both.items()))

    def undo(self, state: State) -> dict[str, Array]:
        """Return the network's own tensors."""
        return {name.removeprefix(self.prefix): array for name, array in state.items() if name.startswith(self.prefix)}
