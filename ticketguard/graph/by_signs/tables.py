"""What an edge of the suspect at a position of the start says: log likelihood ratios, by the size of the start weight.

Training keeps the signs of large start weights, nearly all of them, and turns half of the smallest; and it keeps large
ones rather than small ones. What is assumed at first is what tickets of ResNet-20 show; once a part is aligned, each
layer says for itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.by_signs.coded import KINDS, NEGATIVE, POSITIVE, UNSEEN
from ticketguard.ticket.start_reference import SIZES

Floats: TypeAlias = npt.NDArray[np.float32]
Shares: TypeAlias = npt.NDArray[np.float64]
# How often signs of each size are kept, and the log of how much likelier an edge is there.
AGREE = np.array([0.56, 0.66, 0.73, 0.8, 0.84, 0.88, 0.91, 0.93])
KEPT = np.array([-0.7, -0.6, -0.45, -0.25, -0.05, 0.2, 0.45, 0.65])
# Edges that what is assumed counts as, of a layer and of all.
ASSUMED_EDGES = 40.0
# Beyond these nothing is told apart.
LEAST_AGREE, MOST_AGREE, MOST_KEPT = 0.505, 0.985, 2.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """What edges in a layer say.

    Attributes:
        signs: Of a positive edge's sign, by kind of the start's position; of a negative one the opposite.
        edges: Of an edge of any sign.
    """

    signs: Floats
    edges: Floats

    @classmethod
    def of(cls, agree: Shares, kept: Shares) -> Table:
        """Return it for shares of signs that are kept, and log ratios of edges, by size."""
        agree = np.clip(agree, LEAST_AGREE, MOST_AGREE)
        kept = np.clip(kept, -MOST_KEPT, MOST_KEPT)
        signs, edges = np.zeros(KINDS), np.zeros(KINDS)
        edges[:UNSEEN] = np.tile(kept, UNSEEN // SIZES)
        signs[POSITIVE:NEGATIVE] = np.log(agree / (1 - agree)) / 2
        signs[NEGATIVE:UNSEEN] = -signs[POSITIVE:NEGATIVE]
        edges[POSITIVE:UNSEEN] += np.tile(np.log(4 * agree * (1 - agree)) / 2, 2)
        return cls(signs=signs.astype(np.float32), edges=edges.astype(np.float32))


ASSUMED = Table.of(AGREE, KEPT)
# Where signs say nothing, as of a network that was trained from others.
PRESENCE = dataclasses.replace(Table.of(np.full(SIZES, 0.5), KEPT), signs=np.zeros(KINDS, dtype=np.float32))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """What agrees in an aligned layer, by size of the start weight.

    Attributes:
        agreeing: Anchors whose edge has their sign, less those whose edge has the other; shape (SIZES,).
        at_anchors: Edges at anchors.
        edges: Edges.
        positions: Positions.
    """

    agreeing: Shares
    at_anchors: Shares
    edges: Shares
    positions: Shares

    @classmethod
    def together(cls, counts: Collection[Counts]) -> Counts:
        """Return sums over layers."""
        return cls(
            agreeing=np.sum([count.agreeing for count in counts], axis=0),
            at_anchors=np.sum([count.at_anchors for count in counts], axis=0),
            edges=np.sum([count.edges for count in counts], axis=0),
            positions=np.sum([count.positions for count in counts], axis=0),
        )

    @classmethod
    def of(cls, kinds: npt.NDArray[np.uint8], signs: Floats, edges: Floats) -> Counts:
        """Count.

        Args:
            kinds: The start's.
            signs: The suspect's signs there, or their expectation.
            edges: Its edges there, likewise.
        """
        flat = kinds.reshape(-1)
        signed, there, positions = (
            np.bincount(flat, weights, KINDS)[:UNSEEN].reshape(-1, SIZES).astype(np.float64)
            for weights in (signs.reshape(-1), edges.reshape(-1), None)
        )
        return cls(
            agreeing=signed[1] - signed[2],
            at_anchors=there[1] + there[2],
            edges=there.sum(axis=0),
            positions=positions.sum(axis=0),
        )


def estimated(counts: Mapping[str, Counts]) -> dict[str, Table]:
    """Return what edges in each layer say, given what agrees in all."""
    agree, kept = _shares(Counts.together(counts.values()), AGREE, KEPT)
    return {name: Table.of(*_shares(count, agree, kept)) for name, count in counts.items()}


def _shares(counts: Counts, agree: Shares, kept: Shares) -> tuple[Shares, Shares]:
    """Return shares of signs that are kept, and log ratios of edges, given what is assumed of both."""
    found = (counts.at_anchors + counts.agreeing) / 2
    by_chance = counts.edges.sum() * counts.positions / max(1.0, counts.positions.sum())
    return (
        (found + ASSUMED_EDGES * agree) / (counts.at_anchors + ASSUMED_EDGES),
        np.log((counts.edges + ASSUMED_EDGES * np.exp(kept)) / (by_chance + ASSUMED_EDGES)),
    )
