"""What the table of signs is held against: every bound was set before anything was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from benchmarks.shared.results import Bar
from benchmarks.shared.thefts.reading import AS_MADE, DISGUISED
from benchmarks.shared.thefts.signs.keys import GROUND, HONEST, INNOCENT
from ticketguard.embedding.keyed_signs import SCHEME

Record: TypeAlias = dict[str, Any]

# log10 of 2^-64, which a verdict of "supported" needs.
LEVEL = -19.3
# What a permuted and rescaled copy must leave of log10 p, as long as no more than half of the edges were pruned.
TWINS, TWIN_SHARE = ("untouched", "pruned 50%", "pruned 50%, 2 epochs"), 0.6
FAR_PRUNED, FAR_PRUNED_LOG10_P = "pruned 80%", -60.0
METHOD_LOG10_P = -200.0
# Points of accuracy: what two searches may differ by, in standard errors and at most; and a useful copy may lose.
STANDARD_ERRORS, LARGEST_ERROR, WORTH = 2.0, 0.15, 2.0
KEYS = 100_000


def bars_of(tables: Mapping[str, Record]) -> dict[str, Bar]:
    """Return the bars of all that was made."""
    bars: dict[str, Bar] = {}
    for setting, table in tables.items():
        parts = (_twins(table["rows"]), _adaptive(table["rows"]), _methods(table["methods"]))
        for part in (*parts, _fidelity(table["fidelity"]), _keys(table["wrong_keys"])):
            bars |= {f"{setting}: {name}": bar for name, bar in part}
    return bars


def _twins(rows: Mapping[str, Record]) -> Iterator[tuple[str, Bar]]:
    for row in TWINS:
        if row in rows:
            shares = [
                _of(record, DISGUISED) / min(-1e-9, _of(record, AS_MADE)) for record in rows[row]["by_seed"].values()
            ]
            bar = Bar(value=min(shares), bound=TWIN_SHARE, at_most=False)
            yield f"{row}, permuted: share of the signs' log10 p as made, least seed", bar
    if FAR_PRUNED in rows:
        worst = max(_of(record, DISGUISED) for record in rows[FAR_PRUNED]["by_seed"].values())
        bar = Bar(value=worst, bound=FAR_PRUNED_LOG10_P, at_most=True)
        yield f"{FAR_PRUNED}, permuted: the signs' log10 p, weakest seed", bar


def _of(record: Record, manner: str, mark: str = SCHEME) -> float:
    return float(record[manner]["marks"].get(mark, {"log10_p": 0.0})["log10_p"])


def _adaptive(rows: Mapping[str, Record]) -> Iterator[tuple[str, Bar]]:
    """Hold the verdict on every adaptive copy that is worth stealing, in its weaker manner."""
    for row, told in rows.items():
        if told["adaptive"]:
            worth = [one for one in told["by_seed"].values() if one["points lost"] <= WORTH]
            if worth:
                weakest = max(one[manner]["log10_p"] for one in worth for manner in (AS_MADE, DISGUISED))
                yield f"{row}: verdict's log10 p, weakest", Bar(value=weakest, bound=LEVEL, at_most=True)


def _methods(methods: Mapping[str, Record]) -> Iterator[tuple[str, Bar]]:
    for name, told in methods.items():
        for row, bound in (("untouched", METHOD_LOG10_P), ("pruned 90%", LEVEL)):
            weakest = max(one[row]["log10_p"] for one in told["by_seed"].values())
            yield f"{name}, {row}: log10 p, weakest seed", Bar(value=weakest, bound=bound, at_most=True)


def _fidelity(told: Record) -> Iterator[tuple[str, Bar]]:
    if "standard_error" in told:
        error = told["standard_error"]
        distance = Bar(value=abs(told["mean"]) / max(error, 1e-9), bound=STANDARD_ERRORS, at_most=True)
        yield "accuracy with ordinary less with keyed signs, in standard errors", distance
        yield "standard error of that, points", Bar(value=error, bound=LARGEST_ERROR, at_most=True)


def _keys(stands: Mapping[str, Mapping[str, Record]]) -> Iterator[tuple[str, Bar]]:
    rows = [row for suspects in stands.values() for row in suspects.values()]
    if not rows:
        return
    yield "wrong keys for each suspect", Bar(value=min(row["keys"] for row in rows), bound=KEYS, at_most=False)
    never = sum(row["keys at 10^-6 or below"] for row in rows)
    yield "wrong keys at 10^-6 or below", Bar(value=never, bound=0, at_most=True)
    exceeded = sum(row["least chance"] < row["limit"] for row in rows)
    yield "suspects with P(p <= a) > a", Bar(value=exceeded, bound=0, at_most=True)
    otherwise = sum(row["whole examinations that say otherwise"] for row in rows)
    yield "keys of which the whole examination says otherwise", Bar(value=otherwise, bound=0, at_most=True)
    for stand, suspects in stands.items():
        row = suspects[INNOCENT]
        if row["ground"] >= GROUND:
            of = "" if stand == HONEST else f", {stand}"
            bound = math.log10(1 / GROUND / 10)
            bar = Bar(value=row["smallest corrected log10 p of the first 2^16"], bound=bound, at_most=False)
            yield f"2^16 ground secrets{of}: least log10 p", bar
