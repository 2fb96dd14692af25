"""What the table is held against: every bound was set before anything was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from benchmarks.shared.results import Bar
from benchmarks.shared.thefts.reading import AS_MADE, DISGUISED
from benchmarks.shared.thefts.table import weakest

Record: TypeAlias = dict[str, Any]

# log10 of 2^-64: what a verdict of "supported" needs.
LEVEL = -19.27
RESIDUAL = "resnet20"
# log10 p of the weakest seed in its weaker manner, by row.
BOUNDS: Mapping[str, Mapping[str, float]] = {
    RESIDUAL: {
        "untouched": -900,
        "pruned 50%": -400,
        "pruned 80%": -150,
        "doubled at random": -120,
        "25% of inner channels removed, 2 epochs": -100,
        "a block removed, 2 epochs": -100,
        "50% rewired, new weights": -40,
    },
    "mlp": {"25% of inner channels removed, 2 epochs": -100},
}
BOUNDS_OF_BOTH = {
    **{f"Torch-Pruning {share}%, 10 000 images": -100.0 for share in (10, 20, 30)},
    "pruned 75%, 80 epochs": LEVEL,
    "overwritten 8 times": LEVEL,
    "suspicious half replaced, 2 epochs": LEVEL,
    "pruned 50%, LoRA merged": LEVEL,
    "soup, 30% stolen, 2 epochs": LEVEL,
}
# An exact transformation must leave this share of what an untouched copy of the same seed shows.
AS_UNTOUCHED, RESIDUAL_CUT, PERCEPTRON_CUT = 0.95, 0.8, -90.0
CUT = "dead channels cut away"
# Points of accuracy, and area under the curve of a classifier that learned from other keys.
SMALL_MARK_COSTS, UNSEEN = 0.15, 0.55


def bars_of(tables: Mapping[str, Record]) -> dict[str, Bar]:
    """Return the bars of all that was made."""
    bars: dict[str, Bar] = {}
    for setting, table in tables.items():
        for name, bar in (*_thefts(setting, table), *_exact(setting, table), *_others(table)):
            bars[f"{setting}: {name}"] = bar
    wins = sum(table["check_ticket"]["verdict"] == "winning" for table in tables.values())
    bars["settings whose tickets win"] = Bar(value=wins, bound=1, at_most=False)
    return bars


def _thefts(setting: str, table: Record) -> Iterator[tuple[str, Bar]]:
    for row, bound in {**BOUNDS.get(setting, {}), **BOUNDS_OF_BOTH}.items():
        if row in table["rows"]:
            yield f"{row}, log10 p", Bar(value=weakest(table["rows"][row]), bound=bound, at_most=True)
    rows = [row for row in table["rows"].values() if "removed" in row]
    if rows:
        yield (
            "thefts that remove the mark and are worth it",
            Bar(value=sum(row["removed"] for row in rows), bound=0, at_most=True),
        )
    if (lost := table["rows"].get("70% rewired, new weights, 80 epochs")) is not None:
        cleared = sum(lost[manner]["verdicts"].get("not_supported", 0) for manner in (AS_MADE, DISGUISED))
        yield "70% rewired, 80 epochs: not supported", Bar(value=cleared, bound=0, at_most=True)
    if (learned := table["rows"].get("suspicious half replaced, 2 epochs")) is not None:
        yield from _aucs("", learned)


def _exact(setting: str, table: Record) -> Iterator[tuple[str, Bar]]:
    if "untouched" not in table["rows"]:
        return
    untouched = table["rows"]["untouched"]["by_seed"]
    for row, told in table["exact"].items():
        if setting == "mlp" and row == CUT:
            yield f"{row}, log10 p", Bar(value=weakest(told), bound=PERCEPTRON_CUT, at_most=True)
            continue
        least = min(
            record[manner]["log10_p"] / untouched[seed][AS_MADE]["log10_p"]
            for seed, record in told["by_seed"].items()
            for manner in (AS_MADE, DISGUISED)
            if manner in record
        )
        yield (
            f"{row}, share of untouched",
            Bar(value=least, bound=RESIDUAL_CUT if row == CUT else AS_UNTOUCHED, at_most=False),
        )


def _others(table: Record) -> Iterator[tuple[str, Bar]]:
    if innocent := table["innocent"]:
        found = sum(row[AS_MADE]["verdicts"].get("supported", 0) for row in innocent.values())
        yield "innocent suspects that are found guilty", Bar(value=found, bound=0, at_most=True)
    small = table["small_mark"]
    if (row := small.get("small mark, pruned 80%")) is not None:
        yield "small mark, pruned 80%, log10 p", Bar(value=weakest(row), bound=LEVEL, at_most=True)
    if (row := small.get("small mark, suspicious half replaced, 2 epochs")) is not None:
        yield from _aucs("small mark, ", row)
    for name in ("mark", "small mark"):
        if (cost := table["costs"].get(name)) is not None:
            yield (
                f"{name}: points of accuracy that it costs",
                Bar(value=cost["mean"], bound=SMALL_MARK_COSTS, at_most=True),
            )


def _aucs(which: str, row: Record) -> Iterator[tuple[str, Bar]]:
    """Hold what a thief's classifier sees of marks of his own, and of the owner's, over keys and seeds."""
    records = list(row["by_seed"].values())
    own = [value for record in records for value in record["auc_leave_one_key_out"]]
    real = [record["auc_of_the_mark"] for record in records]
    for name, values in (("own marks, a key left out", own), ("the owner's mark", real)):
        yield f"{which}AUC of {name}", Bar(value=sum(values) / len(values), bound=UNSEEN, at_most=True)
