"""Make all suspects of one seed: find, check, mark, steal; what is there already is not made again."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.shared.fleet import DeviceData, Fleet, Outcome, Run, Task
from benchmarks.shared.thefts.adaptive import adaptive
from benchmarks.shared.thefts.rows import OVERWRITTEN, Theft, rows
from benchmarks.shared.thefts.settings import CANDIDATES, HEADLINES, Images, Setting
from benchmarks.shared.thefts.storing import Shelf
from benchmarks.shared.thefts.tickets import CONTROLS, Bench, Marked, arm, check, embed, find, owner_of
from ticketguard.evaluation.arms import DENSE, TICKET
from ticketguard.ticket import Ticket

SHARE, SMALL_SHARE = 0.05, 0.02
# How often one seed looks whether the others have judged the candidates, in seconds.
LOOK = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be made.

    Attributes:
        folder: Where everything is kept.
        device: "cpu" or "cuda".
        seeds: All seeds of the table.
        minutes: Time that making may take.
        width: Trainings side by side in a process.
        scale: Factor of all epochs, below one for a trial.
        limit: Training images at most, for a trial; None for the settings' own.
        candidates: Whether to look for a residual ticket that wins.
        settings: Names of the only settings to make; None for all.
        rows: Names of the only tasks to make, the first ones first; None for all, in the order of `rows`.
        check_only: Find tickets and train the arms of their check, and nothing else.
    """

    folder: Path
    device: str
    seeds: tuple[int, ...]
    minutes: float
    width: int
    scale: float = 1.0
    limit: int | None = None
    candidates: bool = True
    settings: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None
    check_only: bool = False

    def wants(self, setting: Setting) -> bool:
        """Say whether anything of a setting is to be made."""
        return self.settings is None or setting.name in self.settings


