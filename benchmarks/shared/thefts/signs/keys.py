"""Wrong keys held against networks that have stolen nothing from them, or not with these keys.

What is read of a suspect does not depend on the key: each is examined once, and every key is counted in all that was
seen, a few hundred keys at a time; what was counted is not counted again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

import ticketguard as tg
from benchmarks.shared.thefts.reading import Owned, State, reader_version
from benchmarks.shared.thefts.signs.rows import DENSE, PRUNED_MOST, UNTOUCHED
from benchmarks.shared.thefts.signs.tickets import start_of
from benchmarks.shared.wrong_keys import REMARKABLE, SAME
from ticketguard.credentials.canonical import canonical_json
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import SCHEME, SignParameters
from ticketguard.files import write_whole
from ticketguard.graph import ChannelGroup, groups_from_json
from ticketguard.keyed import commit
from ticketguard.ticket import StartReference
from ticketguard.ticket.start_reference import StartLayer
from ticketguard.verification.interface import own_parameters
from ticketguard.verification.keyed_signs.counting import ReadVotes, SignCount, count_agreements
from ticketguard.verification.keyed_signs.examination import Sight, examine_signs
from ticketguard.verification.memory import Memory
from ticketguard.verification.passes import Passes
from ticketguard.verification.readings import READINGS
from ticketguard.verification.verdict import level_log10
from ticketguard.verification.ways import Way, likeliest_way

# Of the corrected p, and of single readings.
LEVELS, READING_LEVELS = (0.05, 0.01), (0.05, 0.01, 0.001)
NEVER = -6.0
# The probability that any of all comparisons fails although every p is exact.
FAMILY_LEVEL = 0.01
GROUND = 2**16
CHUNK = 512
# Keys of which the whole examination is made again.
WHOLE = 2
HONEST, FORGED = "the owner's start", "a start forged from the suspect"
INNOCENT = "innocent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stand:
    """Suspects beside a reference, and the keys that are bound to it.

    Attributes:
        name: Of the reference.
        fields: What a commitment binds but for the secret.
        reference: The start weights.
        parameters: Of keyed signs.
        groups: Channel groups.
        suspects: State dicts by name.
    """

    name: str
    fields: Mapping[str, Any]
    reference: StartReference
    parameters: SignParameters
    groups: tuple[ChannelGroup, ...]
    suspects: Mapping[str, State]

    def binding(self, index: int) -> Binding:
        """Return a key that has nothing to do with the suspects."""
        secret = hashlib.sha256(b"wrong signs" + index.to_bytes(8, "little")).digest()
        return Binding(secret=secret, commitment=commit(secret=secret, **self.fields))

    @functools.cached_property
    def seen(self) -> dict[str, tuple[tuple[Sight, ...], int]]:
        """What is seen of each suspect, and the looks that are paid for."""
        return {name: self._seen(state) for name, state in self.suspects.items()}

    def _seen(self, state: State) -> tuple[tuple[Sight, ...], int]:
        def see(layers: Any, present: Any) -> Sight:
            return Sight(read=ReadVotes.of(layers, present, self.parameters), reference=present)

        passes = Passes(self._way(state), see=see)
        sights = tuple(sight for sight, *_ in (*passes.stored, *passes.aligned))
        return sights, len(READINGS) * passes.passes

    def whole(self, name: str, index: int) -> float:
        """Return log10 p of a key, as the whole examination of a suspect has it."""
        return examine_signs(
            self._way(self.suspects[name]), self.binding(index), self.parameters, threshold_log10_p=level_log10(64)
        ).log10_p

    def _way(self, state: State) -> Way:
        return likeliest_way(tg.Checkpoint(state), self.reference, self.groups, thorough=True)


def stands_of(owned: Owned, other: Owned) -> Iterator[Stand]:
    """Give what is held against wrong keys: of a stolen ticket, and of another seed's."""
    credential, innocent = owned.credential, other.shelf.suspect(UNTOUCHED)
    (mark,) = (mark for mark in credential.claim.marks if mark.scheme == SCHEME)
    stolen = owned.shelf.suspect(UNTOUCHED)
    reference = start_of(credential)

    def stand(name: str, start: StartReference, suspects: Mapping[str, State]) -> Stand:
        return Stand(
            name=name,
            fields={
                "owner_public_key": credential.claim.owner_public_key,
                "reference_digest": start.digest(),
                "scheme": mark.scheme,
                "version": mark.version,
                "level_bits": mark.level_bits,
                "parameters": canonical_json(dict(mark.parameters)),
            },
            reference=start,
            parameters=SignParameters.from_json(own_parameters(mark)),
            groups=tuple(groups_from_json(credential.vault.channel_groups or [])),
            suspects=suspects,
        )

    yield stand(
        HONEST,
        reference,
        {
            "marked": stolen,
            "permuted": owned.disguised("wrong keys", stolen),
            "pruned": owned.shelf.suspect(PRUNED_MOST),
            "dense": owned.shelf.suspect(DENSE),
            INNOCENT: innocent,
        },
    )
    yield stand(FORGED, forged(reference, innocent), {INNOCENT: innocent})


