"""The tickets that fidelity, strength, stealth and black-box are measured on.

ResNet-20 on Fashion-MNIST pooled to 14x14, 20 000 training images, density 5%; one unmarked and one marked ticket a
seed, both trained from the same rewind weights by the same recipe. They are kept under ``runs/benchmarks`` and made
once: ``python -m benchmarks.tickets [SEED ...]`` makes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ticketguard as tg
from ticketguard.attacks import Removal, Victim
from ticketguard.cli.progress import ProgressBar
from ticketguard.credentials.credential import Credential
from ticketguard.data import Dataset, load_data
from ticketguard.marking.plan import prepare
from ticketguard.models import build_model, load_arrays
from ticketguard.pipeline import embed, find
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig

SEEDS = (0, 1, 2)
FOLDER = Path("runs/benchmarks")
DATA_FOLDER = os.environ.get("TICKETGUARD_FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
DATA_OPTIONS: dict[str, Any] = {"folder": DATA_FOLDER, "train_limit": 20_000, "image_size": 14}
DENSITY = 0.05
TRAINING = TrainingConfig(epochs=8, batch_size=128, learning_rate=0.1, momentum=0.9, weight_decay=1e-4, augment=False)
METHOD_OPTIONS: dict[str, Any] = {"prune_fraction": 0.451, "level_epochs": 2, "rewind_epochs": 0.5}
SETTING: dict[str, Any] = {
    "model": "resnet20",
    "data": "fashion-mnist, first 20 000 training images, pooled to 14x14, all 10 000 test images",
    "method": "ltr",
    "density": DENSITY,
    "training": TRAINING.to_json(),
    "method_options": METHOD_OPTIONS,
    "marks": "planted graph and 100 triggers, defaults",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """One seed's tickets.

    Attributes:
        seed: The run's seed.
        unmarked: As found, trained from the rewind weights.
        marked: As embedded, trained from the same weights by the same recipe.
        credential: The owner's.
    """

    seed: int
    unmarked: Ticket
    marked: Ticket
    credential: Credential


def dataset() -> Dataset:
    """Load the data all benchmarks share."""
    return load_data("fashion-mnist", options=DATA_OPTIONS)


def network(seed: int = 0) -> Any:
    """Build the model all benchmarks share."""
    return build_model("resnet20", options={"classes": 10, "input_shape": (1, 14, 14)}, seed=seed)


def secret_of(seed: int) -> bytes:
    """Return the benchmark's secret; fixed, so that a rerun measures the same marks."""
    return hashlib.sha256(b"ticketguard benchmark secret" + seed.to_bytes(4, "little")).digest()


def owner() -> tg.Owner:
    """Return the benchmark's owner, made once."""
    path = FOLDER / "owner.key"
    if not path.exists():
        tg.Owner.generate("benchmark").save(path, passphrase=None)
    return tg.Owner.load(path)


def pair(seed: int) -> Pair:
    """Return one seed's tickets, found and embedded if they are not there yet."""
    progress = ProgressBar()
    unmarked_path, marked_path = FOLDER / f"unmarked-{seed}.safetensors", FOLDER / f"marked-{seed}.safetensors"
    if not unmarked_path.exists():
        find(
            "resnet20",
            data="fashion-mnist",
            data_options=DATA_OPTIONS,
            method="ltr",
            method_options=METHOD_OPTIONS,
            density=DENSITY,
            training=TRAINING,
            seed=seed,
            workdir=FOLDER / f"find-{seed}",
            resume=True,
            progress=progress,
        ).save(unmarked_path)
    unmarked = Ticket.load(unmarked_path)
    if not marked_path.exists():
        marked, _ = embed(
            unmarked,
            owner=owner(),
            data_options=DATA_OPTIONS,
            seed=seed,
            secret=secret_of(seed),
            workdir=FOLDER / f"embed-{seed}",
            resume=True,
            progress=progress,
        )
        marked.save(marked_path)
    return Pair(
        seed=seed,
        unmarked=unmarked,
        marked=Ticket.load(marked_path),
        credential=_credential(unmarked, Ticket.load(marked_path), seed),
    )


FINE_TUNING = dataclasses.replace(TRAINING, epochs=2, schedule="constant")
DENSE_FINE_TUNING = dataclasses.replace(FINE_TUNING, learning_rate=0.05)


def stolen(tickets: Pair, attack: Removal, data: Dataset, *, run: int = 0) -> Ticket:
    """Return what *attack* makes of a marked ticket, made once; another *run* draws other numbers."""
    path = FOLDER / f"stolen-{tickets.seed}-{run}-{attack.name.replace(' ', '-')}.safetensors"
    if not path.exists():
        victim = Victim(ticket=tickets.marked, build=network, data=data)
        attack.run(victim, generator=np.random.default_rng([tickets.seed, run])).save(path)
    return Ticket.load(path)


def judge(
    attacks: Sequence[Removal], measure: Callable[[Ticket, Pair], dict[str, Any]], *, runs: int = 1
) -> list[dict[str, Any]]:
    """Return, a row a seed and run, what *measure* says of the unmarked, the marked and every stolen ticket."""
    rows = []
    data = dataset()
    for seed, run in itertools.product(SEEDS, range(runs)):
        tickets = pair(seed)
        suspects = {
            "unmarked ticket": measure(tickets.unmarked, tickets),
            "unattacked": measure(tickets.marked, tickets),
        }
        for attack in attacks:
            suspects[attack.name] = measure(stolen(tickets, attack, data, run=run), tickets)
            print(seed, run, attack.name, suspects[attack.name], flush=True)
        rows.append({"seed": seed, "run": run, "suspects": suspects})
    return rows


def _credential(unmarked: Ticket, marked: Ticket, seed: int) -> Credential:
    """Make the credential again from the fixed secret: the draws do not depend on training."""
    model = network(seed)
    plan = prepare(unmarked, owner=owner(), model=model, secret=secret_of(seed))
    load_arrays(model, marked.weights)
    return plan.finish(model, accuracy=marked.info.accuracy, check=False, rescale=False)[1]


if __name__ == "__main__":
    for number in [int(argument) for argument in sys.argv[1:]] or SEEDS:
        tickets = pair(number)
        print(number, tickets.unmarked.info.accuracy, tickets.marked.info.accuracy)
