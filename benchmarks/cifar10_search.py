"""ResNet-20 on CIFAR-10: rewinding on its way down, and Concrete Ticket Search at 99.3% sparsity.

``CIFAR10=FOLDER python -m benchmarks.cifar10_search --full`` is the papers' setting, for an accelerator: all images,
160 epochs a round. Without ``--full`` it is a stand-in for two cores: 10 000 images at 16x16, few epochs, one seed. Its
accuracies say nothing about the full setting's; what it shows is how the methods compare at one small budget.
What is found is kept under ``runs/benchmarks``, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.results import Bar, write_result
from ticketguard.cli.progress import ProgressBar
from ticketguard.data import Dataset, load_data
from ticketguard.pipeline import find
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig

# LTR keeps four fifths of the weights a round: after so many rounds 10.7%, 2.8% and 0.74% are left. At the last, CTS-KL
# is beside it.
ROUNDS = (10, 16, 22)
SPARSEST = 0.8 ** ROUNDS[-1]
# Accuracy in percent and minutes on one GPU that arXiv 2512.07142 reports.
PAPER: dict[str, Any] = {"ltr": {"10": 91.4, "16": 87.2, "22": 68.3}, "cts_kl": 74.0}
PAPER_MINUTES = {"ltr": 95.2, "cts_kl": 7.9}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is trained.

    Attributes:
        data_options: Arguments of the data loader.
        rounds: The recipe of LTR's rounds.
        training: The recipe of the ticket that CTS-KL finds.
        rewind_epochs: Epochs before the early weights.
        search_epochs: Epochs of the concrete search.
    """

    data_options: dict[str, Any]
    rounds: TrainingConfig
    training: TrainingConfig
    rewind_epochs: float
    search_epochs: float


FULL = Budget(
    data_options={},
    rounds=TrainingConfig(epochs=160, precision="bf16"),
    training=TrainingConfig(epochs=160, batch_size=512, weight_decay=1e-3, clip_norm=2.0, precision="bf16"),
    rewind_epochs=9.0,
    search_epochs=20.0,
)
SMALL = Budget(
    data_options={"train_limit": 10_000, "image_size": 16},
    rounds=TrainingConfig(epochs=3),
    training=TrainingConfig(epochs=3),
    rewind_epochs=0.5,
    search_epochs=4.0,
)


def ticket(method: str, seed: int, budget: Budget, data: Dataset, folder: Path) -> Ticket:
    """Return a ticket of the sparsest density, found once."""
    path = folder / f"{method}-{seed}.safetensors"
    if not path.exists():
        options: dict[str, Any] = {"rewind_epochs": budget.rewind_epochs}
        if method == "cts_kl":
            options["epochs"] = budget.search_epochs
        find(
            "resnet20",
            data=data,
            density=SPARSEST,
            method=method,
            training=budget.rounds if method == "ltr" else budget.training,
            seed=seed,
            method_options=options,
            workdir=folder / path.stem,
            resume=True,
            progress=ProgressBar(),
        ).save(path)
    return Ticket.load(path)


def measured(seed: int, budget: Budget, data: Dataset, folder: Path) -> dict[str, Any]:
    """Return one seed's tickets: LTR's at every round, and CTS-KL's."""
    rewound, concrete = (ticket(method, seed, budget, data, folder) for method in ("ltr", "cts_kl"))
    row = {
        "seed": seed,
        "ltr": {"rounds": [dict(entry) for entry in rewound.info.history], "cost": dict(rewound.info.cost)},
        "cts_kl": {"accuracy": concrete.info.accuracy, "cost": dict(concrete.info.cost)},
    }
    print(row, flush=True)
    return row


def bars_of(rows: list[dict[str, Any]], *, full: bool) -> dict[str, Bar]:
    """Return the full setting's bars, or those that a stand-in can have: cost and order at the sparsest density."""
    rewound = {number: 100 * mean(row["ltr"]["rounds"][number]["accuracy"] for row in rows) for number in ROUNDS}
    concrete = 100 * mean(row["cts_kl"]["accuracy"] for row in rows)
    seconds = {method: mean(row[method]["cost"]["search_seconds"] for row in rows) for method in ("ltr", "cts_kl")}
    if not full:
        return {
            f"CTS-KL at {SPARSEST:.2%}: accuracy points above LTR": Bar(
                value=concrete - rewound[ROUNDS[-1]], bound=0.0, at_most=False
            ),
            f"CTS-KL at {SPARSEST:.2%}: seconds of LTR's search": Bar(
                value=seconds["cts_kl"] / seconds["ltr"], bound=0.1, at_most=True
            ),
        }
    bars = {
        f"LTR at {0.8**number:.1%}: accuracy": Bar(
            value=rewound[number], bound=PAPER["ltr"][str(number)] - 1.0, at_most=False
        )
        for number in ROUNDS[:-1]
    }
    bars[f"CTS-KL at {SPARSEST:.2%}: accuracy"] = Bar(value=concrete, bound=PAPER["cts_kl"], at_most=False)
    bars[f"CTS-KL at {SPARSEST:.2%}: minutes"] = Bar(
        value=seconds["cts_kl"] / 60, bound=PAPER_MINUTES["cts_kl"], at_most=True
    )
    return bars


def main() -> None:
    """Measure and write results/cifar10_search.json, or cifar10_search_full.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    if "CIFAR10" not in os.environ:
        raise SystemExit("set CIFAR10 to the folder that holds cifar10-jpeg-train.tar.xz and cifar10-jpeg-test.tar.xz")
    name = "cifar10_search_full" if arguments.full else "cifar10_search"
    budget = FULL if arguments.full else SMALL
    archives = Path(os.environ["CIFAR10"])
    data = load_data(
        str(archives / "cifar10-jpeg-train.tar.xz"),
        options={"test_path": str(archives / "cifar10-jpeg-test.tar.xz"), **budget.data_options},
    )
    rows = [measured(seed, budget, data, Path("runs/benchmarks") / name) for seed in range(arguments.seeds)]
    write_result(
        name,
        setting={
            "model": "resnet20",
            "data": "CIFAR-10" + ("" if arguments.full else ", 10 000 training images at 16x16"),
            "rounds": budget.rounds.to_json(),
            "training": budget.training.to_json(),
            "rewind_epochs": budget.rewind_epochs,
            "search_epochs": budget.search_epochs,
            "paper": {
                method: {str(density): value for density, value in told.items()} for method, told in PAPER.items()
            },
            "paper_minutes": PAPER_MINUTES,
        },
        seeds=range(arguments.seeds),
        raw=rows,
        bars=bars_of(rows, full=arguments.full),
    )


if __name__ == "__main__":
    main()
