"""Read everything in a folder, and write the table of signs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from benchmarks.shared.results import FOLDER, write_result
from benchmarks.shared.searches import paired
from benchmarks.shared.thefts import masks
from benchmarks.shared.thefts.reading import AS_MADE, DISGUISED, Owned, State, data_of, reader_version
from benchmarks.shared.thefts.settings import HEADLINES, Setting
from benchmarks.shared.thefts.signs.bars import bars_of
from benchmarks.shared.thefts.signs.keys import FAMILY_LEVEL, FORGED, HONEST, count_keys, folder_of, gathered, stands_of
from benchmarks.shared.thefts.signs.long import ON_CIFAR_10
from benchmarks.shared.thefts.signs.making import fidelity_seeds
from benchmarks.shared.thefts.signs.reading import PARTS_OF_EDGES, kept_signs, read_marks
from benchmarks.shared.thefts.signs.rows import OWN, PRUNED_MOST, SHORT, UNTOUCHED, SignRow, sign_rows
from benchmarks.shared.thefts.signs.tickets import MARKED, METHODS, PARENT, own_method
from benchmarks.shared.thefts.storing import Shelf
from benchmarks.shared.thefts.table import summary
from benchmarks.shared.thefts.tickets import Bench

Record: TypeAlias = dict[str, Any]

# What `benchmarks.survival` calls the networks that were trained from scratch at a budget.
SCRATCH = {
    SHORT: ("scratch, dense, 2 epochs", "scratch, random mask, 2 epochs"),
    OWN: ("scratch, dense, 5 epochs", "scratch, dense, 8 epochs", "scratch, random mask, a ticket's budget"),
}
VERDICT = "verdict"


def count(folder: Path, seeds: Sequence[int], settings: Sequence[Setting], keys: int) -> None:
    """Count wrong keys against the suspects of the first seed.

    Raises:
        SystemExit: There is no other seed's ticket.
    """
    torch.set_num_threads(1)
    if len(seeds) < 2:
        raise SystemExit("an innocent ticket is that of another seed: name two")
    for setting in settings:
        owned, other = (Owned(bench=bench, mark=MARKED) for bench in _benches(folder, setting, seeds[:2]))
        for stand in stands_of(owned, other):
            count_keys(stand, folder_of(owned, stand.name), keys)


def write(folder: Path, seeds: Sequence[int], settings: Sequence[Setting]) -> None:
    """Read what was made, and write the result file; of a trial, another one."""
    torch.set_num_threads(1)
    made_with = json.loads((folder / "made_with.json").read_text())
    tables = {setting.name: _table(folder, setting, seeds) for setting in settings if (folder / setting.name).exists()}
    if (folder / ON_CIFAR_10.name).exists():
        tables[ON_CIFAR_10.name] = {**_nothing(), "long": _long(_benches(folder, ON_CIFAR_10, seeds))}
    write_result(
        "signs" if made_with == {"scale": 1.0, "limit": None} else "signs_trial",
        setting={
            "tickets": [setting.to_json() for setting in HEADLINES],
            "marks": "planted graph and keyed signs, defaults, without the larger weights before norms",
            "methods": {name: dict(options) for name, options in METHODS.items()},
            "scratch": "accuracies of results/survival.json",
            "read_by": reader_version(),
            **made_with,
        },
        seeds=seeds,
        raw=tables,
        bars=bars_of(tables),
    )


def _benches(folder: Path, setting: Setting, seeds: Sequence[int]) -> list[Bench]:
    data = data_of(setting, folder)
    return [Bench(setting=setting, seed=seed, data=data, folder=folder) for seed in seeds]


def _nothing() -> Record:
    return {"rows": {}, "methods": {}, "fidelity": {}, "wrong_keys": {}, "long": {}}


def _table(folder: Path, setting: Setting, seeds: Sequence[int]) -> Record:
    benches = _benches(folder, setting, seeds)
    return {
        "rows": _rows(benches, setting),
        "methods": _methods(benches, setting) if setting.model == "mlp" else {},
        "fidelity": _accuracies(folder, setting, fidelity_seeds(setting, tuple(seeds))),
        "wrong_keys": _wrong_keys(Owned(bench=benches[0], mark=MARKED)),
        "long": _long(benches),
    }


def _rows(benches: Sequence[Bench], setting: Setting) -> dict[str, Record]:
    found: dict[str, Record] = {}
    scratch = scratch_accuracies(setting.name)
    for row in sign_rows(setting.model):
        by_seed = {}
        for bench in benches:
            owned = Owned(bench=bench, mark=MARKED)
            if owned.is_marked and owned.shelf.has(row.name):
                by_seed[str(bench.seed)] = _stolen(owned, row)
                _say(bench, row.name, by_seed[str(bench.seed)])
        if by_seed:
            beside = None if row.budget is None else scratch.get(row.budget)
            found[row.name] = {"adaptive": row.adaptive, "scratch": beside, **told(by_seed)}
    return found


def _stolen(owned: Owned, row: SignRow) -> Record:
    accuracy = owned.shelf.told(row.name)["accuracy"]
    written = (owned.shelf.folder / f"{row.name}.safetensors").stat().st_mtime
    state = functools.cache(functools.partial(owned.shelf.suspect, row.name))
    return {
        "accuracy": accuracy,
        "points lost": round(100 * (owned.shelf.told(MARKED)["accuracy"] - accuracy), 2),
        "signs kept": kept_signs(owned.credential, state()),
        AS_MADE: read_marks(owned, AS_MADE, row.name, state, since=written),
        DISGUISED: read_marks(owned, DISGUISED, row.name, lambda: owned.disguised(row.name, state()), since=written),
    }


def told(by_seed: Mapping[str, Record]) -> Record:
    """Return a row of the table: what its seeds have in common, and each one's own."""
    records = list(by_seed.values())
    row: Record = {
        "accuracy": _mean([100 * record["accuracy"] for record in records]),
        "points lost": _mean([record["points lost"] for record in records]),
        "signs kept": {
            part: _mean([100 * record["signs kept"][part] for record in records]) for part in PARTS_OF_EDGES
        },
    }
    for manner in (AS_MADE, DISGUISED):
        read = [record[manner] for record in records]
        marks = sorted({mark for one in read for mark in one["marks"]})
        row[manner] = {
            **{mark: summary([one["marks"].get(mark, {"log10_p": 0.0})["log10_p"] for one in read]) for mark in marks},
            VERDICT: summary([one["log10_p"] for one in read]),
            "verdicts": {status: [one["status"] for one in read].count(status) for status in
                         sorted({one["status"] for one in read})},
        }  # fmt: skip
    return {**row, "by_seed": dict(by_seed)}


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 2)


