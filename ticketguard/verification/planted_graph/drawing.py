"""What a key says of a layer: which of its counted positions are secret, and which signs edges were planted with."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ticketguard.embedding import planted_graph
from ticketguard.embedding.coins import draw_coins
from ticketguard.embedding.interface import Binding, Positions
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.ticket import BoolArray, Mask
from ticketguard.verification.memory import Memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecretOfLayer:
    """The secret positions that are counted in a layer.

    Attributes:
        positions: Flat, ascending.
        is_negative: For each the sign of its coin; None where the layer has no coins.
    """

    positions: Positions
    is_negative: BoolArray | None = None

    def without(self, decided: Positions | None) -> SecretOfLayer:
        """Return what is left where other marks *decided* positions; None for none."""
        if decided is None:
            return self
        left = ~np.isin(self.positions, decided, assume_unique=True)
        signs = None if self.is_negative is None else self.is_negative[left]
        return SecretOfLayer(positions=self.positions[left], is_negative=signs)


def secret_of_layer(
    reference: Mask, name: str, binding: Binding, parameters: PlantedParameters, memory: Memory | None = None
) -> SecretOfLayer:
    """Return what a key says of a layer of the *reference*.

    Args:
        reference: The unmarked ticket's edges, or some layers of them.
        name: The layer.
        binding: The key, whose commitment binds the reference.
        parameters: Say how large the secret set is, and whether it has coins.
        memory: Keeps it for the next time.
    """
    is_full = reference.count(name) == math.prod(reference.shape(name))
    has_coins = parameters.is_signed and not is_full

    def drawn() -> npt.NDArray[np.int64]:
        """Return positions, doubled and with the coin in the lowest bit where there are coins."""
        shape = reference.shape(name)
        secret = planted_graph.secret_edges(binding, {name: shape}, secret_ppm=parameters.secret_ppm)[name]
        counted = np.ones(len(secret), dtype=np.bool_) if is_full else ~reference.at(name, secret)
        if not has_coins:
            return secret[counted]
        return (2 * secret + draw_coins(binding, name, secret))[counted]

    found = drawn() if memory is None else memory.get((binding, name), drawn)
    if not has_coins:
        return SecretOfLayer(positions=found)
    return SecretOfLayer(positions=found >> 1, is_negative=(found & 1).astype(np.bool_))
