"""What edges that two channels share say about whether they are one another's counterparts."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import IndexArray
from ticketguard.graph.similarity import Edges
from ticketguard.ticket import BoolArray

# Added to each count, so that odds are finite.
HALF = 0.5
Counts: TypeAlias = npt.NDArray[np.floating[Any]]


def shared_edges(reference: Edges, aligned: Edges) -> tuple[BoolArray, IndexArray]:
    """Return which of an aligned suspect's edges are the reference's, and which one each of these is.

    Args:
        reference: The reference's edges in a layer, in ascending order.
        aligned: The suspect's, where they lie in that layer.
    """
    wanted, found = reference.flat(), aligned.flat()
    at = np.searchsorted(wanted, found)
    at[at == len(wanted)] = 0
    is_shared = wanted[at] == found if len(wanted) else np.zeros(len(found), dtype=np.bool_)
    return is_shared, at[is_shared]


def odds_ratio(shared: float, suspect: float, reference: float, positions: float) -> float:
    """Return the odds ratio of two networks' edges, with half an edge added to each of the four counts."""
    both, neither = shared + HALF, positions - suspect - reference + shared + HALF
    return both * neither / ((suspect - shared + HALF) * (reference - shared + HALF))


def shared_nats(
    shared: Counts, suspect: Counts, reference: Counts, positions: Counts | int, odds: float
) -> npt.NDArray[np.float64]:
    """Return by how much what channels share is likelier under an odds ratio than by chance, at least, in nats.

    Edges of both follow Fisher's noncentral hypergeometric law given those of each, with the odds ratio 1 where the two
    have nothing to do with each other. Its normalisation is at most that of either binomial law (Hoeffding 1963,
    theorem 4).

    Args:
        shared: Edges of both channels.
        suspect: Of the suspect's.
        reference: Of the reference's.
        positions: Where there could be edges, at least 1.
        odds: The odds ratio, above 1.
    """
    most = np.minimum(
        suspect * np.log1p(reference / positions * (odds - 1)),
        reference * np.log1p(suspect / positions * (odds - 1)),
    )
    return np.asarray(shared * math.log(odds) - most, dtype=np.float64)