def scratch_accuracies(setting: str) -> dict[str, float]:
    """Return, by budget, the better mean accuracy of what `benchmarks.survival` trained from scratch, in points."""
    path = FOLDER / "survival.json"
    if not path.exists():
        return {}
    known = json.loads(path.read_text())["raw"].get(setting, {}).get("from_scratch", {})
    found = {}
    for budget, names in SCRATCH.items():
        means = [100 * float(np.mean(list(known[name].values()))) for name in names if known.get(name)]
        if means:
            found[budget] = round(max(means), 2)
    return found


def _methods(benches: Sequence[Bench], setting: Setting) -> dict[str, Record]:
    """Read the tickets of all methods, and the dense network, untouched and pruned; the signs alone."""
    found: dict[str, Record] = {}
    own = f"method {own_method(setting)}"
    for name in (own, *(f"method {method}" for method in METHODS), PARENT):
        by_seed = {}
        for bench in benches:
            shelf = Owned(bench=bench).shelf
            owned = Owned(bench=bench, mark=own if name == PARENT else name)
            if shelf.has(name) and owned.is_marked:
                by_seed[str(bench.seed)] = _method(owned, shelf, name)
                _say(bench, name, by_seed[str(bench.seed)])
        if by_seed:
            found[name] = {"by_seed": by_seed, **{
                row: summary([one[row]["log10_p"] for one in by_seed.values()]) for row in (UNTOUCHED, PRUNED_MOST)
            }}  # fmt: skip
    return found


def _method(owned: Owned, shelf: Shelf, name: str) -> Record:
    state: State = shelf.suspect(name) if name == PARENT else dict(owned.ticket.weights)
    edges = masks.edges_of(state, owned.ticket.mask.layers)
    suspects: dict[str, Callable[[], State]] = {
        UNTOUCHED: lambda: state,
        PRUNED_MOST: lambda: dict(masks.pruned(state, edges, 0.9).applied(state)),
    }
    read = {row: read_marks(owned, AS_MADE, f"{name}, {row}", make) for row, make in suspects.items()}
    return {"accuracy": shelf.told(name)["accuracy"], "signs kept": kept_signs(owned.credential, state), **read}


def _accuracies(folder: Path, setting: Setting, seeds: Sequence[int]) -> Record:
    """Return accuracies with ordinary and with keyed signs, and the difference over seeds, in points."""
    names = {"ordinary": "ordinary", "keyed": f"method {own_method(setting)}"}
    shelves = {seed: Shelf(folder=folder / setting.name / str(seed)) for seed in seeds}
    both = [seed for seed, shelf in shelves.items() if all(shelf.has(name) for name in names.values())]
    points = {
        kind: [100 * float(shelves[seed].told(name)["accuracy"]) for seed in both] for kind, name in names.items()
    }
    if len(both) < 2:
        return {}
    return {"seeds": both, **points, **paired(points["ordinary"], points["keyed"])}


def _wrong_keys(owned: Owned) -> dict[str, dict[str, Record]]:
    stands = {stand: gathered(folder_of(owned, stand)) for stand in (HONEST, FORGED)}
    stands = {stand: rows for stand, rows in stands.items() if rows}
    rows = [row for suspects in stands.values() for row in suspects.values()]
    for row in rows:
        row["limit"] = FAMILY_LEVEL / sum(one["comparisons"] for one in rows)
    return stands


def _long(benches: Sequence[Bench]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for bench in benches:
        for name, record in _long_of(bench):
            found.setdefault(name, {})[str(bench.seed)] = record
            _say(bench, name, record)
    return found


def _long_of(bench: Bench) -> Iterator[tuple[str, Record]]:
    shelf = Owned(bench=bench).shelf
    for path in sorted(shelf.folder.glob("long, *.safetensors")):
        name = path.stem
        owned = Owned(bench=bench, mark=name)
        if shelf.has(name) and owned.is_marked:
            record = shelf.told(name)
            read = read_marks(owned, AS_MADE, UNTOUCHED, functools.partial(shelf.suspect, name))
            yield name, {"accuracy": record["accuracy"], "signs kept after epochs": record["kept"], AS_MADE: read}


def _say(bench: Bench, name: str, record: Record) -> None:
    read = {
        manner: {VERDICT: one["log10_p"], **{mark: told["log10_p"] for mark, told in one["marks"].items()}}
        for manner, one in record.items()
        if isinstance(one, dict) and "marks" in one
    }
    print(bench.setting.name, bench.seed, name, f"{record['accuracy']:.4f}", record.get("signs kept"), read, flush=True)
