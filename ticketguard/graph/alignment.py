"""Undo a thief's reordering of hidden channels: match a suspect's channels to the unmarked reference's.

The reference is all the matching sees. The owner's secret edges are a fresh draw given the reference, so they
are independent of the alignment and the p-value of an aligned suspect is as exact as that of an unaligned one.

Channels are matched group by group by linear assignment, the other groups held fixed, until nothing changes
(weight matching, Ainsworth et al. 2023, "Git Re-Basin", algorithm 1). What is compared is where a layer's
strongest weights lie, and with what sign and size relative to their row and column: both survive training,
pruning, regrowth, and positive rescaling of channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ticketguard.errors import TensorError, UnverifiableError
from ticketguard.graph.groups import (
    CHANNEL_AXES,
    ChannelGroup,
    GroupMember,
    IndexArray,
    group_channels,
    place_channels,
)
from ticketguard.graph.similarity import Edges, member_similarity, strongest_edges
from ticketguard.ticket import FloatArray, Reference

# A pass over all groups costs one assignment each; matching converges in 3 to 8 passes, or is lost.
PASSES = 30
# An overlap that no wrong matching reaches on a sparse ticket; a first start that gets there is the last one tried.
CLEAR_OVERLAP = 0.4
# Share of a suspect's weights that is compared with a full layer of the reference.
FULL_SHARE = 0.25
# Breaks ties in favour of what is: channels without edges stay where they are.
STAY_BONUS = 1e-6
# Groups are somebody else's file, and an assignment of n channels takes up to n^3 steps (of 2 to 5 ns) and n^2 numbers:
# what a network of this size has, several times over, and no more. Of its own, each part of a group costs as much as
# this many steps.
FREE_STEPS, STEPS_A_POSITION, STEPS_A_MEMBER = 2 * 10**9, 4096, 300_000
FREE_CELLS, CELLS_A_POSITION = 2**23, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a suspect's channels map to the reference's.

    Attributes:
        groups: The channel groups.
        permutations: Per group; channel c of the reference is the suspect's channel ``permutations[g][c]``.
        overlap: Share of the reference's edges that the aligned suspect has among its strongest, in [0, 1].
        complete: Whether matching ended by itself, with every group in it: groups that ask for far more work or memory
            than layers of this size are worth are left as they are.
    """

    groups: tuple[ChannelGroup, ...]
    permutations: tuple[IndexArray, ...]
    overlap: float
    complete: bool = True

    @property
    def moved(self) -> int:
        """Number of channels that were found out of place."""
        return sum(int((order != np.arange(len(order))).sum()) for order in self.permutations)

    def apply(self, name: str, layer: FloatArray) -> FloatArray:
        """Return one suspect layer in the reference's order of channels."""
        for axis in range(min(layer.ndim, CHANNEL_AXES)):
            order = np.arange(layer.shape[axis], dtype=np.int64)
            for group, permutation in zip(self.groups, self.permutations, strict=True):
                for member in group:
                    if (member.tensor, member.axis) == (name, axis):
                        place_channels(order, member, permutation)
            if not np.array_equal(order, np.arange(len(order))):
                layer = np.take(layer, order, axis=axis)
        return layer


def align(suspect: Mapping[str, FloatArray], reference: Reference, groups: Sequence[ChannelGroup]) -> Alignment:
    """Match a suspect's hidden channels to the reference's.

    The suspect may be sparse, pruned further, fine-tuned, regrown or dense: of each layer only as many of its
    strongest weights as the reference keeps are compared.

    Args:
        suspect: Weights under the reference's layer names, shape (out, in, *kernel); layers may be missing. Each is
            looked up once, so a lazy mapping keeps memory low.
        reference: The unmarked ticket.
        groups: Channel groups of the reference's model; members that are not masked layers are ignored.

    Raises:
        UnverifiableError: The suspect has none of the reference's layers.
        TensorError: A layer has another shape than the reference's.
    """
    names = [name for name in reference.mask if name in suspect]
    if not names:
        raise UnverifiableError(
            "the suspect has none of the reference's layers: check that it is the same architecture"
        )
    pairs: dict[str, tuple[Edges, Edges]] = {}
    for name in names:
        layer = suspect[name]
        if layer.shape != reference.mask[name].shape:
            raise TensorError(
                name=name,
                reason=f"has shape {layer.shape}, expected {reference.mask[name].shape}",
                hint="check that the suspect has the reference's architecture",
            )
        kept = reference.mask[name]
        # Which edges a full layer has says nothing, but what they weigh: the suspect's strongest are compared with it.
        count = max(1, round(FULL_SHARE * kept.size)) if kept.all() else int(kept.sum())
        pairs[name] = (strongest_edges(reference.layer_weights(name), count, kept), strongest_edges(layer, count))
    matching = _Matching(pairs, groups)
    best: tuple[float, list[IndexArray]] | None = None
    stored = matching.identity()
    starts: list[Sequence[IndexArray | None]] = [stored, matching.unknown()]
    if matching.overlap(stored) < CLEAR_OVERLAP:
        starts.reverse()
    for start in starts:
        found = matching.converge(start)
        overlap = matching.overlap(found)
        if best is None or overlap > best[0]:
            best = overlap, found
        if overlap >= CLEAR_OVERLAP:
            break
    assert best is not None
    return Alignment(groups=tuple(groups), permutations=tuple(best[1]), overlap=best[0], complete=matching.complete)


