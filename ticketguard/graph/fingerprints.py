"""A first guess of who is who, where no order is known to start from: what surrounds a channel, in any order.

A channel's fingerprint is how many strong weights it has in each layer and at each place of the kernel, and what they
sum to; then, in a few rounds, the fingerprints of the channels at their other ends, mixed at random (colour refinement,
Weisfeiler and Leman 1968, with real numbers for colours). Channels that are known already bring a random code of their
own, the same in both networks. Nothing of it depends on an order; thinning out or adding channels shifts all alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import ChannelGroup, GroupMember, IndexArray
from ticketguard.graph.similarity import Edges, channels_of

Features: TypeAlias = npt.NDArray[np.float64]

ROUNDS = 3
# Numbers that a fingerprint has after each round, and of which a known channel's code consists.
WIDTH = 32
# More kinds of places than this are not told apart.
MOST_KINDS = 32
# Links are laid out as a full matrix up to this size, or where this many pairs of channels come to an edge.
FULL_LINKS, FULL_LINKS_AN_EDGE = 2**18, 8


def fingerprints(
    edges: Mapping[str, Edges],
    streams: Sequence[ChannelGroup],
    known: Sequence[IndexArray | None],
    orbits: Callable[[int], IndexArray],
) -> list[Features]:
    """Return the fingerprints of every stream's channels.

    Args:
        edges: A network's strongest weights by layer.
        streams: Where its channels lie.
        known: Per stream the number of each channel in an order that both networks share, -1 for those that have none;
            None where the order is unknown.
        orbits: Numbers the places of a kernel, or of a flattened map, so that those which turns bring to each other
            have one number.

    Returns:
        Per stream an array of shape (channels, features), every feature with mean 0 and variance 1.
    """
    generator = np.random.default_rng(0)
    most = max((int(order.max(initial=0)) for order in known if order is not None), default=0)
    codes = np.random.default_rng(1).standard_normal((1 + most, WIDTH))
    positions = {(member.tensor, member.axis): (s, member) for s, stream in enumerate(streams) for member in stream}
    own = [
        _standard(np.hstack([_counts(edges[member.tensor], member, orbits) for member in stream])) for stream in streams
    ]
    links = _Links(edges)
    features = own
    for _ in range(ROUNDS):
        given = [
            feature if order is None else np.where((order >= 0)[:, None], codes[np.maximum(order, 0)], 0.0)
            for feature, order in zip(features, known, strict=True)
        ]
        mixed = []
        for stream, before in zip(streams, own, strict=True):
            parts = [before]
            for member in stream:
                other = positions.get((member.tensor, 1 - member.axis))
                if other is not None:
                    gathered = links.gathered(member, other[1], given[other[0]])
                    mixing = generator.standard_normal((gathered.shape[1], WIDTH))
                    parts.append(_standard(_standard(gathered) @ mixing))
            mixed.append(np.hstack(parts))
        features = mixed
    return features


def alike(one: Features, other: Features) -> Features:
    """Return how alike channels are by their fingerprints, shape (channels, other channels)."""
    closeness = 2 * one @ other.T
    closeness -= (one**2).sum(axis=1)[:, None]
    closeness -= (other**2).sum(axis=1)[None]
    return np.asarray(closeness)


def _counts(edges: Edges, member: GroupMember, orbits: Callable[[int], IndexArray]) -> Features:
    """Return, per channel and kind of place, how many edges there are, and the sums of their values and sizes."""
    channel, inside = channels_of(edges, member)
    there = channel >= 0
    counts: list[Features] = []
    for places, place in ((edges.shape[2], edges.kernel), (member.block, inside)):
        kind = orbits(places)
        kinds = int(kind.max()) + 1
        if kinds > MOST_KINDS or (kinds == 1 and counts):
            continue
        at = (channel * kinds + kind[place])[there]
        for weights in (np.ones(len(channel)), edges.values, np.abs(edges.values)):
            count: Features = np.bincount(
                at, weights=weights[there].astype(np.float64), minlength=member.channels * kinds
            ).astype(np.float64)
            counts.append(count.reshape(member.channels, kinds))
    return np.hstack(counts or [np.zeros((member.channels, 1))])


class _Links:
    """How channels are linked: through how many edges, and the sum of their values; laid out once for all rounds.

    Args:
        edges: A network's strongest weights by layer.
    """

    def __init__(self, edges: Mapping[str, Edges]) -> None:
        self._edges = edges
        self._made: dict[tuple[GroupMember, GroupMember], tuple[Any, Any]] = {}

    def gathered(self, member: GroupMember, other: GroupMember, features: Features) -> Features:
        """Return, per channel, the sums of the fingerprints at the other ends of its edges, plain and by value."""
        if (other, member) in self._made:
            return np.hstack([links.T @ features for links in self._made[other, member]])
        if (member, other) not in self._made:
            self._made[member, other] = self._laid_out(member, other)
        return np.hstack([links @ features for links in self._made[member, other]])

    def _laid_out(self, member: GroupMember, other: GroupMember) -> tuple[Any, Any]:
        edges = self._edges[member.tensor]
        (channel, _), (partner, _) = channels_of(edges, member), channels_of(edges, other)
        there = (channel >= 0) & (partner >= 0)
        channel, partner, values = channel[there], partner[there], edges.values[there].astype(np.float64)
        shape = (member.channels, other.channels)
        if math.prod(shape) <= max(FULL_LINKS, FULL_LINKS_AN_EDGE * len(channel)):
            flat = channel * other.channels + partner
            plain, by_value = (
                np.bincount(flat, weights=weights, minlength=math.prod(shape)).astype(np.float64).reshape(shape)
                for weights in (None, values)
            )
            return plain, by_value
        from scipy.sparse import csr_array

        plain, by_value = (csr_array((w, (channel, partner)), shape=shape) for w in (np.ones(len(channel)), values))
        return plain, by_value


def _standard(columns: Features) -> Features:
    """Return columns with mean 0 and variance 1; constant ones become 0."""
    centred = columns - columns.mean(axis=0)
    return np.asarray(centred / (centred.std(axis=0) + 1e-9))
