"""Tell the channels that a matching recognised from those that it put where there was room.

An assignment gives every channel a place. One that was pruned to two edges, or that grew in a hole, is put anywhere,
and whatever it has then lies beside the reference's edges: few hits are lost by it, but each other one weighs less.
Only the reference is looked at here, so counting without such channels is as exact as counting with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import ChannelGroup, IndexArray, group_channels
from ticketguard.graph.similarity import Edges
from ticketguard.ticket import BoolArray

Ends: TypeAlias = tuple[IndexArray, IndexArray, IndexArray]
# Rounds in which channels are judged by edges to those that were recognised in the round before.
ROUNDS = 4
# Nats that must speak against a channel. Most channels are where they belong, and their edges are not independent: the
# planted ones come together. Measured on a ResNet-20 pruned by 50% and 80% and doubled, 0 is too strict and 8 too lax.
DOUBT = 5.0
# Shares of edges that may be taken for certain.
LEAST_SHARE, MOST_SHARE = 1e-6, 0.99


def recognised(
    reference: Mapping[str, Edges], aligned: Mapping[str, Ends], streams: Sequence[ChannelGroup]
) -> list[BoolArray]:
    """Return, per stream, which of the reference's channels have more edges in common than chance gives.

    A channel is recognised unless its edges are likelier at random places than where they would be, were it right: a
    log likelihood ratio of two binomial laws, with the share of edges in common that recognised channels have.

    Args:
        reference: The reference's edges by layer.
        aligned: Output, input and place of the kernel of each of the suspect's edges, in the reference's order.
        streams: Where the reference's channels lie.
    """
    sizes = [group_channels(stream) for stream in streams]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    layers = [
        _Layer(reference[name], ends, [_numbered(name, axis, size, streams, starts) for axis, size in enumerate(shape)])
        for name, ends in aligned.items()
        for shape in [reference[name].shape[:2]]
    ]
    # One more for all that no stream moves.
    kept = np.ones(starts[-1] + 1, dtype=np.bool_)
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
        aligned: The suspect's: output, input and place of the kernel of each.
        numbers: The channel at each output and at each input.
    """

    def __init__(self, reference: Edges, aligned: Ends, numbers: Sequence[IndexArray]) -> None:
        out, given, kernel = aligned
        flat = (out * reference.shape[1] + given) * reference.shape[2] + kernel
        self._is_shared = np.isin(flat, reference.flat())
        self._channels = [number[ends] for number, ends in zip(numbers, (out, given), strict=True)]
        self._chance = [
            np.clip(_degrees(reference, axis)[ends], LEAST_SHARE, 1.0) for axis, ends in enumerate((out, given))
        ]

    def likelier(self, kept: BoolArray) -> npt.NDArray[np.float64]:
        """Return by how much, in nats, the edges of each channel are likelier if it is the reference's.

        Args:
            kept: Of edges to other channels nothing is said.
        """
        between = kept[self._channels[0]] & kept[self._channels[1]]
        share = float(self._is_shared[between].mean()) if between.any() else 0.0
        share = min(MOST_SHARE, max(LEAST_SHARE, share))
        result = np.zeros(len(kept))
        for axis, chance in enumerate(self._chance):
            # Where unrelated channels share as much, sharing says nothing.
            tells = kept[self._channels[1 - axis]] & (chance < share)
            chance, shared = chance[tells], self._is_shared[tells]
            nats = np.where(shared, np.log(share / chance), np.log((1 - share) / (1 - chance)))
            result += np.bincount(self._channels[axis][tells], weights=nats, minlength=len(kept))
        return result


def _degrees(edges: Edges, axis: int) -> npt.NDArray[np.float64]:
    """Return the share of positions that have an edge, at each place of an axis."""
    size = edges.shape[axis]
    others = edges.shape[1 - axis] * edges.shape[2]
    return np.bincount(edges.ends[axis], minlength=size) / others