def forged(like: StartReference, suspect: State) -> StartReference:
    """Return the reference of somebody who knows a suspect: its own signs at the anchors, its own magnitudes."""
    return StartReference(
        layers={name: StartLayer.of(name, suspect[name], share=layer.share) for name, layer in like.layers.items()}
    )


def count_keys(stand: Stand, folder: Path, keys: int) -> None:
    """Count what is missing of the first so many keys, and of the `CHUNK` that the last of them is in."""
    for first in range(0, keys, CHUNK):
        path = folder / f"{first}.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            found = counted(stand, first, CHUNK)
            write_whole(path, (json.dumps(found) + "\n").encode())
            print(stand.name, folder, first, flush=True)


def folder_of(owned: Owned, stand: str) -> Path:
    """Return where what was counted is kept."""
    return owned.bench.folder / f"keys-{reader_version()}" / owned.setting.name / stand


def counted(stand: Stand, first: int, count: int) -> dict[str, dict[str, Any]]:
    """Return, by suspect, how often p is small, corrected and of single readings."""
    readings: dict[str, list[list[float]]] = {name: [] for name in stand.suspects}
    for index in range(first, first + count):
        binding, memory = stand.binding(index), Memory(limit_bytes=2**24)
        for name, (sights, _) in stand.seen.items():
            counts = [one for sight in sights for one in count_agreements(sight.read, sight.reference, binding, memory)]
            readings[name].append([log10_p_of(one) for one in counts])
    found = {}
    for name, rows in readings.items():
        values = np.array(rows)
        whole = np.minimum(0.0, values.min(axis=1) + math.log10(stand.seen[name][1]))
        checked = range(min(WHOLE, count) if first == 0 else 0)
        found[name] = {
            "keys": count,
            "looks": stand.seen[name][1],
            "smallest": float(whole.min()),
            "never": int(np.count_nonzero(whole <= NEVER)),
            "corrected": [_at_most(whole, level) for level in LEVELS],
            "single": [[_at_most(column, level) for level in READING_LEVELS] for column in values.T],
            "otherwise": sum(abs(stand.whole(name, index) - float(whole[index])) > SAME for index in checked),
        }
    return found


def log10_p_of(count: SignCount) -> float:
    """Return log10 p of a count, 0 if it is near its mean or below: such a p is above 0.1, and corrected 1."""
    if 2 * count.agreements - count.votes <= REMARKABLE * math.sqrt(count.votes):
        return 0.0
    return count.log10_p


def _at_most(log10_p: Any, level: float) -> int:
    # A p-value that is a level is at most that level, whatever its logarithm's last bit.
    return int(np.count_nonzero(log10_p <= math.log10(level) + 1e-9))


def gathered(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what was counted of all keys in a folder, by suspect."""
    chunks = {int(path.stem): json.loads(path.read_text()) for path in folder.glob("*.json")}
    parts = list(chunks.values())
    ground = [part for first, part in chunks.items() if first < GROUND]
    names = parts[0] if parts else {}
    return {name: _added([part[name] for part in parts], [part[name] for part in ground]) for name in names}


def _added(parts: Sequence[Mapping[str, Any]], ground: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = sum(part["keys"] for part in parts)
    corrected = np.sum([part["corrected"] for part in parts], axis=0)
    single = np.sum([part["single"] for part in parts], axis=0)
    chances = [_chance(corrected, keys, LEVELS), *(_chance(one, keys, READING_LEVELS) for one in single)]
    return {
        "keys": keys,
        "looks": parts[0]["looks"],
        "smallest corrected log10 p": min(part["smallest"] for part in parts),
        "smallest corrected log10 p of the first 2^16": min(part["smallest"] for part in ground),
        "ground": sum(part["keys"] for part in ground),
        "keys at 10^-6 or below": sum(part["never"] for part in parts),
        "share of keys with corrected p at most a": {
            str(level): found / keys for level, found in zip(LEVELS, corrected.tolist(), strict=True)
        },
        "largest share of keys over a, single readings": float(
            (single[:, :2] / keys / np.array(READING_LEVELS[:2])).max()
        ),
        "least chance": min(chances),
        "comparisons": len(LEVELS) + single.size,
        "whole examinations that say otherwise": sum(part["otherwise"] for part in parts),
    }


def _chance(found: Any, keys: int, levels: Sequence[float]) -> float:
    """Return the least probability of so many or more keys, were P(p ≤ level) the level."""
    return min(float(binom.sf(one - 1, keys, level)) for one, level in zip(found.tolist(), levels, strict=True))
