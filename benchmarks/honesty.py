"""Honesty: 100 000 wrong keys through everything that `verify` does to a suspect.

Which networks, layers, layouts, orders of channels and readings are looked at does not depend on the key, so each
suspect is examined once and every key is counted in all that was seen; on a sample of keys the whole examination is
made again, and must say the same. P(p ≤ a) must be at most a, for every suspect and every a.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import binom

import ticketguard as tg
from benchmarks.shared.quick_tickets import ADDED, DENSITY, EMBEDDING, FINDING, MODELS, REMOVED_SHARE, Quick, quick
from benchmarks.shared.results import Bar, write_result
from benchmarks.shared.steering import Forgery, steered
from benchmarks.shared.wrong_keys import SAME, Doubles, Keys, Seen, readings_of_keys
from ticketguard.verification.planted_graph.examination import Examination, examine_networks
from ticketguard.verification.verdict import level_log10

# Of the corrected p, and of single readings.
LEVELS = (0.5, 0.1, 0.01, 1e-3, 1e-4)
READING_LEVELS = (0.05, 0.02, 0.01, 0.005, 0.002, 1e-3, 1e-4)
NEVER = -6.0
# Stated before anything is drawn: the probability that any of all comparisons fails although every p is exact.
FAMILY_LEVEL = 0.01
LARGEST_LOG10_P = math.log10(LEVELS[0])
# Keys of which the whole examination is made again, and keys that go through all of its counting and correcting.
WHOLE, COUNTED = 1, 20
CHUNK = 500
# Places for each channel in a reference that is padded.
PADDING = 2


def corrected(readings: Doubles, looks: int) -> Doubles:
    """Return log10 of the smallest p of each key, after correction."""
    return np.minimum(0.0, readings.min(axis=1) + math.log10(looks))


def disagreements(tickets: Quick, keys: Keys, found: Mapping[str, Doubles], seen: Mapping[str, Seen]) -> int:
    """Return how often the examination that `verify` makes gives another p than was found, on the first keys."""
    wrong = 0
    for name, state in tickets.suspects.items():
        own = corrected(found[name][:COUNTED], seen[name].looks)
        suspect = tg.Checkpoint(state)
        examination = Examination(tickets.way(suspect), tickets.parameters)
        threshold = level_log10(64)
        for index, value in enumerate(own):
            told = examination.evidence(keys.binding(index), threshold_log10_p=threshold).log10_p
            wrong += int(abs(max(told, LARGEST_LOG10_P) - max(value, LARGEST_LOG10_P)) > SAME)
            if index < WHOLE:
                whole = examine_networks(
                    tickets.way(suspect), keys.binding(index), tickets.parameters, threshold_log10_p=threshold
                )
                wrong += int(whole.log10_p != told)
    return wrong


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How often p was at most a level.

    Attributes:
        found: So many keys.
        chance: The probability of so many or more, were P(p ≤ level) as large as it may be: the level.
    """

    found: int
    chance: float


def compared(log10_p: Doubles, levels: Sequence[float]) -> dict[float, Comparison]:
    """Hold one p-value a key against *levels*."""
    result = {}
    for level in levels:
        # A p-value that is a level is at most that level, whatever its logarithm's last bit.
        found = int(np.count_nonzero(log10_p <= math.log10(level) + 1e-9))
        result[level] = Comparison(found=found, chance=float(binom.sf(found - 1, len(log10_p), level)))
    return result


def judged(readings: Doubles, looks: int) -> dict[str, Any]:
    """Hold one suspect's p-values against every level."""
    values = corrected(readings, looks)
    whole = compared(values, LEVELS)
    columns = [compared(column, READING_LEVELS) for column in readings.T]
    halved = [compared(column - math.log10(2), READING_LEVELS) for column in readings.T]
    return {
        "looks": looks,
        "smallest corrected log10 p": float(values.min()),
        "keys at 10^-6 or below": int(np.count_nonzero(values <= NEVER)),
        "share of keys with corrected p at most a": {
            str(level): one.found / len(values) for level, one in whole.items()
        },
        "least chance, corrected": min(one.chance for one in whole.values()),
        "largest share of keys over a, single readings": max(
            one.found / len(values) / level for column in columns for level, one in column.items() if level >= 1e-3
        ),
        "least chance, single readings": min(one.chance for column in columns for one in column.values()),
        "least chance, single readings half as large": min(one.chance for column in halved for one in column.values()),
        "comparisons": len(LEVELS) + readings.shape[1] * len(READING_LEVELS),
    }


