"""Read suspects by every mark of a credential; what was read by the same release is not read again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import ticketguard as tg
from benchmarks.shared.thefts import masks
from benchmarks.shared.thefts.reading import SHOWN, Manner, Owned, State, read, shown_of
from benchmarks.shared.thefts.signs.tickets import start_signs
from ticketguard.credentials.credential import Credential
from ticketguard.embedding.keyed_signs import PARTS, SCHEME, SignParameters
from ticketguard.ticket import Array, Mask
from ticketguard.verification.interface import own_parameters

# Of a suspect's edges the largest so many.
PARTS_OF_EDGES = {"all": 1.0, "largest half": 0.5, "largest quarter": 0.25}
MORE_SHOWN = ("votes", "channels_not_recognised", "attainable_log10_p", "decoy_log10_p")


def kept_signs(credential: Credential, state: Mapping[str, Array]) -> dict[str, float]:
    """Return the share of a suspect's edges that have the sign of the signed start, as it is stored.

    Its edges are its largest weights, at most as many as an untouched copy has; of those all, the largest half and the
    largest quarter.
    """
    signs = start_signs(credential)
    edges = masks.edges_of(state, signs)
    wanted = round(density_of(credential) * edges.size)
    if edges.kept > wanted:
        edges = masks.pruned(state, edges, 1 - wanted / edges.kept)
    return {
        part: _agreeing(signs, state, masks.pruned(state, edges, 1 - share) if share < 1 else edges)
        for part, share in PARTS_OF_EDGES.items()
    }


def density_of(credential: Credential) -> float:
    """Return the share of the weights that an untouched copy keeps."""
    (mark,) = (mark for mark in credential.claim.marks if mark.scheme == SCHEME)
    return SignParameters.from_json(own_parameters(mark)).density_ppm / PARTS


def _agreeing(signs: Mapping[str, Array], state: Mapping[str, Array], edges: Mask) -> float:
    same = sum(int(np.count_nonzero((signs[name] == (state[name] < 0))[edges[name]])) for name in edges)
    return round(same / max(1, edges.kept), 4)


def told_by_each(verdict: tg.Verdict) -> dict[str, Any]:
    """Return what is kept of a verdict by several marks."""
    marks: dict[str, Any] = {
        evidence.mark: {
            "status": evidence.status,
            "log10_p": round(evidence.log10_p, 2),
            **shown_of(evidence, (*SHOWN, *MORE_SHOWN)),
        }
        for evidence in verdict.evidence
    }
    for unchecked in verdict.unchecked:
        marks[unchecked.mark] = {"status": "could not be checked", "log10_p": 0.0, "why": unchecked.reason}
    return {"status": verdict.status, "log10_p": round(verdict.log10_p, 2), "marks": marks}


def read_marks(
    owned: Owned, manner: Manner, row: str, make: Callable[[], State], *, since: float = -math.inf
) -> dict[str, Any]:
    """Verify a suspect by every mark, as `read` does by one."""
    found = read(owned, manner, row, make, told=told_by_each, since=since)
    found.setdefault("marks", {})
    return found
