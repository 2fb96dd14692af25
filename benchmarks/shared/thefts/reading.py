"""Read suspects by a thorough `ticketguard.verify`; what was read by the same release is not read again."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

import ticketguard as tg
from benchmarks.shared.fleet import DeviceData
from benchmarks.shared.thefts.disguise import Disguise, fitted
from benchmarks.shared.thefts.settings import Setting
from benchmarks.shared.thefts.storing import Shelf
from benchmarks.shared.thefts.tickets import Bench, vault_key
from ticketguard.credentials.credential import Credential, load_credential
from ticketguard.errors import UnverifiableError
from ticketguard.files import write_whole
from ticketguard.ticket import Array, Ticket
from ticketguard.verification.verdict import Evidence

Manner: TypeAlias = Literal["as made", "permuted and rescaled"]
AS_MADE: Manner = "as made"
DISGUISED: Manner = "permuted and rescaled"
State: TypeAlias = dict[str, Array]
# Examples on which a permuted and rescaled network must answer as before.
PROBES = 64
# What is kept of a verdict's evidence.
SHOWN = (
    "reading", "aligned", "channels_out_of_place", "channels_missing", "channels_added", "kernels", "layout",
    "alignment_overlap", "alignment_deviations", "looks", "networks", "missing_layers", "why",
)  # fmt: skip
# What a reading depends on, beside the suspect.
READERS = ("checkpoints", "graph", "verification")


@functools.cache
def reader_version() -> str:
    """Return a digest of the code that reads: what another release read is not taken for this one's."""
    root = Path(tg.__file__).parent
    digest = hashlib.sha256()
    for folder in READERS:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owned:
    """One seed's stolen ticket, its owner's credential and what was made of it.

    Attributes:
        bench: Setting, seed, data.
        mark: "marked" or "small".
    """

    bench: Bench
    mark: str = "marked"

    @property
    def setting(self) -> Setting:
        """The kind of ticket."""
        return self.bench.setting

    @functools.cached_property
    def shelf(self) -> Shelf:
        """Where the suspects lie."""
        return self.of_seed(self.bench.seed)

    def of_seed(self, seed: int) -> Shelf:
        """Return another seed's suspects."""
        return Shelf(folder=self.bench.folder / self.setting.name / str(seed))

    @functools.cached_property
    def credential(self) -> Credential:
        """The owner's claim and vault."""
        folder = self.shelf.folder / f"{self.mark} credential"
        return load_credential(folder / "claim.json", folder / "vault.age", vault_key=vault_key(self.bench.folder))

    @property
    def is_marked(self) -> bool:
        """Whether the ticket was marked yet."""
        return (self._work / f"{self.mark}.ticket").exists()

    @functools.cached_property
    def ticket(self) -> Ticket:
        """The marked ticket as it was released."""
        return Ticket.load(self._work / f"{self.mark}.ticket", trust_code=True)

    @property
    def _work(self) -> Path:
        return self.bench.folder / "work" / self.setting.name / str(self.bench.seed)

    def disguised(self, row: str, state: Mapping[str, Array]) -> State:
        """Permute and rescale a suspect of whatever size."""
        model = fitted(self.setting.build(0), state)
        return Disguise(model, state, self.bench.data.test[:PROBES], generator_of(self.bench.seed, row)).put_on(state)


def generator_of(seed: int, row: str) -> np.random.Generator:
    """Return what the choices of a row are drawn from."""
    return np.random.default_rng([seed, *hashlib.sha256(row.encode()).digest()[:8]])


def told_by_one(verdict: tg.Verdict) -> dict[str, Any]:
    """Return what is kept of a verdict by a single mark."""
    (evidence,) = verdict.evidence
    return {"status": verdict.status, "log10_p": round(verdict.log10_p, 2), **shown_of(evidence, SHOWN)}


def shown_of(evidence: Evidence, keys: Collection[str]) -> dict[str, Any]:
    """Return a mark's counts, and what its evidence says under some *keys*."""
    return {
        "observed": evidence.observed,
        "expected": round(evidence.expected, 1),
        **{key: evidence.details[key] for key in keys if evidence.details.get(key) not in (None, [])},
    }


def read(
    owned: Owned,
    kind: str,
    row: str,
    make: Callable[[], State],
    *,
    told: Callable[[tg.Verdict], dict[str, Any]] = told_by_one,
    since: float = -math.inf,
) -> dict[str, Any]:
    """Verify a suspect, or return what this release found of it before.

    Args:
        owned: Whose credential.
        kind: Tells readings of one row apart: how it was made, or what it is.
        row: The row.
        make: Makes the suspect.
        told: What is kept of a verdict.
        since: When its file was written: of one that was made again since, nothing is known.
    """
    kept = owned.bench.folder / f"read-{reader_version()}" / owned.setting.name / str(owned.bench.seed) / owned.mark
    path = kept / kind / f"{row}.json"
    if path.exists() and path.stat().st_mtime >= since:
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    state = make()
    begun = time.process_time()
    try:
        found = told(tg.verify(tg.Checkpoint(state), owned.credential, thorough=True))
    except UnverifiableError as error:
        found = {"status": "could not be checked", "log10_p": 0.0, "why": [str(error)]}
    found["seconds"] = round(time.process_time() - begun, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(found) + "\n").encode())
    return found


def data_of(setting: Setting, folder: Path) -> DeviceData:
    """Return a setting's data, on the processor."""
    return DeviceData(setting.images.load(folder), torch.device("cpu"))
