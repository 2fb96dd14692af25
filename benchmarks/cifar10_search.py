"""ResNet-20 on CIFAR-10 at full size: rewinding on its way down, and Concrete Ticket Search at 99.3% sparsity.

``CIFAR10=FOLDER python -m benchmarks.cifar10_search`` is the setting of arXiv 2512.07142, for an accelerator: all
images, 160 epochs a round. What a processor can do of it is the first panel of ``benchmarks.crossover``. What is found
is kept under ``runs/benchmarks``, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
from statistics import mean
from typing import Any

from benchmarks.shared.results import Bar, write_result
from benchmarks.shared.searches import FOLDER, Setting
from ticketguard.cli.progress import ProgressBar
from ticketguard.data import Dataset
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
# The paper's code trains dense networks, LTR's rounds and the tickets of all methods by this recipe.
SETTING = Setting(
    model="resnet20",
    images="CIFAR-10",
    train_limit=50_000,
    image_size=32,
    training=TrainingConfig(epochs=160, batch_size=512, weight_decay=1e-3, clip_norm=2.0, precision="bf16"),
)
REWIND_EPOCHS = 9.0
# The middle one of the paper's three lengths.
SEARCH_EPOCHS = 80.0


def ticket(method: str, seed: int, data: Dataset) -> Ticket:
    """Return a ticket of the sparsest density, found once."""
    folder = FOLDER / "cifar10_search"
    path = folder / f"{method}-{seed}.safetensors"
    if not path.exists():
        options = {"rewind_epochs": REWIND_EPOCHS}
        if method == "cts_kl":
            options["epochs"] = SEARCH_EPOCHS
        find(
            SETTING.model,
            data=data,
            density=SPARSEST,
            method=method,
            training=SETTING.training,
            seed=seed,
            method_options=options,
            workdir=folder / path.stem,
            resume=True,
            progress=ProgressBar(),
        ).save(path)
    return Ticket.load(path)


def measured(seed: int, data: Dataset) -> dict[str, Any]:
    """Return one seed's tickets: LTR's at every round, and CTS-KL's."""
    rewound, concrete = (ticket(method, seed, data) for method in ("ltr", "cts_kl"))
    row = {
        "seed": seed,
        "ltr": {"rounds": [dict(entry) for entry in rewound.info.history], "cost": dict(rewound.info.cost)},
        "cts_kl": {"accuracy": concrete.info.accuracy, "cost": dict(concrete.info.cost)},
    }
    print(row, flush=True)
    return row


def bars_of(rows: list[dict[str, Any]]) -> dict[str, Bar]:
    """Return how near LTR and CTS-KL come to the paper's accuracies, and CTS-KL to its minutes."""
    rewound = {number: 100 * mean(row["ltr"]["rounds"][number]["accuracy"] for row in rows) for number in ROUNDS}
    bars = {
        f"LTR at {0.8**number:.1%}: accuracy": Bar(
            value=rewound[number], bound=PAPER["ltr"][str(number)] - 1.0, at_most=False
        )
        for number in ROUNDS[:-1]
    }
    at = f"CTS-KL at {SPARSEST:.2%}"
    concrete = 100 * mean(row["cts_kl"]["accuracy"] for row in rows)
    minutes = mean(row["cts_kl"]["cost"]["search_seconds"] for row in rows) / 60
    bars[f"{at}: accuracy"] = Bar(value=concrete, bound=PAPER["cts_kl"], at_most=False)
    bars[f"{at}: accuracy points above LTR"] = Bar(value=concrete - rewound[ROUNDS[-1]], bound=0.0, at_most=False)
    bars[f"{at}: minutes"] = Bar(value=minutes, bound=PAPER_MINUTES["cts_kl"], at_most=True)
    return bars


def main() -> None:
    """Measure and write results/cifar10_search.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    data = SETTING.dataset()
    rows = [measured(seed, data) for seed in range(arguments.seeds)]
    setting = {
        **SETTING.to_json(),
        "rewind_epochs": REWIND_EPOCHS,
        "search_epochs": SEARCH_EPOCHS,
        "paper": PAPER,
        "paper_minutes": PAPER_MINUTES,
    }
    write_result("cifar10_search", setting=setting, seeds=range(arguments.seeds), raw=rows, bars=bars_of(rows))


if __name__ == "__main__":
    main()
