"""How likely each channel is each of the suspect's, given where channels of other streams lie, or may lie."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.by_signs.coded import Kinds, Signs
from ticketguard.graph.by_signs.tables import Table
from ticketguard.graph.groups import GroupMember, IndexArray
from ticketguard.graph.matching import CELLS_A_POSITION, FREE_CELLS, STEPS_A_MEMBER, Budget
from ticketguard.graph.streams import Stream

Matrix: TypeAlias = npt.NDArray[np.float32]
Nats: TypeAlias = npt.NDArray[np.float64]
# Where a stream's channels lie: the suspect's channel for each (-1 for none), or how likely each is each; None while
# nothing is known.
Place: TypeAlias = IndexArray | Matrix | None
# Multiplications of matrices that take as long as a step.
PRODUCTS_A_STEP = 32
# What looking at a stream on an axis costs, of its own.
STEPS_A_PART = STEPS_A_MEMBER // 100
# Networks of so many positions are laid out once, at 20 bytes each; of larger ones a layer at a time.
MOST_KEPT = 2_000_000
# Signs of the suspect's outputs by layer: 1 or -1, or between where they are not known; 1 where a layer is left out.
Flips: TypeAlias = Mapping[str, Matrix]
# What is said of edges, and what of signs.
EDGES, SIGNS = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Where a stream's channels lie on an axis.

    Attributes:
        here: Positions in the start, shape (channels, block).
        there: In the suspect, shape (suspect's channels, block).
        is_whole: Whether they are all positions of the suspect's axis, in order.
    """

    here: IndexArray
    there: IndexArray
    is_whole: bool

    @classmethod
    def of(cls, member: GroupMember, other: GroupMember, found: int) -> Part:
        """Return it; *found* is the size of the suspect's axis."""
        there = other.positions()
        is_whole = there.size == found and bool((there.reshape(-1) == np.arange(found)).all())
        return cls(here=member.positions(), there=there, is_whole=is_whole)


