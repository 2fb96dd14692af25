"""Which search finds the better mask without training it: CTS and CTS-KL against the scores at initialisation.

LeNet-300-100 on 20 000 images of Fashion-MNIST at density 2%. Every ticket is trained by the same recipe, and so is
the mask of CTS and CTS-KL shuffled within its layers, from the same start weights. ``python -m benchmarks.mask_search
SEED ...`` measures seeds and keeps them under ``runs/benchmarks``; without seeds, what is missing, and writes the
result.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.results import Bar, write_result
from benchmarks.searches import FOLDER, Setting, measured_once, paired, shuffled
from ticketguard.data import Dataset
from ticketguard.models import load_arrays
from ticketguard.pruning import METHODS
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig, train

SEEDS = (0, 1, 2)
DENSITY = 0.02
BASELINES = ("grasp", "magnitude", "snip", "synflow")
# Chosen on seed 100, which is not reported.
SEARCHES: dict[str, dict[str, Any]] = {
    "cts": {"epochs": 10.0, "rewind_epochs": 1.0},
    "cts_kl": {"epochs": 10.0, "rewind_epochs": 1.0},
}
SETTING = Setting(
    model="mlp",
    train_limit=20_000,
    image_size=28,
    training=TrainingConfig(
        epochs=5, batch_size=128, optimizer="adam", learning_rate=1.2e-3, weight_decay=0.0, schedule="constant",
        augment=False,
    ),
)  # fmt: skip


def measure(method: str, seed: int, data: Dataset) -> dict[str, Any]:
    """Return the accuracy of one method's ticket, what it cost, and the accuracy of its shuffled mask."""
    problem = SETTING.problem(data, density=DENSITY, seed=seed, options=SEARCHES.get(method, {}))
    ticket = METHODS[method].find(problem)
    row = {"accuracy": ticket.info.accuracy, "cost": dict(ticket.info.cost), "shuffled_accuracy": None}
    row["kept"] = {name: int(ticket.mask[name].sum()) for name in ticket.mask}
    if method in SEARCHES:
        row["shuffled_accuracy"] = _shuffled_accuracy(ticket, seed, data)
    return row


def _shuffled_accuracy(ticket: Ticket, seed: int, data: Dataset) -> float:
    assert ticket.rewind_weights is not None
    network = SETTING.problem(data, density=DENSITY, seed=seed, options={}).build()
    load_arrays(network, ticket.rewind_weights)
    return train(network, data, SETTING.training, seed=seed, mask=shuffled(ticket.mask, seed=seed)).accuracy


def rows(seed: int, data: Dataset) -> dict[str, dict[str, Any]]:
    """Return one seed's measurements by method, measured where they are missing."""
    found = {}
    for method in (*BASELINES, *SEARCHES):
        what = {"setting": SETTING.to_json(), "method": method, "seed": seed, "density": DENSITY}
        what["options"] = SEARCHES.get(method, {})
        found[method] = measured_once(FOLDER / "mask_search", what, lambda method=method: measure(method, seed, data))
        print(seed, method, found[method]["accuracy"], found[method]["shuffled_accuracy"], flush=True)
    return found


def main() -> None:
    """Measure all seeds and write the result."""
    data = SETTING.dataset()
    raw = [rows(seed, data) for seed in SEEDS]
    bars, differences = {}, {}
    for search in SEARCHES:
        ours = [row[search]["accuracy"] for row in raw]
        others = {method: [row[method]["accuracy"] for row in raw] for method in BASELINES}
        others["its own shuffle"] = [row[search]["shuffled_accuracy"] for row in raw]
        for other, theirs in others.items():
            differences[f"{search} above {other}"] = paired(ours, theirs)
    for name, difference in differences.items():
        bars[f"{name}, accuracy points"] = Bar(value=100 * difference["mean"], bound=0.0, at_most=False)
    write_result(
        "mask_search",
        setting={**SETTING.to_json(), "density": DENSITY, "method_options": SEARCHES, "chosen_on_seed": 100},
        seeds=SEEDS,
        raw={"by_seed": dict(zip(map(str, SEEDS), raw, strict=True)), "differences": differences},
        bars=bars,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for argument in sys.argv[1:]:
            rows(int(argument), SETTING.dataset())
    else:
        main()
