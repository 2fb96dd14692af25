"""A layer of start weights beside a suspect's, a byte a position each."""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import CHANNEL_AXES, GroupMember, IndexArray
from ticketguard.graph.likeness import HELD_OUT
from ticketguard.graph.similarity import Edges
from ticketguard.graph.turns import KernelTurn
from ticketguard.ticket import BoolArray
from ticketguard.ticket.start_reference import SIGN, SIZES, StartReference

Kinds = npt.NDArray[np.uint8]
Signs = npt.NDArray[np.int8]
# Of the start: votes of each size, positive anchors of each, and negative ones; and what is held out.
VOTE, POSITIVE, NEGATIVE, UNSEEN, KINDS = 0, SIZES, 2 * SIZES, 3 * SIZES, 3 * SIZES + 1
# What a byte that is drawn for a position is below where it is held out.
HELD_BELOW = round(256 * HELD_OUT)
# Sizes from here on are large: half of a start's.
LARGE = SIZES // 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StartSigns:
    """A layer of the start as a matching sees it, and the positions that are held out of it.

    Attributes:
        kinds: Size, and whether it is a vote, a positive or a negative anchor; or that it is held out; shape
            (out, in, places).
        held_out: Flat positions of which no matching sees sign or size.
        held_kinds: Their kinds.
    """

    kinds: Kinds
    held_out: IndexArray
    held_kinds: Kinds

    @classmethod
    def of(cls, reference: StartReference, name: str) -> StartSigns:
        """Return a layer of a start, a fifth of it held out: the same positions, whatever layers are compared."""
        layer = reference.layers[name]
        codes = layer.unpacked()
        kinds = codes % np.uint8(SIZES)
        kinds += np.where(codes >= SIGN, np.uint8(NEGATIVE), np.uint8(POSITIVE)) * reference.anchors(name)
        drawn = np.random.default_rng(zlib.crc32(name.encode())).integers(256, size=len(kinds), dtype=np.uint8)
        held_out = np.flatnonzero(drawn < HELD_BELOW)
        held_kinds = kinds[held_out]
        kinds[held_out] = UNSEEN
        return cls(kinds=kinds.reshape(in_three(layer.shape)), held_out=held_out, held_kinds=held_kinds)

    @functools.cached_property
    def anchors(self) -> tuple[IndexArray, Signs]:
        """The flat positions of the anchors that are held out, and their signs."""
        anchors = self.held_kinds >= POSITIVE
        return self.held_out[anchors], np.where(self.held_kinds[anchors] >= NEGATIVE, -1, 1).astype(np.int8)

    @functools.cached_property
    def is_large(self) -> BoolArray:
        """Of the positions that are held out, which ones have a start that is among the larger half."""
        return np.asarray(self.held_kinds % SIZES >= LARGE)

    def whole(self) -> Kinds:
        """Return the kinds with those that were held out."""
        kinds = self.kinds.copy().reshape(-1)
        kinds[self.held_out] = self.held_kinds
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
