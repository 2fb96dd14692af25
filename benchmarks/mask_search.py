"""Which search finds the better mask without training it: CTS and CTS-KL against the scores at initialisation.

LeNet-300-100 on 20 000 images of Fashion-MNIST at density 2%. All methods of a seed prune the same start weights, and
every ticket is trained from them by the same recipe; so is the mask of CTS and CTS-KL shuffled within its layers.

Bars are held where the start is He et al.'s initialisation. Beside it, without bars, the same from weights an epoch
into training from torch's own initialisation, of a sixth of the variance: there the search over frozen weights trails.

``python -m benchmarks.mask_search SEED ...`` measures seeds and keeps them under ``runs/benchmarks``; without seeds,
what is missing, and writes the result.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from benchmarks.shared.results import Bar, write_result
from benchmarks.shared.searches import FOLDER, Setting, measured_once, paired, shuffled
from ticketguard.data import Dataset
from ticketguard.models import load_arrays
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine.rewinding import rewind_state
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig, train

SEEDS = (0, 1, 2)
DENSITY = 0.02
BASELINES = ("grasp", "magnitude", "snip", "synflow")
# With the paper's defaults.
SEARCHES = ("cts", "cts_kl")
EARLY_EPOCHS = 1.0
AT_INITIALISATION = Setting(
    model="mlp",
    train_limit=20_000,
    image_size=28,
    training=TrainingConfig(
        epochs=5, batch_size=128, optimizer="adam", learning_rate=1.2e-3, weight_decay=0.0, schedule="constant",
        augment=False,
    ),
    he_start=True,
)  # fmt: skip
EARLY = dataclasses.replace(AT_INITIALISATION, he_start=False)
SETTINGS = {"he": AT_INITIALISATION, "early": EARLY}


def problem_of(start: str, seed: int, data: Dataset) -> SearchProblem:
    """Return the search from one kind of start weights, given as its rewind weights."""
    problem = SETTINGS[start].problem(data, density=DENSITY, seed=seed, options={})
    if start == "early":
        rewind, _ = rewind_state(problem, problem.build(), rewind_epochs=EARLY_EPOCHS)
        problem = dataclasses.replace(problem, rewind=rewind)
    return problem


def measure(start: str, method: str, seed: int, data: Dataset) -> dict[str, Any]:
    """Return the accuracy of one method's ticket, what it cost, and the accuracy of its shuffled mask."""
    problem = problem_of(start, seed, data)
    ticket = METHODS[method].find(problem)
    return {
        "accuracy": ticket.info.accuracy,
        "shuffled_accuracy": _shuffled_accuracy(problem, ticket) if method in SEARCHES else None,
        "cost": dict(ticket.info.cost),
        "kept": {name: int(ticket.mask[name].sum()) for name in ticket.mask},
    }


def _shuffled_accuracy(problem: SearchProblem, ticket: Ticket) -> float:
    assert ticket.rewind_weights is not None
    network = problem.build()
    load_arrays(network, ticket.rewind_weights)
    mask = shuffled(ticket.mask, seed=problem.seed)
    return train(network, problem.data, problem.training, seed=problem.seed, mask=mask).accuracy


def rows(start: str, seed: int, data: Dataset) -> dict[str, dict[str, Any]]:
    """Return one seed's measurements by method, measured where they are missing."""
    found = {}
    for method in (*BASELINES, *SEARCHES):
        what = {"setting": SETTINGS[start].to_json(), "start": start, "method": method, "seed": seed}
        found[method] = measured_once(
            FOLDER / "mask_search",
            {**what, "density": DENSITY},
            lambda method=method: measure(start, method, seed, data),
        )
        print(start, seed, method, found[method]["accuracy"], found[method]["shuffled_accuracy"], flush=True)
    return found


def differences(raw: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return mean and standard error of what each search is above each baseline and above its own shuffle."""
    result = {}
    for search in SEARCHES:
        ours = [row[search]["accuracy"] for row in raw]
        for method in BASELINES:
            result[f"{search} above {method}"] = paired(ours, [row[method]["accuracy"] for row in raw])
        result[f"{search} above its own shuffle"] = paired(ours, [row[search]["shuffled_accuracy"] for row in raw])
    return result


def main() -> None:
    """Measure all seeds and write the result."""
    data = AT_INITIALISATION.dataset()
    raw: dict[str, Any] = {}
    for start in SETTINGS:
        measured = [rows(start, seed, data) for seed in SEEDS]
        by_seed = dict(zip(map(str, SEEDS), measured, strict=True))
        raw[start] = {"by_seed": by_seed, "differences": differences(measured)}
    bars = {
        f"{name}, accuracy points": Bar(value=100 * difference["mean"], bound=0.0, at_most=False)
        for name, difference in raw["he"]["differences"].items()
    }
    setting = {**AT_INITIALISATION.to_json(), "density": DENSITY, "early_epochs": EARLY_EPOCHS, "chosen_on_seed": 100}
    write_result("mask_search", setting=setting, seeds=SEEDS, raw=raw, bars=bars)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for argument in sys.argv[1:]:
            for kind in SETTINGS:
                rows(kind, int(argument), AT_INITIALISATION.dataset())
    else:
        main()
