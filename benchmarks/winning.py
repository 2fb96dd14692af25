"""Winning tickets: IMP's are, and what prunes at initialisation gains nothing from where its mask lies.

LeNet-300-100 on Fashion-MNIST. Each of IMP's tickets is judged by `ticketguard.check_ticket`. Each method that prunes
at initialisation is beside its own mask shuffled within layers, and its own mask with fresh weights, seed by seed.
Tickets and finished runs are kept under ``runs/benchmarks/winning``, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import ticketguard as tg
from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import DATA_FOLDER
from ticketguard.cli.progress import ProgressBar
from ticketguard.data import Dataset, load_data

SEEDS = (0, 1, 2)
DENSITIES = (0.1, 0.05)
AT_INITIALISATION = ("snip", "grasp", "synflow", "magnitude", "random")
AT_INITIALISATION_DENSITY = 0.05
FOLDER = Path("runs/benchmarks/winning")
DATA_OPTIONS: dict[str, Any] = {"folder": DATA_FOLDER, "train_limit": 20_000}
TRAINING = tg.TrainingConfig(
    epochs=5, batch_size=128, learning_rate=1.2e-3, optimizer="adam", momentum=0.9, weight_decay=0.0,
    schedule="constant", augment=False,
)  # fmt: skip
# Fewer rounds than the paper's 20% each, so that the whole benchmark takes minutes: six for 10%, eight for 5%.
IMP_OPTIONS: dict[str, Any] = {"prune_fraction": 0.37}
# What a mask may gain over its own shuffle and count as nothing: a seventh of what IMP's gains here.
MARGIN_POINTS = 0.5


def find(method: str, data: Dataset, seed: int, **options: Any) -> tg.Ticket:
    """Find a ticket, or read the one that was found before."""
    name = "-".join([method, *(str(value) for value in options.values() if isinstance(value, float)), str(seed)])
    of = options.get("method_options", {}).get("ticket")
    path = FOLDER / f"{name}{'' if of is None else '-of-' + Path(of).stem}.ticket"
    if not path.exists():
        with ProgressBar() as progress:
            ticket = tg.find(
                "mlp", data=data, method=method, training=TRAINING, seed=seed, progress=progress, **options
            )
        ticket.save(path)
    return tg.Ticket.load(path)


def imp_rows(data: Dataset, density: float) -> list[dict[str, Any]]:
    """Judge one IMP ticket a seed."""
    rows = []
    for seed in SEEDS:
        ticket = find("imp", data, seed, density=density, method_options=IMP_OPTIONS)
        with ProgressBar() as progress:
            check = tg.check_ticket(
                ticket, seeds=SEEDS, data=data, progress=progress, resume=True,
                workdir=FOLDER / f"check-{density}-{seed}",
                arms=("dense", "ticket", "reinitialised", "shuffled", "random_like"),
            )  # fmt: skip
        means = {arm.name: round(100 * arm.mean, 2) for arm in check.arms}
        print(f"imp at {density:.0%}, seed {seed}: {check.verdict} {means}", flush=True)
        rows.append({"seed": seed, "layer_density": layer_density(ticket), **check.to_json()})
    return rows


def at_initialisation_rows(data: Dataset, method: str) -> list[dict[str, Any]]:
    """Train one ticket a seed, and its controls, all in the same order of the data."""
    rows = []
    for seed in SEEDS:
        density = AT_INITIALISATION_DENSITY
        ticket = find(method, data, seed, density=density)
        file = str(FOLDER / f"{method}-{density}-{seed}.ticket")
        controls = {
            name: find(name, data, seed, method_options={"ticket": file}) for name in ("shuffled", "reinitialised")
        }
        accuracies = {name: found.info.accuracy for name, found in {"ticket": ticket, **controls}.items()}
        print(f"{method}, seed {seed}: {accuracies} {layer_density(ticket)}", flush=True)
        rows.append({"seed": seed, "layer_density": layer_density(ticket), "accuracy": accuracies})
    return rows


def layer_density(ticket: tg.Ticket) -> dict[str, float]:
    """Return the kept share of each layer."""
    return {name: round(float(ticket.mask[name].mean()), 5) for name in ticket.mask}


def gain(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the mean of the differences, in points, and its standard error; a pair shares its seed."""
    points = [100 * (ticket - control) for ticket, control in pairs]
    return {"points": statistics.mean(points), "standard_error": statistics.stdev(points) / math.sqrt(len(points))}


def main() -> None:
    """Measure and write results/winning.json."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    data = load_data("fashion-mnist", options=DATA_OPTIONS)
    at_initialisation = {method: at_initialisation_rows(data, method) for method in AT_INITIALISATION}
    imp = {f"{density:g}": imp_rows(data, density) for density in DENSITIES}
    gains = {
        method: {
            control: gain([(row["accuracy"]["ticket"], row["accuracy"][control]) for row in rows])
            for control in ("shuffled", "reinitialised")
        }
        for method, rows in at_initialisation.items()
    }
    imp_gain = {
        density: {
            name: gain([(_mean(row, "ticket"), _mean(row, name)) for row in rows])
            for name in ("dense", "reinitialised", "shuffled", "random_like")
        }
        for density, rows in imp.items()
    }
    bars = {
        f"imp at density {density}: tickets that win, of {len(SEEDS)}": Bar(
            value=sum(row["verdict"] == "winning" for row in rows), bound=len(SEEDS), at_most=False
        )
        for density, rows in imp.items()
    }
    for method, against in gains.items():
        bound = max(MARGIN_POINTS, 2 * against["shuffled"]["standard_error"])
        bars[f"{method}: points gained over its own shuffled mask"] = Bar(
            value=against["shuffled"]["points"], bound=bound, at_most=True
        )
    setting = {
        "model": "mlp (LeNet-300-100)",
        "data": "fashion-mnist, first 20 000 training images, all 10 000 test images",
        "training": TRAINING.to_json(),
        "imp": IMP_OPTIONS,
        "at_initialisation_density": AT_INITIALISATION_DENSITY,
    }
    raw = {"imp": imp, "imp_gain": imp_gain, "at_initialisation": at_initialisation, "at_initialisation_gain": gains}
    write_result("winning", setting=setting, seeds=SEEDS, raw=raw, bars=bars)


def _mean(check: dict[str, Any], arm: str) -> float:
    return float(next(found["mean"] for found in check["arms"] if found["name"] == arm))


if __name__ == "__main__":
    main()
