"""Honesty: 100 000 wrong keys on a marked and on an unmarked ticket, through the draws and readings of `verify`."""

from __future__ import annotations

import argparse
import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import SETTING, Pair, pair
from ticketguard.credentials.canonical import canonical_json
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import secret_edges
from ticketguard.keyed import commit
from ticketguard.ticket import Mask, Ticket
from ticketguard.verification.readings import READINGS, read_layer
from ticketguard.verification.statistics import LayerCount, log10_upper_tail

LEVELS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
SECRET_PPM = 10_000


def read_masks(ticket: Ticket, reference: Mask) -> dict[str, npt.NDArray[np.bool_]]:
    """Return per layer every reading's whole mask, shape (positions, readings)."""
    masks = {}
    for name in reference:
        _, kept = read_layer(ticket.weights[name], edges=int(reference[name].sum()))
        masks[name] = np.column_stack([kept >> bit & 1 > 0 for bit in range(len(READINGS))])
    return masks


def hits_of_keys(first: int, count: int, tickets: Pair) -> npt.NDArray[np.int64]:
    """Return the hits of *count* wrong keys, shape (count, readings of the marked and of the unmarked ticket)."""
    reference = tickets.unmarked.reference()
    digest = reference.digest()
    marked, unmarked = (read_masks(ticket, reference.mask) for ticket in (tickets.marked, tickets.unmarked))
    masks = {name: np.concatenate([marked[name], unmarked[name]], axis=1) for name in reference.mask}
    shapes = {name: reference.mask[name].shape for name in reference.mask}
    hits = np.zeros((count, 2 * len(READINGS)), dtype=np.int64)
    for row in range(count):
        secret = hashlib.sha256(b"wrong key" + (first + row).to_bytes(8, "little")).digest()
        commitment = commit(
            secret=secret,
            owner_public_key=tickets.credential.claim.owner_public_key,
            reference_digest=digest,
            scheme="planted-graph",
            version=1,
            level_bits=64,
            parameters=canonical_json(dict(tickets.credential.mark("planted-graph").parameters)),
        )
        drawn = secret_edges(Binding(secret=secret, commitment=commitment), shapes, secret_ppm=SECRET_PPM)
        hits[row] = sum(masks[name][drawn[name]].sum(axis=0) for name in shapes)
    return hits


def p_values(hits: npt.NDArray[np.int64], ticket: Ticket, reference: Mask) -> npt.NDArray[np.float64]:
    """Return log10 p for every key and reading, uncorrected, shape (keys, readings)."""
    masks = read_masks(ticket, reference)
    columns = []
    for reading in range(len(READINGS)):
        layers = [
            LayerCount(
                size=len(masks[name]),
                kept=int(masks[name][:, reading].sum()),
                secret=(len(masks[name]) * SECRET_PPM + 500_000) // 1_000_000,
                hits=0,
            )
            for name in reference
        ]
        values, inverse = np.unique(hits[:, reading], return_inverse=True)
        columns.append(np.array([log10_upper_tail(layers, int(value)) for value in values])[inverse])
    return np.column_stack(columns)


def excess(log10_p: npt.NDArray[np.float64]) -> float:
    """Return the largest excess of P(p ≤ a) over a, over the levels a, in standard errors."""
    keys = len(log10_p)
    return max(
        float(np.count_nonzero(log10_p <= math.log10(level)) - keys * level) / math.sqrt(keys * level * (1 - level))
        for level in LEVELS
    )


def main() -> None:
    """Measure and write results/honesty.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    keys = parser.parse_args().keys
    tickets = pair(0)
    chunk = 500
    parts = Parallel(n_jobs=2)(
        delayed(hits_of_keys)(first, min(chunk, keys - first), tickets) for first in range(0, keys, chunk)
    )
    hits = np.concatenate(list(parts))
    raw: dict[str, Any] = {}
    bars: dict[str, Bar] = {}
    for index, (name, ticket) in enumerate((("marked", tickets.marked), ("unmarked", tickets.unmarked))):
        own = hits[:, index * len(READINGS) : (index + 1) * len(READINGS)]
        log10_p = p_values(own, ticket, tickets.unmarked.mask)
        corrected = np.minimum(0.0, log10_p.min(axis=1) + math.log10(len(READINGS)))
        as_stored = log10_p[:, 0]
        raw[name] = {
            "keys": keys,
            "smallest corrected log10 p": float(corrected.min()),
            "share of keys with p at most a, weights that are not zero": {
                str(level): float(np.mean(as_stored <= math.log10(level))) for level in LEVELS
            },
            "share of keys with corrected p at most a": {
                str(level): float(np.mean(corrected <= math.log10(level))) for level in LEVELS
            },
            "largest excess in standard errors": excess(as_stored),
            "the same if every p were half as large": excess(as_stored - math.log10(2.0)),
        }
        bars[f"wrong keys at 10^-6 or below, {name}"] = Bar(value=int(np.sum(corrected <= -6.0)), bound=0, at_most=True)
        bars[f"largest excess of P(p <= a) over a in standard errors, {name}"] = Bar(
            value=excess(as_stored), bound=4.0, at_most=True
        )
        bars[f"the test sees p-values that are half too small, {name}"] = Bar(
            value=excess(as_stored - math.log10(2.0)), bound=4.0, at_most=False
        )
    write_result("honesty", setting={**SETTING, "keys": keys}, seeds=[0], raw=raw, bars=bars)


if __name__ == "__main__":
    main()