class Maker:
    """All tasks of one seed, on one fleet."""

    def __init__(self, order: Order, seed: int, *, deadline: float) -> None:
        self._order, self._seed, self._deadline = order, seed, deadline
        self._data: dict[Images, DeviceData] = {}
        self._fleet = Fleet(width=order.width, deadline=deadline)

    def run(self) -> list[str]:
        """Make what is missing, within the time; return the names of what was not made."""
        for place, setting in enumerate(HEADLINES):
            if self._order.wants(setting):
                self._fleet.add(setting.name, self._headline(setting), priority=-len(HEADLINES) + place)
        if self._order.candidates:
            for place, setting in enumerate(CANDIDATES):
                self._fleet.add(setting.name, self._candidate(setting), priority=14 + place)
        lost = self._fleet.run()
        if self._order.candidates and (winner := self._winner()) is not None:
            self._fleet.add(winner.name, self._headline(winner, but=OVERWRITTEN), priority=0)
            lost += self._fleet.run()
        return lost

    def report(self) -> dict[str, object]:
        """Return steps and seconds of this process's own work between steps, by task, the longest first."""
        spent = sorted(self._fleet.seconds.items(), key=lambda item: -item[1])
        return {"seed": self._seed, "steps": self._fleet.steps, "seconds": {name: round(s, 2) for name, s in spent}}

    def _bench(self, setting: Setting) -> Bench:
        if setting.images not in self._data:
            loaded = setting.images.load(self._order.folder, limit=self._order.limit)
            self._data[setting.images] = DeviceData(loaded, torch.device(self._order.device))
        return Bench(
            setting=setting,
            seed=self._seed,
            data=self._data[setting.images],
            folder=self._order.folder,
            scale=self._order.scale,
        )

    def _shelf(self, setting: Setting, seed: int | None = None) -> Shelf:
        return Shelf(folder=self._order.folder / setting.name / str(self._seed if seed is None else seed))

    def _found(self, bench: Bench) -> Generator[Run, Outcome, Ticket]:
        """Find the unmarked ticket, or read it, and queue the arms of its check."""
        shelf, path = self._shelf(bench.setting), self._work(bench.setting) / "unmarked.ticket"
        if path.exists():
            ticket = Ticket.load(path, trust_code=True)
        else:
            ticket = yield from find(bench)
            ticket.save(path)
            shelf.keep("unmarked", ticket.weights, exact=True, accuracy=ticket.info.accuracy,
                       history=ticket.info.history)  # fmt: skip
        return ticket

    def _arms(self, bench: Bench, ticket: Ticket, *, priority: int) -> None:
        for name in (DENSE, *CONTROLS):
            self._once(bench.setting, f"arm {name}", self._arm(bench, ticket, name), priority=priority)

    def _arm(self, bench: Bench, ticket: Ticket, name: str) -> Task:
        accuracy = yield from arm(bench, ticket, name)
        self._shelf(bench.setting).tell(f"arm {name}", accuracy=accuracy)

    def _candidate(self, setting: Setting) -> Task:
        bench = self._bench(setting)
        ticket = yield from self._found(bench)
        self._arms(bench, ticket, priority=14)

    def _headline(self, setting: Setting, *, but: str | None = None) -> Task:
        bench = self._bench(setting)
        ticket = yield from self._found(bench)
        self._arms(bench, ticket, priority=12)
        if self._order.check_only:
            return
        self._once(setting, "small mark", self._small(bench, ticket), priority=12)
        marked = yield from self._marked(bench, ticket, SHARE, "marked")
        theft = Theft(bench=bench, stolen=marked.ticket, shelf=self._shelf(setting))
        for name, priority, row in rows(theft):
            if name != but:
                self._once(setting, name, row(theft), priority=priority)
        learning = adaptive(theft, share=SHARE, planted=marked.planted, name="suspicious half replaced, 2 epochs")
        self._once(setting, "adaptive", learning, priority=13)

    def _small(self, bench: Bench, ticket: Ticket) -> Task:
        marked = yield from self._marked(bench, ticket, SMALL_SHARE, "small")
        shelf = self._shelf(bench.setting)
        shelf.keep("small mark, untouched", marked.ticket.weights, exact=True, accuracy=marked.ticket.info.accuracy)
        theft = Theft(bench=bench, stolen=marked.ticket, shelf=shelf)
        name = "small mark, suspicious half replaced, 2 epochs"
        learning = adaptive(theft, share=SMALL_SHARE, planted=marked.planted, name=name)
        self._once(bench.setting, "small mark, adaptive", learning, priority=13)

    def _marked(self, bench: Bench, ticket: Ticket, share: float, name: str) -> Generator[Run, Outcome, Marked]:
        path = self._work(bench.setting) / f"{name}.ticket"
        if path.exists():
            old = Ticket.load(path, trust_code=True)
            return Marked(ticket=old, planted={layer: old.mask[layer] & ~ticket.mask[layer] for layer in old.mask})
        marked = yield from embed(
            bench,
            ticket,
            owner=owner_of(bench.folder, "owner"),
            share=share,
            words=("owner", bench.setting.name, bench.seed, share),
            training=bench.recipe(),
            stream=22,
            keep=self._shelf(bench.setting).folder / f"{name} credential",
        )
        marked.ticket.save(path)
        return marked

    def _work(self, setting: Setting) -> Path:
        folder = self._order.folder / "work" / setting.name / str(self._seed)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _once(self, setting: Setting, name: str, task: Task, *, priority: int) -> None:
        """Queue a task unless it was finished before, or is not wanted."""
        if (wanted := self._order.rows) is not None:
            if name not in wanted:
                return
            priority = wanted.index(name)
        done = self._work(setting) / f"{name}.done"

        def marked_done() -> Task:
            begun = time.monotonic()
            yield from task
            done.write_text(json.dumps({"seconds": round(time.monotonic() - begun, 2)}) + "\n")

        if not done.exists():
            self._fleet.add(f"{setting.name}, {name}", marked_done(), priority=priority)

    def _winner(self) -> Setting | None:
        """Return the first candidate whose tickets win together; processes side by side wait for one another."""
        while self._order.device != "cpu" and time.monotonic() < self._deadline:
            if all(judged(self._order.folder, setting, self._order.seeds) for setting in CANDIDATES):
                break
            time.sleep(LOOK)
        for setting in CANDIDATES:
            arms = judged(self._order.folder, setting, self._order.seeds)
            if arms and len(self._order.seeds) > 1 and check(arms, setting)[0] == "winning":
                return setting
        return None


def judged(folder: Path, setting: Setting, seeds: Sequence[int]) -> Mapping[str, list[float]] | None:
    """Return the accuracies of all arms, one a seed; None as long as one is missing."""
    arms: dict[str, list[float]] = {}
    for name in (TICKET, DENSE, *CONTROLS):
        row = "unmarked" if name == TICKET else f"arm {name}"
        shelves = [Shelf(folder=folder / setting.name / str(seed)) for seed in seeds]
        if not all(shelf.has(row) for shelf in shelves):
            return None
        arms[name] = [shelf.told(row)["accuracy"] for shelf in shelves]
    return arms