class Scoring:
    """One way to see a suspect: its layers and its streams.

    Args:
        kinds: The start's layers.
        suspect: The suspect's.
        streams: What is matched.
        budget: Work that may be done.
    """

    def __init__(
        self, kinds: Mapping[str, Kinds], suspect: Mapping[str, Signs], streams: Sequence[Stream], budget: Budget
    ) -> None:
        self.kinds, self.suspect, self.streams, self.budget = kinds, suspect, tuple(streams), budget
        self.is_left_out = [self._is_too_large(stream) for stream in self.streams]
        self.is_small = sum(layer.size for layer in (*kinds.values(), *suspect.values())) <= 2 * MOST_KEPT
        self._laid_out: dict[GroupMember, Matrix] = {}
        self._looked_up: dict[GroupMember, tuple[Table, Matrix]] = {}
        self._touching: dict[tuple[str, int], list[tuple[int, Part]]] = {}
        self._parts: list[list[Part]] = []
        for index, stream in enumerate(self.streams):
            self._parts.append([])
            for member, other in stream.pairs:
                part = Part.of(member, other, self.suspect[member.tensor].shape[member.axis])
                self._parts[-1].append(part)
                self._touching.setdefault((member.tensor, member.axis), []).append((index, part))

    def _is_too_large(self, stream: Stream) -> bool:
        names = {member.tensor for member in stream.reference}
        positions = sum(self.suspect[name].size + self.kinds[name].size for name in names)
        too_large = stream.channels * stream.suspect_channels > FREE_CELLS + CELLS_A_POSITION * positions // 2
        if too_large:
            self.budget.kept = False
        return too_large

    def known_beside(self, index: int, places: Sequence[Place]) -> float:
        """Return the share of positions beside a stream's channels of which it is known where they lie."""
        known = total = 0.0
        for member in self.streams[index].reference:
            axis, kinds = 1 - member.axis, self.kinds[member.tensor]
            touching = self._touching.get((member.tensor, axis), ())
            self.budget.spend(STEPS_A_PART * (1 + len(touching)))
            unknown = sum(part.here.size for other, part in touching if places[other] is None)
            total += kinds.size
            known += kinds.size * (1 - unknown / kinds.shape[axis])
        return known / total

    def unknown_flips(self) -> dict[str, Matrix]:
        """Return that of outputs that lie in a stream it is not known which way they point."""
        flips: dict[str, Matrix] = {}
        for (name, axis), touching in self._touching.items():
            if axis == 0:
                flips[name] = np.ones(self.suspect[name].shape[0], dtype=np.float32)
                for _, part in touching:
                    flips[name][part.there] = 0
        return flips

    def planes(self, name: str, flips: Flips) -> Matrix:
        """Return where a suspect's layer has edges, and their signs with its flips undone; (out, in, places, 2)."""
        layer = self.suspect[name]
        planes = np.empty((*layer.shape, 2), dtype=np.float32)
        planes[..., EDGES] = layer != 0
        planes[..., SIGNS] = layer
        if name in flips:
            planes[..., SIGNS] *= flips[name][:, None, None]
        return planes

    def moved(self, layer: Matrix, name: str, axis: int, places: Sequence[Place]) -> Matrix:
        """Return a layer of the suspect's, whose first axis is *axis*, in the start's order along it; 0 for unknown."""
        size, found = self.kinds[name].shape[axis], len(layer)
        touching = self._touching.get((name, axis), ())
        if not touching and size == found:
            return layer
        along = np.arange(size, dtype=np.int64)
        along[found:] = -1
        unsure: list[tuple[Part, Matrix]] = []
        for index, part in touching:
            place = places[index]
            along[part.here] = -1
            if place is None:
                continue
            if place.ndim == 1:
                along[part.here] = np.where((place >= 0)[:, None], part.there[np.maximum(place, 0)], -1)
            else:
                unsure.append((part, np.asarray(place, dtype=np.float32)))
        if len(unsure) == 1 and unsure[0][0].is_whole and unsure[0][0].here.size == size:
            return _shared(layer, *unsure[0]).reshape(size, *layer.shape[1:])
        result = layer[along]
        result[along < 0] = 0
        for part, shares in unsure:
            result[part.here.reshape(-1)] = _shared(layer, part, shares).reshape(part.here.size, *layer.shape[1:])
        return result

    def aligned(self, name: str, places: Sequence[Place], flips: Flips) -> Matrix:
        """Return where a suspect's layer has edges in the start's order, and their signs; (out, in, places, 2)."""
        moved = self.moved(self.planes(name, flips), name, 0, places)
        return np.swapaxes(self.moved(np.swapaxes(moved, 0, 1), name, 1, places), 0, 1)

    def nats(
        self, index: int, places: Sequence[Place], tables: Mapping[str, Table], flips: Flips, *, may_flip: bool = False
    ) -> tuple[Nats, list[tuple[str, IndexArray, Matrix]]]:
        """Return by how much each pair of channels of a stream is likelier each other's than not.

        Returns:
            Nats, shape (channels, suspect's channels), and, if outputs may be flipped, what was left out of them: what
            signs say of outputs, layer by layer: its name, the suspect's positions, and nats for the sign 1.
        """
        stream = self.streams[index]
        nats = np.zeros((stream.channels, stream.suspect_channels))
        signs: list[tuple[str, IndexArray, Matrix]] = []
        for member, part in zip(stream.reference, self._parts[index], strict=True):
            name, axis = member.tensor, member.axis
            self.budget.spend(self._steps(name, axis, stream))
            found = self.moved(self._layer(member, part, flips if axis else {}), name, 1 - axis, places)
            said = self._said(member, part, tables[name])
            if may_flip and axis == 0:
                shape = (2, -1, stream.suspect_channels)
                by_plane = np.moveaxis(found, 1, 0).reshape(shape)
                ours = np.moveaxis(said, 2, 0).reshape(2, stream.channels, -1)
                nats += ours[EDGES] @ by_plane[EDGES]
                signs.append((name, part.there.reshape(-1), ours[SIGNS] @ by_plane[SIGNS]))
            else:
                nats += said.reshape(stream.channels, -1) @ found.reshape(-1, stream.suspect_channels)
        return nats, signs

    def _layer(self, member: GroupMember, part: Part, flips: Flips) -> Matrix:
        """Return the suspect's layer at a member's channels; (other axis, 2, block and places, suspect's channels)."""
        if member in self._laid_out:
            layer = self._laid_out[member]
        else:
            planes = np.moveaxis(self.planes(member.tensor, {}), member.axis, 0)[part.there]
            layer = np.transpose(planes, (2, 4, 1, 3, 0)).reshape(planes.shape[2], 2, -1, len(part.there))
            layer = np.ascontiguousarray(layer)
            if self.is_small:
                self._laid_out[member] = layer
        if member.tensor in flips:
            layer = layer.copy()
            layer[:, SIGNS] *= flips[member.tensor][:, None, None]
        return layer

    def _said(self, member: GroupMember, part: Part, table: Table) -> Matrix:
        """Return what edges and signs say at a member's channels; (channels, other axis, 2, block and places)."""
        held = self._looked_up.get(member)
        if held is not None and held[0] is table:
            return held[1]
        kinds = np.moveaxis(self.kinds[member.tensor], member.axis, 0)[part.here]
        kinds = np.swapaxes(kinds, 1, 2).reshape(len(kinds), kinds.shape[2], -1)
        said = np.stack([table.edges[kinds], table.signs[kinds]], axis=2)
        if self.is_small:
            self._looked_up[member] = (table, said)
        return said

    def _steps(self, name: str, axis: int, stream: Stream) -> int:
        ours, theirs = self.kinds[name].shape, self.suspect[name].shape
        moving = math.prod(theirs) * ours[1 - axis]
        products = 2 * (math.prod(ours) * stream.suspect_channels + moving)
        across = ours[1 - axis] * ours[2]
        own = STEPS_A_MEMBER // 10 + STEPS_A_PART * len(self._touching.get((name, 1 - axis), ()))
        return own + int(products // PRODUCTS_A_STEP + 2 * (math.prod(ours) + across * theirs[axis]))


def _shared(layer: Matrix, part: Part, shares: Matrix) -> Matrix:
    """Return channels that may be several of the suspect's, as the means of these."""
    ahead = layer if part.is_whole else layer[part.there.reshape(-1)]
    return shares @ ahead.reshape(len(part.there), -1)
