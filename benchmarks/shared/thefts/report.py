"""Read every suspect in a folder, and write the table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from benchmarks.shared.fleet import accuracy_of
from benchmarks.shared.results import write_result
from benchmarks.shared.thefts.bars import bars_of
from benchmarks.shared.thefts.making import SHARE, SMALL_SHARE, Order, judged
from benchmarks.shared.thefts.reading import AS_MADE, DISGUISED, Owned, data_of, read, reader_version
from benchmarks.shared.thefts.settings import HEADLINES, Setting
from benchmarks.shared.thefts.storing import Shelf
from benchmarks.shared.thefts.suspects import MANNERS, exact_suspects, innocent_suspects, stolen_suspects
from benchmarks.shared.thefts.table import judged_row, scratch_accuracy, summary, told_row
from benchmarks.shared.thefts.tickets import Bench, check

Record: TypeAlias = dict[str, Any]
Rows: TypeAlias = Iterator[tuple[str, Record]]

# Held against each credential: the tickets of so many other seeds.
INNOCENT_SEEDS = 1
HOW_MADE = (
    "the perceptron's suspects on an accelerator, without graphs of steps and kept in half precision; the residual "
    "network's tickets there too, and its thefts on a processor, as many as there was time for: each row tells its "
    "seeds. What is missing is made by 'python -m benchmarks.survival --make FOLDER --device cuda --no-candidates', "
    "which goes on where it ended"
)


def write(folder: Path, seeds: Sequence[int]) -> None:
    """Read what was made, and write the result file."""
    torch.set_num_threads(1)
    tables: dict[str, Record] = {}
    for setting in HEADLINES:
        data = data_of(setting, folder)
        benches = [Bench(setting=setting, seed=seed, data=data, folder=folder) for seed in seeds]
        tables[setting.name] = {
            "check_ticket": _checked(folder, setting, seeds),
            "costs": _costs(folder, setting, seeds),
            "from_scratch": _from_scratch(folder, setting, seeds),
            "rows": _table(benches, "marked", _stolen),
            "small_mark": _table(benches, "small", _stolen),
            "exact": _table(benches, "marked", functools.partial(_exact, seeds=seeds)),
            "innocent": _table(benches, "marked", functools.partial(_innocent, seeds=seeds)),
        }
    write_result(
        "survival",
        setting={
            "tickets": [setting.to_json() for setting in HEADLINES],
            "share": SHARE,
            "small_share": SMALL_SHARE,
            "how_made": HOW_MADE,
            "read_by": reader_version(),
        },
        seeds=seeds,
        raw=tables,
        bars=bars_of(tables),
    )


def write_check(order: Order) -> None:
    """Write whether the tickets of an order win, once the arms of all their seeds are there."""
    wanted = [setting for setting in HEADLINES if order.wants(setting)]
    told = {setting.name: _checked(order.folder, setting, order.seeds) for setting in wanted}
    write_result(
        "survival_check",
        setting={"tickets": [setting.to_json() for setting in wanted], "device": order.device},
        seeds=order.seeds,
        raw=told,
        bars={},
    )


def _table(benches: Sequence[Bench], mark: str, rows: Callable[[Owned], Rows]) -> dict[str, Record]:
    """Gather each row's seeds; of seeds that have no such mark yet there are none."""
    found: dict[str, dict[int, Record]] = {}
    for bench in benches:
        owned = Owned(bench=bench, mark=mark)
        if owned.is_marked:
            for row, record in rows(owned):
                found.setdefault(row, {})[bench.seed] = record
                print(bench.setting.name, bench.seed, row, record, flush=True)
    return {row: told_row(by_seed) for row, by_seed in found.items()}


def _checked(folder: Path, setting: Setting, seeds: Sequence[int]) -> Record:
    """Judge the tickets of all seeds together, by the rule of `ticketguard check-ticket`."""
    arms = judged(folder, setting, seeds)
    if arms is None or len(seeds) == 1:
        return {"verdict": "not made"}
    return {
        "verdict": check(arms, setting)[0],
        "judged": f"{len(seeds)} tickets together, one run an arm each, by the rule for the runs of one ticket",
        "means": {name: round(100 * sum(values) / len(values), 2) for name, values in arms.items()},
        "arms": arms,
    }


def _from_scratch(folder: Path, setting: Setting, seeds: Sequence[int]) -> dict[str, Record]:
    """Return the accuracies of what was trained from scratch, by seed."""
    found: dict[str, Record] = {}
    for seed in seeds:
        shelf = Shelf(folder=folder / setting.name / str(seed))
        for path in sorted(shelf.folder.glob("scratch, *.json")):
            found.setdefault(path.stem, {})[str(seed)] = shelf.told(path.stem)["accuracy"]
    return found


def _costs(folder: Path, setting: Setting, seeds: Sequence[int]) -> dict[str, Record]:
    """Return the points of accuracy that marks cost: the unmarked ticket's less the marked one's, over seeds."""
    found: dict[str, Record] = {}
    for name, row in {"mark": "untouched", "small mark": "small mark, untouched"}.items():
        shelves = [Shelf(folder=folder / setting.name / str(seed)) for seed in seeds]
        points = [
            100 * (shelf.told("unmarked")["accuracy"] - shelf.told(row)["accuracy"])
            for shelf in shelves
            if shelf.has("unmarked") and shelf.has(row)
        ]
        if points:
            found[name] = {**summary(points), "by_seed": [round(value, 2) for value in points]}
    return found


def _stolen(owned: Owned) -> Rows:
    stolen = owned.shelf.told("small mark, untouched" if owned.mark == "small" else "untouched")["accuracy"]
    for row, make in stolen_suspects(owned):
        if not owned.shelf.has(row):
            network = owned.bench.network(make())
            owned.shelf.tell(row, accuracy=accuracy_of(network, owned.bench.data), steps=0, epochs=0)
        told = owned.shelf.told(row)
        hidden = functools.partial(_disguised, owned, row, make)
        record = {
            **{key: value for key, value in told.items() if key == "accuracy" or key.startswith("auc")},
            AS_MADE: read(owned, AS_MADE, row, make),
            DISGUISED: read(owned, DISGUISED, row, hidden),
        }
        scratch = scratch_accuracy(owned.shelf, row, ticket_epochs=owned.setting.training.epochs)
        yield row, judged_row(record, stolen=stolen, scratch=scratch)


def _disguised(owned: Owned, row: str, make: Callable[[], Record]) -> Record:
    return owned.disguised(row, make())


def _exact(owned: Owned, seeds: Sequence[int]) -> Rows:
    found: dict[str, Record] = {}
    other = functools.cache(functools.partial(owned.of_seed(_others(owned, seeds)[0]).suspect, "unmarked"))
    for manner in MANNERS:
        for row, make in exact_suspects(owned, other, manner):
            found.setdefault(row, {})[manner] = read(owned, f"exact, {manner}", row, make)
    yield from found.items()


def _innocent(owned: Owned, seeds: Sequence[int]) -> Rows:
    others = {
        seed: functools.partial(owned.of_seed(seed).suspect, "unmarked")
        for seed in _others(owned, seeds)[:INNOCENT_SEEDS]
    }
    for row, make in innocent_suspects(owned, others):
        yield row, {AS_MADE: read(owned, "innocent", row, make)}


def _others(owned: Owned, seeds: Sequence[int]) -> list[int]:
    """Return the other seeds, the next one first."""
    place = list(seeds).index(owned.bench.seed)
    return [*seeds[place + 1 :], *seeds[:place]]
