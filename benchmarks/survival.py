"""What is read after a theft: every row of a table, for two kinds of tickets.

In stages, since training wants an accelerator and reading does not.

``python -m benchmarks.survival --make FOLDER --device cuda`` finds tickets, marks them, and trains every suspect; a
process a seed, each with several trainings side by side. What is there is not made again, and what did not fit into
``--minutes`` is told and made by the next run.

``python -m benchmarks.survival --check FOLDER`` makes only what says whether the tickets win: finds them, trains the
arms of their check, and writes ``results/survival_check.json``.

``python -m benchmarks.survival --read FOLDER`` verifies what was made so far as a user would, as made and permuted and
rescaled too, beside what costs no training and innocent networks, and writes ``results/survival.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import traceback
from pathlib import Path

import torch

from benchmarks.shared.thefts.making import Maker, Order, judged
from benchmarks.shared.thefts.report import write, write_check
from benchmarks.shared.thefts.settings import CANDIDATES, HEADLINES
from benchmarks.shared.thefts.tickets import check, make_keys
from ticketguard.files import write_whole

SEEDS = (0, 1, 2, 3, 4)


def make_seed(order: Order, seed: int, deadline: float) -> dict[str, object]:
    """Make all suspects of one seed, in a process of its own."""
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    try:
        maker = Maker(order, seed, deadline=deadline)
        lost = maker.run()
        told = {**maker.report(), "not made": lost}
    except Exception:  # the other seeds' processes go on
        told = {"seed": seed, "steps": 0, "not made": [traceback.format_exc()]}
    write_whole(order.folder / f"made-{seed}.json", (json.dumps(told, indent=1) + "\n").encode())
    return told


def make(order: Order) -> None:
    """Make the suspects of all seeds, a process each where there is an accelerator."""
    begun = time.monotonic()
    deadline = begun + 60 * order.minutes
    make_keys(order.folder)
    for setting in (*HEADLINES, *(CANDIDATES if order.candidates else ())):
        setting.images.load(order.folder, limit=order.limit)  # kept for the processes, which would all make it
    if order.device == "cpu":
        told = [make_seed(order, seed, deadline) for seed in order.seeds]
    else:
        with multiprocessing.get_context("spawn").Pool(len(order.seeds)) as pool:
            told = pool.starmap(make_seed, [(order, seed, deadline) for seed in order.seeds])
    for row in told:
        print(row["seed"], "steps", row["steps"], "not made:", row["not made"], flush=True)
    for setting in (*HEADLINES, *CANDIDATES):
        if (arms := judged(order.folder, setting, order.seeds)) and len(order.seeds) > 1:
            means = {name: round(100 * sum(values) / len(values), 2) for name, values in arms.items()}
            print(setting.name, check(arms, setting)[0], means, flush=True)
    print(f"{time.monotonic() - begun:.0f} s", flush=True)


def main() -> None:
    """Make suspects, or read them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    stages = parser.add_mutually_exclusive_group(required=True)
    stages.add_argument("--make", type=Path, metavar="FOLDER", help="find, mark and steal into FOLDER")
    stages.add_argument("--check", type=Path, metavar="FOLDER", help="only find tickets and say whether they win")
    stages.add_argument("--read", type=Path, metavar="FOLDER", help="verify what lies in FOLDER")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="after which nothing more is trained")
    parser.add_argument("--width", type=int, default=10, help="trainings side by side in a process")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all epochs, for a trial")
    parser.add_argument("--limit", type=int, help="training images at most, for a trial")
    parser.add_argument("--no-candidates", action="store_true", help="look for no other residual ticket that wins")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="make only these kinds of tickets")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="make only these rows, the first ones first")
    given = parser.parse_args()
    if given.read is not None:
        write(given.read, tuple(given.seeds))
        return
    order = Order(
        folder=given.make or given.check,
        device=given.device,
        seeds=tuple(given.seeds),
        minutes=given.minutes,
        width=given.width,
        scale=given.scale,
        limit=given.limit,
        candidates=given.check is None and not given.no_candidates,
        settings=None if given.settings is None else tuple(given.settings),
        rows=None if given.rows is None else tuple(given.rows),
        check_only=given.check is not None,
    )
    make(order)
    if order.check_only:
        write_check(order)


if __name__ == "__main__":
    main()
