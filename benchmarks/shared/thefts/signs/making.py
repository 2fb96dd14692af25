"""Make all that `benchmarks.signs` reads, one job after the other; what is there already is not made again."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

import ticketguard as tg
from benchmarks.shared.fleet import DeviceData, Fleet
from benchmarks.shared.thefts.reading import Owned
from benchmarks.shared.thefts.rows import Theft
from benchmarks.shared.thefts.settings import HEADLINES, Setting
from benchmarks.shared.thefts.signs.long import DECAYS, LONG_SETTINGS, name_of, train_long
from benchmarks.shared.thefts.signs.rows import SignRow, sign_rows
from benchmarks.shared.thefts.signs.tickets import (
    MARKED,
    METHODS,
    PARENT,
    WEIGHT_MARKS,
    find_ordinary,
    find_signed,
    own_method,
    train_parent,
    work_of,
)
from benchmarks.shared.thefts.tickets import Bench, make_keys
from ticketguard.files import write_whole

PARTS = ("thefts", "methods", "fidelity", "long")
# Accuracy is compared over more seeds where a ticket takes a minute: the seeds that were asked for, and as many others.
MORE_SEEDS = {"mlp": (0, 5), "resnet20": (0,)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
    """What is to be made.

    Attributes:
        folder: Where everything is kept.
        device: Of the thefts' trainings, "cpu" or "cuda"; others take an accelerator where there is one.
        seeds: All seeds of the table.
        minutes: After which nothing more is begun.
        scale: Factor of all epochs, below one for a trial.
        limit: Training images at most, for a trial; None for the settings' own.
        settings: Names of the only settings to make; None for all.
        parts: Of `PARTS`, the ones to make.
        rows: Names of the only thefts to make, the first ones first; None for all.
        long_epochs: Epochs of the long trainings.
        long_images: What they are trained on, of `LONG_SETTINGS`.
    """

    folder: Path
    device: str
    seeds: tuple[int, ...]
    minutes: float
    scale: float = 1.0
    limit: int | None = None
    settings: tuple[str, ...] | None = None
    parts: tuple[str, ...] = PARTS
    rows: tuple[str, ...] | None = None
    long_epochs: float = 40.0
    long_images: str = "fashion-mnist"

    @property
    def wanted(self) -> tuple[Setting, ...]:
        """The settings to make."""
        return tuple(one for one in HEADLINES if self.settings is None or one.name in self.settings)

    def require_same_scale(self) -> None:
        """Keep what suspects depend on beside the code, so that a trial is never taken for more.

        Raises:
            SystemExit: The folder holds what was made otherwise.
        """
        path, mine = self.folder / "made_with.json", {"scale": self.scale, "limit": self.limit}
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, (json.dumps(mine) + "\n").encode())
        if (other := json.loads(path.read_text())) != mine:
            raise SystemExit(f"{self.folder} was made with {other}, not {mine}: name another folder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Something to make once.

    Attributes:
        bench: What it is made for.
        name: Says that it is done, in a file of its bench.
        act: Makes it.
    """

    bench: Bench
    name: str
    act: Callable[[], None]

    @property
    def done(self) -> Path:
        """The file that says so."""
        return work_of(self.bench) / f"{self.name}.done"

    def run(self) -> bool:
        """Make it if it is missing; return whether it is there now."""
        if self.done.exists():
            return True
        begun = time.monotonic()
        try:
            self.act()
        except Exception:  # whatever one job raises, the others are made
            traceback.print_exc()
            return False
        seconds = round(time.monotonic() - begun, 2)
        self.done.write_text(json.dumps({"seconds": seconds}) + "\n")
        print(self.bench.setting.name, self.bench.seed, self.name, f"{seconds:.0f} s", flush=True)
        return True


def make(making: Making) -> list[str]:
    """Make what is missing within the time, and return the names of what was not made."""
    making.require_same_scale()
    make_keys(making.folder)
    deadline = time.monotonic() + 60 * making.minutes
    lost = []
    for part in making.parts:
        for job in JOBS[part](making):
            if not (time.monotonic() < deadline and job.run()):
                lost.append(f"{job.bench.setting.name} {job.bench.seed}, {job.name}")
    return lost


def _benches(making: Making, setting: Setting, seeds: tuple[int, ...]) -> Iterator[Bench]:
    data = DeviceData(setting.images.load(making.folder, limit=making.limit), torch.device(making.device))
    for seed in seeds:
        yield Bench(setting=setting, seed=seed, data=data, folder=making.folder, scale=making.scale)


def _thefts(making: Making) -> Iterator[Job]:
    for setting in making.wanted:
        for bench in _benches(making, setting, making.seeds):
            yield Job(bench=bench, name=MARKED, act=partial(find_signed, bench, MARKED, marks=WEIGHT_MARKS))
            rows = {row.name: row for row in sign_rows(setting.model)}
            for name in rows if making.rows is None else [name for name in making.rows if name in rows]:
                yield Job(bench=bench, name=name, act=partial(steal, bench, rows[name]))


def steal(bench: Bench, row: SignRow) -> None:
    """Make one suspect of the marked ticket.

    Raises:
        RuntimeError: Its training failed; what failed was printed.
    """
    owned = Owned(bench=bench, mark=MARKED)
    fleet = Fleet(width=1, deadline=math.inf)
    fleet.add(row.name, row.make(Theft(bench=bench, stolen=owned.ticket, shelf=owned.shelf)), priority=0)
    if fleet.run():
        raise RuntimeError(f"{row.name} was not made")


def _signed(bench: Bench, method: str | None = None) -> Job:
    name = f"method {method or own_method(bench.setting)}"
    return Job(bench=bench, name=name, act=partial(find_signed, bench, name, marks=[tg.KeyedSigns()], method=method))


def _methods(making: Making) -> Iterator[Job]:
    for setting in making.wanted:
        if setting.model == "mlp":
            for bench in _benches(making, setting, making.seeds):
                own = _signed(bench)
                yield own
                yield Job(bench=bench, name=PARENT, act=partial(train_parent, bench, own.name))
                for method in METHODS:
                    yield _signed(bench, method)


def fidelity_seeds(setting: Setting, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds over which a setting's accuracies are compared."""
    return tuple(sorted({seed + more for more in MORE_SEEDS[setting.name] for seed in seeds}))


def _fidelity(making: Making) -> Iterator[Job]:
    for setting in making.wanted:
        for bench in _benches(making, setting, fidelity_seeds(setting, making.seeds)):
            yield _signed(bench)
            yield Job(bench=bench, name="ordinary", act=partial(find_ordinary, bench))


def _long(making: Making) -> Iterator[Job]:
    setting = LONG_SETTINGS[making.long_images]
    if making.settings is None or setting.name in making.settings:
        for bench in _benches(making, setting, making.seeds):
            for decay in DECAYS:
                name = name_of(making.long_epochs, decay)
                yield Job(bench=bench, name=name, act=partial(train_long, bench, making.long_epochs, decay))


JOBS: dict[str, Callable[[Making], Iterator[Job]]] = {
    "thefts": _thefts,
    "methods": _methods,
    "fidelity": _fidelity,
    "long": _long,
}
