"""How far a matching is right, judged by edges that it did not see.

A matching that is free to permute finds some agreement between any two networks. A fifth of the reference's edges is
kept from it: of them an unrelated suspect shares no more than the sizes of its rows, columns and kernel places
make likely, however hard the rest was fitted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.degrees import expected_edges
from ticketguard.graph.groups import IndexArray
from ticketguard.graph.similarity import Edges

Ends: TypeAlias = tuple[IndexArray, IndexArray, IndexArray]
Table: TypeAlias = npt.NDArray[np.float64]

HELD_OUT = 0.2
# Of a full layer the strongest quarter of the held-out edges is looked for: which edges it has says nothing.
FULL_SHARE = 0.25
# An alignment with this share of the held-out edges beyond chance, this many standard deviations above it, is the last
# one tried.
CLEAR_EXCESS, CLEAR_DEVIATIONS = 0.5, 10.0
# One with less is none. In layers of some hundred thousand weights, whose rows and columns are as full as the
# reference's for a reason of their own, up to 0.05 is seen beyond what is expected, in any number of deviations.
LEAST_EXCESS, LEAST_DEVIATIONS = 0.1, 6.0
# What has hardly any after one sweep is not followed; of a few layers of a large network, which stand for all, what is
# less than the best of some dozen looks at an unrelated one.
TRACE_DEVIATIONS, PART_DEVIATIONS = 1.5, 3.0
# A layer with less than this share of the overlap of all is not where it belongs, if enough of it was held out to tell.
LOST_SHARE, FEW_EDGES = 0.4, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A layer's edges that no matching sees.

    Attributes:
        flat: Their flat positions.
        ends: Output, input and place of the kernel of each.
        share: Share of the layer's edges that was held out.
        shape: (out, in, places of the kernel).
    """

    flat: IndexArray
    ends: Ends
    share: float
    shape: tuple[int, int, int]


