"""Whole residual blocks removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ticketguard.graph.transformation import Array, Description, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockRemoval:
    """Residual blocks removed, so that their shortcut is all that is left of them.

    Attributes:
        blocks: Module names, such as ``layer2.1``.
        renumbered: Whether numbered blocks behind move up, as in a network that is built with fewer.
    """

    blocks: tuple[str, ...]
    renumbered: bool = True

    @classmethod
    def drawn(
        cls, blocks: Sequence[str], *, count: int = 1, generator: np.random.Generator, renumbered: bool = True
    ) -> BlockRemoval:
        """Draw *count* of *blocks*, whose shortcuts must be the identity."""
        chosen = generator.choice(len(blocks), count, replace=False)
        return cls(blocks=tuple(blocks[index] for index in sorted(chosen)), renumbered=renumbered)

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="blocks removed",
            does="residual blocks go, their shortcuts stay",
            exact=False,
            around="the model is built without these blocks",
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* without the blocks.

        Raises:
            ValueError: A block has no tensors.
        """
        fronts = tuple(f"{block}." for block in self.blocks)
        for front in fronts:
            if not any(name.startswith(front) for name in state):
                raise ValueError(f"there is no block {front[:-1]!r}")
        left = {name: array for name, array in state.items() if not name.startswith(fronts)}
        return {self._name_after(name): array for name, array in left.items()} if self.renumbered else left

    def _name_after(self, name: str) -> str:
        """Return the name of a tensor once the blocks before it in its list are gone."""
        for parent in {block.rpartition(".")[0] for block in self.blocks}:
            front = f"{parent}." if parent else ""
            number, dot, rest = name.removeprefix(front).partition(".")
            if name.startswith(front) and number.isdecimal() and dot:
                gone = [block.removeprefix(front) for block in self.blocks if block.rpartition(".")[0] == parent]
                before = sum(int(other) < int(number) for other in gone if other.isdecimal())
                return f"{front}{int(number) - before}.{rest}"
        return name