class _Matching:
    def __init__(self, pairs: Mapping[str, tuple[Edges, Edges]], groups: Sequence[ChannelGroup]) -> None:
        self._pairs = pairs
        self._groups = groups
        # A channel alone has nowhere to go.
        self._members = [
            [
                member
                for member in group
                if member.tensor in pairs and member.axis < CHANNEL_AXES and member.channels > 1
            ]
            for group in groups
        ]
        self._touching: dict[tuple[str, int], list[tuple[int, GroupMember]]] = {}
        for index, members in enumerate(self._members):
            for member in members:
                self._touching.setdefault((member.tensor, member.axis), []).append((index, member))
        sizes = {name: math.prod(suspect.shape) for name, (_, suspect) in pairs.items()}
        self.complete = True
        self._steps_left = FREE_STEPS + STEPS_A_POSITION * sum(sizes.values())
        for members in self._members:
            positions = sum(sizes[name] for name in {member.tensor for member in members})
            if members and members[0].channels ** 2 > FREE_CELLS + CELLS_A_POSITION * positions:
                members.clear()
                self.complete = False

    def _spend(self, steps: int) -> bool:
        """Say whether so many steps are left; once they are not, matching ends with what it has."""
        self._steps_left -= steps
        self.complete = self.complete and self._steps_left >= 0
        return self._steps_left >= 0

    def identity(self) -> list[IndexArray]:
        return [np.arange(group_channels(group), dtype=np.int64) for group in self._groups]

    def unknown(self) -> list[IndexArray | None]:
        return [
            None if members else np.arange(group_channels(group), dtype=np.int64)
            for group, members in zip(self._groups, self._members, strict=True)
        ]

    def converge(self, start: Sequence[IndexArray | None]) -> list[IndexArray]:
        current = list(start)
        stored = self.identity()
        while self._steps_left >= 0 and any(order is None for order in current):
            index = max(
                (i for i, order in enumerate(current) if order is None), key=lambda i: self._anchored(i, current)
            )
            current[index] = self._match(index, current)
        for sweep in range(PASSES):
            changed = False
            order = range(len(self._groups))
            for index in order if sweep % 2 else reversed(order):
                if not self._members[index] or self._steps_left < 0:
                    continue
                found = self._match(index, current)
                before = current[index]
                changed = changed or before is None or not np.array_equal(found, before)
                current[index] = found
            if not changed:
                break
        return [there if order is None else order for order, there in zip(current, stored, strict=True)]

    def _anchored(self, index: int, current: Sequence[IndexArray | None]) -> float:
        """Return the share of a group's edges whose other end is known already."""
        known = total = 0
        for member in self._members[index]:
            edges = self._pairs[member.tensor][0]
            self._spend(STEPS_A_MEMBER // 10 + 3 * (len(edges.values) + sum(edges.shape[:2])))
            places = self.places(member.tensor, 1 - member.axis, current)[edges.ends[1 - member.axis]]
            known += int((places >= 0).sum())
            total += len(places)
        return known / max(1, total)

    def places(self, name: str, axis: int, current: Sequence[IndexArray | None]) -> IndexArray:
        """Return where each of the suspect's positions on an axis goes in the reference; -1 where unknown."""
        size = self._pairs[name][0].shape[axis]
        order = np.arange(size, dtype=np.int64)
        unknown = np.zeros(size, dtype=np.bool_)
        for index, member in self._touching.get((name, axis), ()):
            permutation = current[index]
            if permutation is None:
                unknown[member.positions()] = True
            else:
                place_channels(order, member, permutation)
        places = np.empty(size, dtype=np.int64)
        places[order] = np.arange(size, dtype=np.int64)
        places[unknown] = -1
        return places

    def _match(self, index: int, current: Sequence[IndexArray | None]) -> IndexArray:
        from scipy.optimize import linear_sum_assignment  # slow to import, needed only for permuted suspects

        held, channels = current[index], group_channels(self._groups[index])
        similarity = np.zeros((channels, channels), dtype=np.float64)
        for member in self._members[index]:
            reference, suspect = self._pairs[member.tensor]
            edges = len(reference.values) + len(suspect.values)
            self._spend(STEPS_A_MEMBER + 10 * (edges + sum(reference.shape[:2])))
            places = self.places(member.tensor, 1 - member.axis, current)
            similarity += member_similarity(reference, suspect, member, places)
        # A channel whose first choice nobody else wants is placed in one pass over the others; what is contested takes
        # a search.
        wanted = np.count_nonzero(np.bincount(similarity.argmax(axis=1), minlength=channels))
        if not self._spend(channels**2 * (1 + channels - int(wanted))):
            return np.arange(channels, dtype=np.int64) if held is None else held
        if held is not None:
            similarity[np.arange(channels), held] += STAY_BONUS
        return np.asarray(linear_sum_assignment(similarity, maximize=True)[1], dtype=np.int64)

    def overlap(self, found: Sequence[IndexArray | None]) -> float:
        """Return the share of reference edges that are among the aligned suspect's strongest."""
        shared = total = 0
        for name, (reference, suspect) in self._pairs.items():
            ends = [self.places(name, axis, found)[suspect.ends[axis]] for axis in (0, 1)]
            shared += int(np.isin(reference.flat(), suspect.flat(ends)).sum())
            total += len(reference.values)
        return shared / max(1, total)