def split(reference: Mapping[str, Edges]) -> tuple[dict[str, Edges], dict[str, HeldOut]]:
    """Split each layer's edges into those that a matching sees and those that it is judged by."""
    generator = np.random.default_rng(0)
    seen: dict[str, Edges] = {}
    held_out: dict[str, HeldOut] = {}
    for name, edges in reference.items():
        hidden = generator.random(len(edges.values)) < HELD_OUT
        flat = edges.flat()[hidden]
        if len(edges.values) == math.prod(edges.shape):
            strong = np.abs(edges.values[hidden])
            flat = flat[strong >= np.quantile(strong, 1 - FULL_SHARE)] if len(strong) else flat
        out, given, kernel = np.unravel_index(flat, edges.shape)
        held_out[name] = HeldOut(
            flat=flat,
            ends=(out, given, kernel),
            share=float(hidden.mean()) if len(hidden) else 0.0,
            shape=edges.shape,
        )
        seen[name] = edges.chosen(~hidden)
    return seen, held_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likeness:
    """How many of the held-out edges an aligned suspect shares.

    Attributes:
        found: By layer, how many it shares.
        expected: By layer, how many an unrelated one would.
        variance: Of all of these together.
        most: By layer, how many it could share.
    """

    found: Mapping[str, int]
    expected: Mapping[str, float]
    variance: float
    most: Mapping[str, float]

    @classmethod
    def of(cls, held_out: Mapping[str, HeldOut], aligned: Mapping[str, Ends]) -> Likeness:
        """Compare.

        Args:
            held_out: By layer.
            aligned: By layer, the aligned suspect's strongest weights: output, input and place of the kernel of each.
        """
        found: dict[str, int] = {}
        expected: dict[str, float] = {}
        most: dict[str, float] = {}
        variance = 0.0
        for name, hidden in held_out.items():
            likely, shared = _compared(hidden, aligned[name])
            found[name] = shared
            expected[name] = float(likely.sum())
            variance += float((likely * (1 - likely)).sum())
            most[name] = min(len(hidden.flat), hidden.share * len(aligned[name][0]))
        return cls(found=found, expected=expected, variance=variance, most=most)

    @classmethod
    def together(cls, parts: Sequence[Likeness]) -> Likeness:
        """Return that of several layers, or of several things that were held out of a layer."""
        found: dict[str, int] = {}
        expected: dict[str, float] = {}
        most: dict[str, float] = {}
        for part in parts:
            for name in part.found:
                found[name] = found.get(name, 0) + part.found[name]
                expected[name] = expected.get(name, 0.0) + part.expected[name]
                most[name] = most.get(name, 0.0) + part.most[name]
        return cls(found=found, expected=expected, variance=sum(part.variance for part in parts), most=most)

    @classmethod
    def in_turns(
        cls, held_out: Mapping[str, HeldOut], aligned: Mapping[str, Ends], turns: Sequence[Mapping[str, IndexArray]]
    ) -> list[Likeness]:
        """Compare in several turns of the suspect's kernels at once.

        Args:
            held_out: By layer.
            aligned: By layer, the aligned suspect's strongest weights, not turned.
            turns: Of each turn which place comes to each place, by layer; a layer that is left out is not turned.
        """
        found: list[dict[str, int]] = [{} for _ in turns]
        expected: list[dict[str, float]] = [{} for _ in turns]
        variances = [0.0] * len(turns)
        for name, hidden in held_out.items():
            tables = _by_places(hidden, aligned[name])
            own = np.arange(hidden.shape[2])
            for index, turn in enumerate(turns):
                shared, likely, variance = (table[own, turn.get(name, own)].sum() for table in tables)
                found[index][name], expected[index][name] = int(shared), float(likely)
                variances[index] += float(variance)
        most = {name: min(len(hidden.flat), hidden.share * len(aligned[name][0])) for name, hidden in held_out.items()}
        return [
            cls(found=found[index], expected=expected[index], variance=variances[index], most=most)
            for index in range(len(turns))
        ]

    @property
    def overlap(self) -> float:
        """Share of the edges that it could share."""
        return sum(self.found.values()) / max(1.0, sum(self.most.values()))

    @property
    def chance(self) -> float:
        """The overlap to expect of an unrelated suspect."""
        return sum(self.expected.values()) / max(1.0, sum(self.most.values()))

    @property
    def excess(self) -> float:
        """Share of what is beyond chance that it has: 0 for an unrelated suspect, 1 for the reference itself."""
        beyond = sum(self.most.values()) - sum(self.expected.values())
        return self.surplus / max(1.0, beyond)

    @property
    def surplus(self) -> float:
        """Edges that it shares beyond what chance gives."""
        return sum(self.found.values()) - sum(self.expected.values())

    @property
    def deviations(self) -> float:
        """Standard deviations above chance."""
        return self.surplus / math.sqrt(max(1.0, self.variance))

    @property
    def is_found(self) -> bool:
        """Whether it is beyond what chance gives, and what likeness of a network's form gives."""
        return self.excess >= LEAST_EXCESS and self.deviations >= LEAST_DEVIATIONS

    @property
    def is_clear(self) -> bool:
        """Whether everything is where it belongs: all together, and each layer that is large enough to tell."""
        excess = self.excess
        return (
            excess >= CLEAR_EXCESS
            and self.deviations >= CLEAR_DEVIATIONS
            and all(
                self.found[name] - self.expected[name] >= LOST_SHARE * excess * (most - self.expected[name])
                for name, most in self.most.items()
                if most - self.expected[name] >= FEW_EDGES
            )
        )


def _compared(hidden: HeldOut, aligned: Ends) -> tuple[npt.NDArray[np.float64], int]:
    """Return how likely an unrelated suspect of the same rows, columns and kernel places has each held-out edge.

    And how many the suspect has.
    """
    likely = expected_edges(_counts(hidden, aligned), hidden.ends)
    return likely, int(np.count_nonzero(_there(hidden, aligned)[hidden.flat]))


def _by_places(hidden: HeldOut, aligned: Ends) -> tuple[Table, Table, Table]:
    """Return what is shared, what is expected and its variance, by place of a held-out edge and of the suspect's."""
    places = hidden.shape[2]
    out, given, place = hidden.ends
    every = np.arange(places)[None]
    likely = expected_edges(_counts(hidden, aligned), (out[:, None], given[:, None], every))
    there = _there(hidden, aligned)[(out * hidden.shape[1] + given)[:, None] * places + every]
    of_place = (place == every.T).astype(np.float64)
    return of_place @ there, of_place @ likely, of_place @ (likely * (1 - likely))


def _counts(hidden: HeldOut, aligned: Ends) -> list[IndexArray]:
    return [np.bincount(ends, minlength=size) for ends, size in zip(aligned, hidden.shape, strict=True)]


def _there(hidden: HeldOut, aligned: Ends) -> npt.NDArray[np.bool_]:
    """Return which flat positions of a layer the suspect has."""
    there = np.zeros(math.prod(hidden.shape), dtype=np.bool_)
    there[(aligned[0] * hidden.shape[1] + aligned[1]) * hidden.shape[2] + aligned[2]] = True
    return there
