"""Keyed signs: what is read after thefts that are after them, what they cost, and how honest they are.

In stages, each one process, each going on where it was interrupted:

``python -m benchmarks.signs --make FOLDER`` finds tickets whose start carries keyed signs and steals them. Its
``--parts`` are *thefts* (a planted graph beside the signs), *methods* (other searches and the dense network, from the
same start, for the perceptron), *fidelity* (accuracy with ordinary and with keyed signs) and *long* (dense networks,
``--long-epochs``).

``python -m benchmarks.signs --count FOLDER`` holds ``--keys`` wrong keys against suspects of the first seed, and
against an innocent network by a start that was forged from its weights.

``python -m benchmarks.signs --read FOLDER`` verifies what was made so far, as made and permuted and rescaled too, and
writes ``results/signs.json``. Of a folder that was made with another ``--scale`` or a ``--limit``, it writes
``results/signs_trial.json``.

What wants an accelerator, for CIFAR-10's archives in $CIFAR10 and weight decays of 1e-4 and 5e-4:

``python -m benchmarks.signs --make FOLDER --parts long --long-images cifar-10 --long-epochs 160 --seeds 0 1 2``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.shared.thefts.settings import HEADLINES
from benchmarks.shared.thefts.signs.bars import KEYS
from benchmarks.shared.thefts.signs.long import LONG_SETTINGS
from benchmarks.shared.thefts.signs.making import PARTS, Making, make
from benchmarks.shared.thefts.signs.report import count, write
from benchmarks.shared.thefts.signs.rows import sign_rows

SEEDS = (0, 1, 2, 3, 4)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    stages = parser.add_mutually_exclusive_group(required=True)
    stages.add_argument("--make", type=Path, metavar="FOLDER", help="find, steal and train into FOLDER")
    stages.add_argument("--count", type=Path, metavar="FOLDER", help="count wrong keys on what lies in FOLDER")
    stages.add_argument("--read", type=Path, metavar="FOLDER", help="verify what lies in FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--settings", nargs="+", choices=[setting.name for setting in HEADLINES], help="only these")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="what to make")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="make only these thefts, the first ones first")
    parser.add_argument("--minutes", type=float, default=7 * 24 * 60.0, help="after which nothing more is begun")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all epochs, for a trial")
    parser.add_argument("--limit", type=int, help="training images at most, for a trial")
    parser.add_argument("--long-epochs", type=float, default=40.0)
    parser.add_argument("--long-images", default="fashion-mnist", choices=tuple(LONG_SETTINGS))
    parser.add_argument("--keys", type=int, default=KEYS, help="wrong keys for each suspect")
    return parser


def main() -> None:
    """Make suspects, count keys, or read and write the result."""
    parser = _parser()
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = tuple(one for one in HEADLINES if given.settings is None or one.name in given.settings)
    names = {row.name for setting in settings for row in sign_rows(setting.model)}
    if unknown := set(given.rows or ()) - names:
        parser.error(f"unknown rows {sorted(unknown)}, expected some of {sorted(names)}")
    if given.read is not None:
        write(given.read, tuple(given.seeds), settings)
    elif given.count is not None:
        count(given.count, tuple(given.seeds), settings, given.keys)
    else:
        lost = make(
            Making(
                folder=given.make,
                device="cuda" if torch.cuda.is_available() else "cpu",
                seeds=tuple(given.seeds),
                minutes=given.minutes,
                scale=given.scale,
                limit=given.limit,
                settings=None if given.settings is None else tuple(given.settings),
                parts=tuple(given.parts),
                rows=None if given.rows is None else tuple(given.rows),
                long_epochs=given.long_epochs,
                long_images=given.long_images,
            )
        )
        print("not made:", lost, flush=True)


if __name__ == "__main__":
    main()
