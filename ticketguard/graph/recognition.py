"""Tell the channels that a matching recognised from those that it put where there was room.

An assignment gives every channel a place. One that was pruned to two edges, or that grew in a hole, is put anywhere,
and whatever it has then lies beside the reference's edges: few hits are lost by it, but each other one weighs less.
Only the reference is looked at here, so counting without such channels is as exact as counting with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import ChannelGroup, IndexArray, group_channels
from ticketguard.graph.shared_edges import odds_ratio, shared_edges, shared_nats
from ticketguard.graph.similarity import Edges
from ticketguard.ticket import BoolArray

# Rounds in which channels are judged by edges to those that were recognised in the round before.
ROUNDS = 4
# Nats that must speak against a channel: most are where they belong, and their edges are not independent. Measured on a
# ResNet-20, pruned by half to nine tenths, 3 to 5 leave the most.
DOUBT = 4.0
# Where less of the suspect's edges are the reference's, those beside it are the thief's, most of them: leaving out
# channels costs more hits than it saves noise.
MOSTLY = 0.6


def recognised(
    reference: Mapping[str, Edges], aligned: Mapping[str, Edges], streams: Sequence[ChannelGroup]
) -> list[BoolArray]:
    """Return, per stream, which of the reference's channels have more edges in common than chance gives.

    A channel is recognised unless what it shares is likelier of another channel than of the reference's own.

    Args:
        reference: The reference's edges by layer.
        aligned: The suspect's, where they lie in the reference's layers.
        streams: Where the reference's channels lie.
    """
    sizes = [group_channels(stream) for stream in streams]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    layers = [
        _Layer(
            reference[name],
            edges,
            [_numbered(name, axis, size, streams, starts) for axis, size in enumerate(edges.shape[:2])],
        )
        for name, edges in aligned.items()
    ]
    # One more for all that no stream moves.
    kept = np.ones(starts[-1] + 1, dtype=np.bool_)
    if sum(layer.shared for layer in layers) < MOSTLY * sum(layer.edges for layer in layers):
        return [kept[:size] for size in sizes]
    for _ in range(ROUNDS):
        likelier = np.sum([layer.likelier(kept) for layer in layers], axis=0)
        likelier[-1] = 0
        if np.array_equal(kept, likelier >= -DOUBT):
            break
        kept = likelier >= -DOUBT
    return [kept[start : start + size] for start, size in zip(starts[:-1], sizes, strict=True)]


def _numbered(name: str, axis: int, size: int, streams: Sequence[ChannelGroup], starts: IndexArray) -> IndexArray:
    """Return the number of the channel at each position of an axis, the last number where it is in no stream."""
    numbers = np.full(size, starts[-1], dtype=np.int64)
    for stream, start in zip(streams, starts[:-1], strict=True):
        for member in stream:
            if (member.tensor, member.axis) == (name, axis):
                numbers[member.positions()] = start + np.arange(member.channels)[:, None]
    return numbers


class _Layer:
    """A layer's aligned edges.

    Args:
        reference: The reference's edges.
        aligned: The suspect's.
        numbers: The channel at each output and at each input.
    """

    def __init__(self, reference: Edges, aligned: Edges, numbers: Sequence[IndexArray]) -> None:
        self._is_shared, there = shared_edges(reference, aligned)
        self.edges, self.shared = len(aligned.values), len(there)
        self._numbers = numbers
        self._kernel = reference.shape[2]
        self._suspect = _channels(numbers, aligned.ends)
        self._reference = _channels(numbers, reference.ends)

    def likelier(self, kept: BoolArray) -> npt.NDArray[np.float64]:
        """Return by how much, in nats, what each channel shares is likelier if it is the reference's.

        The odds ratio is that of all that is recognised if the channel is the reference's, and 1 if it is another.

        Args:
            kept: Of edges to other channels nothing is said.
        """
        result = np.zeros(len(kept))
        shared, suspect, reference, positions = self._counts(kept, 0)
        odds = odds_ratio(*(float(count[kept].sum()) for count in (shared, suspect, reference, positions)))
        if odds <= 1.0:
            return result
        for axis in (0, 1):
            shared, suspect, reference, positions = self._counts(kept, axis)
            result += shared_nats(shared, suspect, reference, np.maximum(positions, 1.0), odds)
        return result

    def _counts(self, kept: BoolArray, axis: int) -> tuple[npt.NDArray[np.float64], ...]:
        """Return, per channel, edges of both, of the suspect, of the reference, and positions, to channels kept."""
        own, other = self._suspect[axis], kept[self._suspect[1 - axis]]
        there, beside = self._reference[axis], kept[self._reference[1 - axis]]
        reach = float(kept[self._numbers[1 - axis]].sum()) * self._kernel
        size = len(kept)
        return (
            np.bincount(own[other & self._is_shared], minlength=size).astype(np.float64),
            np.bincount(own[other], minlength=size).astype(np.float64),
            np.bincount(there[beside], minlength=size).astype(np.float64),
            (np.bincount(self._numbers[axis], minlength=size) * reach).astype(np.float64),
        )


def _channels(numbers: Sequence[IndexArray], ends: Sequence[npt.NDArray[np.integer[Any]]]) -> list[IndexArray]:
    return [number[end] for number, end in zip(numbers, ends, strict=True)]
