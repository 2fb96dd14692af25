"""Read suspects by every mark of a credential; what was read by the same release is not read again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ticketguard as tg
from benchmarks.shared.thefts import masks
from benchmarks.shared.thefts.reading import SHOWN, Manner, Owned, State, reader_version
from benchmarks.shared.thefts.signs.tickets import start_signs
from ticketguard.credentials.credential import Credential
from ticketguard.embedding.keyed_signs import PARTS, SCHEME, SignParameters
from ticketguard.errors import UnverifiableError
from ticketguard.files import write_whole
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


def read_marks(
    owned: Owned, manner: Manner, row: str, make: Callable[[], State], *, at: float | None = None
) -> dict[str, Any]:
    """Verify a suspect, or return what this release found of it before.

    Args:
        owned: Whose credential.
        manner: How it was made.
        row: The row.
        make: Makes the suspect.
        at: When its file was written: of one that was made again since, nothing is known.
    """
    path = _kept_at(owned) / manner / f"{row}.json"
    if path.exists() and (at is None or path.stat().st_mtime >= at):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    state = make()
    begun = time.process_time()
    try:
        found = _told(tg.verify(tg.Checkpoint(state), owned.credential, thorough=True))
    except UnverifiableError as error:
        found = {"status": "could not be checked", "log10_p": 0.0, "marks": {}, "why": str(error)}
    found["seconds"] = round(time.process_time() - begun, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(found) + "\n").encode())
    return found


def _kept_at(owned: Owned) -> Path:
    folder = owned.bench.folder / f"read-{reader_version()}" / owned.setting.name
    return folder / str(owned.bench.seed) / owned.mark


def _told(verdict: tg.Verdict) -> dict[str, Any]:
    marks: dict[str, Any] = {}
    for evidence in verdict.evidence:
        details = evidence.details
        marks[evidence.mark] = {
            "status": evidence.status,
            "log10_p": round(evidence.log10_p, 2),
            "observed": evidence.observed,
            "expected": round(evidence.expected, 1),
            **{key: details[key] for key in (*SHOWN, *MORE_SHOWN) if details.get(key) not in (None, [])},
        }
    for unchecked in verdict.unchecked:
        marks[unchecked.mark] = {"status": "could not be checked", "log10_p": 0.0, "why": unchecked.reason}
    return {"status": verdict.status, "log10_p": round(verdict.log10_p, 2), "marks": marks}
