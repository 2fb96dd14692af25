"""A layer of start weights beside a suspect's, a byte a position each."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import CHANNEL_AXES, GroupMember, IndexArray
from ticketguard.graph.likeness import HELD_OUT
from ticketguard.graph.similarity import Edges
from ticketguard.graph.turns import KernelTurn
from ticketguard.ticket.start_reference import SIGN, SIZES, StartReference

Kinds = npt.NDArray[np.uint8]
Signs = npt.NDArray[np.int8]
# Of the start: votes of each size, positive anchors of each, and negative ones.
VOTE, POSITIVE, NEGATIVE, KINDS = 0, SIZES, 2 * SIZES, 3 * SIZES


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StartSigns:
    """A layer of the start as a matching sees it, and the anchors that are held out of it.

    Attributes:
        kinds: Size, and whether it is a vote (or held out), a positive or a negative anchor; (out, in, places).
        held_out: Flat positions of anchors that no matching sees.
        signs: Their signs, 1 or -1.
    """

    kinds: Kinds
    held_out: IndexArray
    signs: npt.NDArray[np.int8]

    @classmethod
    def of(cls, reference: StartReference, name: str) -> StartSigns:
        """Return a layer of a start, a fifth of its anchors held out: the same ones, whatever layers are compared."""
        layer = reference.layers[name]
        codes = layer.unpacked()
        anchors = np.flatnonzero(reference.anchors(name))
        is_held = np.random.default_rng(zlib.crc32(name.encode())).random(len(anchors)) < HELD_OUT
        is_negative = codes >= SIGN
        kinds = codes % np.uint8(SIZES)
        seen, held_out = anchors[~is_held], anchors[is_held]
        kinds[seen] += np.where(is_negative[seen], NEGATIVE, POSITIVE).astype(np.uint8)
        return cls(
            kinds=kinds.reshape(in_three(layer.shape)),
            held_out=held_out,
            signs=np.where(is_negative[held_out], -1, 1).astype(np.int8),
        )

    def whole(self) -> Kinds:
        """Return the kinds with the anchors that were held out."""
        kinds = self.kinds.copy().reshape(-1)
        kinds[self.held_out] += np.where(self.signs > 0, POSITIVE, NEGATIVE).astype(np.uint8)
        return kinds.reshape(self.kinds.shape)


def in_three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a layer's outputs, inputs and places of the kernel."""
    return (shape[0], shape[1] if len(shape) > 1 else 1, math.prod(shape[CHANNEL_AXES:]))


def signs_of(edges: Edges) -> Signs:
    """Return a suspect's edges as a full layer: their signs, 0 where there is none; (out, in, places).

    What they weigh says no more of which channels they join: signs of its large weights are kept rather than others,
    but the start's sizes say that better.
    """
    layer = np.zeros(math.prod(edges.shape), dtype=np.int8)
    layer[edges.flat()] = np.where(edges.values < 0, -1, 1)
    return layer.reshape(edges.shape)


def turned(
    layers: Mapping[str, Signs],
    turn: KernelTurn,
    kernels: Mapping[str, tuple[int, ...]],
    blocks: list[GroupMember],
) -> dict[str, Signs]:
    """Return a suspect's layers with kernels, and the places of flattened maps, turned.

    Args:
        layers: By name.
        turn: How.
        kernels: Shapes of their kernels.
        blocks: Where flattened maps lie in the suspect's layers.
    """
    result = dict(layers)
    for name, kernel in kernels.items():
        if kernel and turn.fits(kernel):
            result[name] = result[name][:, :, turn.came_from(kernel)]
    for member in blocks:
        layer, positions = result[member.tensor], member.positions()
        order = np.arange(layer.shape[member.axis])
        order[positions] = positions[:, turn.block_came_from(member.block)]
        result[member.tensor] = np.take(layer, order, axis=member.axis)
    return result