def measured(name: str, count: int) -> tuple[dict[str, Any], int, Quick]:
    """Return what *count* wrong keys show of one network's suspects, and on how many keys of a sample it is wrong."""
    tickets = quick(name)
    keys = Keys.of(tickets)
    seen = {
        suspect: Seen.of(Examination(tickets.way(tg.Checkpoint(state)), tickets.parameters))
        for suspect, state in tickets.suspects.items()
    }
    parts = Parallel(n_jobs=2, verbose=1)(
        delayed(readings_of_keys)(first, min(CHUNK, count - first), keys, seen) for first in range(0, count, CHUNK)
    )
    found = {suspect: np.concatenate([part[suspect] for part in parts]) for suspect in seen}
    own = {suspect: tg.verify(tg.Checkpoint(state), tickets.credential) for suspect, state in tickets.suspects.items()}
    rows = {
        suspect: {
            "owner's key": {"status": own[suspect].status, "log10 p": own[suspect].log10_p},
            **judged(readings, seen[suspect].looks),
        }
        for suspect, readings in found.items()
    }
    return rows, disagreements(tickets, keys, found, seen), tickets


def bars_of(
    rows: Sequence[Mapping[str, Any]], limit: float, forgeries: Mapping[int, Forgery], *, keys: int, disagreements: int
) -> dict[str, Bar]:
    """Return what must hold.

    Args:
        rows: What `judged` says of every suspect.
        limit: The least probability that a comparison may have.
        forgeries: Of references that steer an alignment, by how many places they have for each channel.
        keys: Wrong keys for each suspect.
        disagreements: Keys of the sample for which the whole examination says something else.
    """

    def below(key: str) -> int:
        return sum(row[key] < limit for row in rows)

    # The unmarked ticket has no edges outside the reference: nothing is counted, and every p is 1.
    counting = sum(row["largest share of keys over a, single readings"] > 0 for row in rows)
    return {
        "wrong keys for each suspect": Bar(value=keys, bound=100_000, at_most=False),
        "suspects": Bar(value=len(rows), bound=20, at_most=False),
        "wrong keys at 10^-6 or below": Bar(
            value=sum(row["keys at 10^-6 or below"] for row in rows), bound=0, at_most=True
        ),
        "suspects with P(p <= a) > a, corrected": Bar(value=below("least chance, corrected"), bound=0, at_most=True),
        "suspects with P(p <= a) > a, single readings": Bar(
            value=below("least chance, single readings"), bound=0, at_most=True
        ),
        "suspects where p-values half as large would be seen": Bar(
            value=below("least chance, single readings half as large"), bound=counting, at_most=False
        ),
        "keys of the sample where the whole examination says something else": Bar(
            value=disagreements, bound=0, at_most=True
        ),
        "steered reference refused": Bar(value=int(bool(forgeries[1].refused)), bound=1, at_most=False),
        "steered padding refused": Bar(value=int(bool(forgeries[PADDING].refused)), bound=1, at_most=False),
        # There would be something to refuse.
        "weakest log10 p of the two, were they believed": Bar(
            value=max(one.log10_p for one in forgeries.values()), bound=level_log10(64), at_most=True
        ),
    }


def main() -> None:
    """Measure and write results/honesty.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    count = parser.parse_args().keys
    raw: dict[str, Any] = {"networks": {}}
    wrong = 0
    for name in MODELS:
        raw["networks"][name], failed, tickets = measured(name, count)
        wrong += failed
        if name == "perceptron":
            innocent = tickets.suspects["innocent"]
            forgeries = {padding: steered(tickets, innocent, padding=padding) for padding in (1, PADDING)}
    raw["forgeries"] = {f"{padding} places a channel": dataclasses.asdict(one) for padding, one in forgeries.items()}
    rows = [row for network in raw["networks"].values() for row in network.values()]
    raw["limit"] = FAMILY_LEVEL / sum(row["comparisons"] for row in rows)
    bars = bars_of(rows, raw["limit"], forgeries, keys=count, disagreements=wrong)
    setting = {
        "models": MODELS,
        "data": "digits",
        "density": DENSITY,
        "finding": FINDING,
        "embedding": EMBEDDING,
        "share_of_channels_removed": REMOVED_SHARE,
        "neurons_added_twice_to_a_group": ADDED,
        "keys": count,
        "levels": LEVELS,
        "levels_of_single_readings": READING_LEVELS,
        "family_level": FAMILY_LEVEL,
        "sample": {"whole": WHOLE, "counted": COUNTED},
    }
    write_result("honesty", setting=setting, seeds=[0], raw=raw, bars=bars)


if __name__ == "__main__":
    # Other processes find the functions by the module's name.
    from benchmarks import honesty

    honesty.main()
