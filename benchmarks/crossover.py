"""Where Concrete Ticket Search overtakes rewinding, and what each costs.

Four panels. ResNet-20 on CIFAR-10 pooled to 8x8 is the paper's setting made small: its recipe, in as many steps as two
cores have time for, with weight decay raised so that weights decay nearly as far in a training as they do there (rate
times decay, summed over all steps, is 0.66; there it is 0.83), rewound at the paper's share of the training. The same
network twice as wide, rewound as many steps into the training as there, has four times the weights: at 99% sparsity
as many as the narrow one at 96%, and more to choose from. What the paper claims is held against these two. The narrow
network on Fashion-MNIST pooled to 14x14, in short trainings where next to nothing decays (0.003), and LeNet-300-100
tell what happens elsewhere.

One LTR search a seed passes all densities on its way down: its rounds are as long as the final training, and a fifth of
the weights goes each round (as in the paper; exactly, 1 - 10^-0.1, so that rounds end on the densities). CTS and CTS-KL
are run for each density by itself. All tickets are trained from the same early weights (of LeNet-300-100, from the same
initialisation) by the same recipe.

The cost of a search is all before the ticket's own training: in examples that passed forward and backward, and in
seconds, from the steps taken and from the time of a step of each kind, measured in turns on the same machine.

``CIFAR10=FOLDER python -m benchmarks.crossover SEED ...`` measures seeds, and keeps what is measured under
``runs/benchmarks``, so that an interrupted run goes on; without seeds, what is missing, and writes the result.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.shared.results import Bar, write_result
from benchmarks.shared.searches import FOLDER, Setting, measured_once, paired
from ticketguard.data import Dataset
from ticketguard.pruning import METHODS
from ticketguard.pruning.descriptions.cts import ConcreteConfig
from ticketguard.pruning.engine.batch_norm import batch_statistics
from ticketguard.pruning.engine.concrete_search import ConcreteSearch, TaskLoss
from ticketguard.pruning.methods.cts import cross_entropy
from ticketguard.pruning.methods.cts_kl import reverse_divergence
from ticketguard.training import TrainingConfig, train
from ticketguard.training.config import NoHooks

SEARCHES: dict[str, TaskLoss] = {"cts": cross_entropy, "cts_kl": reverse_divergence}
PRUNE_FRACTION = 1.0 - 10**-0.1
# Ten rounds of LTR are a decade of density; after so many rounds it is at 0.1, 0.0501, 0.02, 0.01 and 0.00501.
ROUNDS = {round(10 ** (-number / 10), 6): number for number in (10, 13, 17, 20, 23)}
CLAIMED = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One part of the benchmark.

    Attributes:
        name: How the result names it.
        setting: Model, data and recipe.
        seeds: The seeds that are reported.
        rewind_epochs: Epochs after which the early weights are taken; 0 for the start.
        options: Options of each search, whose length a tenth of LTR's cost bounds: chosen on seed 100, which is not
            reported; of the wide network the methods' defaults.
        densities: Where CTS and CTS-KL are run; LTR passes all.
        is_paper: Whether the paper claims anything of it; otherwise it is told, not held.
    """

    name: str
    setting: Setting
    seeds: tuple[int, ...]
    rewind_epochs: float
    options: dict[str, dict[str, Any]]
    densities: tuple[float, ...] = tuple(ROUNDS)
    is_paper: bool = False


PAPERS = Setting(
    model="resnet20",
    images="CIFAR-10",
    train_limit=20_000,
    image_size=8,
    training=TrainingConfig(epochs=8, batch_size=64, learning_rate=0.1, weight_decay=5e-3, clip_norm=2.0),
)
PANELS = (
    Panel(
        name="resnet20, CIFAR-10",
        setting=PAPERS,
        seeds=(0, 1, 2),
        # 9/160 of the training, as in the paper.
        rewind_epochs=0.45,
        options={"cts": {"epochs": 13.0}, "cts_kl": {"epochs": 10.5}},
        # Without 5%, for time.
        densities=tuple(density for density, number in ROUNDS.items() if number != 13),
        is_paper=True,
    ),
    Panel(
        name="resnet20, width 32, CIFAR-10",
        setting=dataclasses.replace(PAPERS, width=32),
        seeds=(0, 1, 2),
        # As many steps into the training as in the paper: 9 epochs of 98 steps.
        rewind_epochs=2.8,
        options={"cts": {"epochs": 9.5}, "cts_kl": {"epochs": 8.0}},
        # The others were left out for time.
        densities=(0.01, 0.005012),
        is_paper=True,
    ),
    Panel(
        name="resnet20, Fashion-MNIST",
        setting=Setting(
            model="resnet20",
            train_limit=10_000,
            image_size=14,
            training=TrainingConfig(epochs=4, batch_size=64, learning_rate=0.1, weight_decay=1e-4, augment=False),
        ),
        # Two: LTR's rounds take a quarter of an hour a seed on a free core.
        seeds=(0, 1),
        rewind_epochs=0.25,
        options={"cts": {"epochs": 5.0}, "cts_kl": {"epochs": 4.0}},
    ),
    Panel(
        name="lenet-300-100",
        setting=Setting(
            model="mlp",
            train_limit=20_000,
            image_size=28,
            training=TrainingConfig(
                epochs=5,
                batch_size=128,
                optimizer="adam",
                learning_rate=1.2e-3,
                weight_decay=0.0,
                schedule="constant",
                augment=False,
            ),
            he_start=True,
        ),
        seeds=(0, 1, 2),
        rewind_epochs=0.0,
        options={"cts": {"epochs": 4.0}, "cts_kl": {"epochs": 4.0}},
    ),
)


class Clock(NoHooks):
    """Notes when each training step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_step(self, model: torch.nn.Module) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def step_seconds(panel: Panel, data: Dataset, *, turns: int = 5, steps: int = 20) -> dict[str, float]:
    """Return the median seconds of a step of LTR's training and of each search, measured in turns."""
    problem = panel.setting.problem(data, density=CLAIMED, seed=0, options={})
    network = problem.build()
    layers = problem.everything(network)
    searches = {}
    for method, task in SEARCHES.items():
        config = ConcreteConfig(**{"batch_size": problem.training.batch_size, **panel.options[method]})
        network = problem.build()
        keep = problem.keep(layers.size)
        searches[method] = (network, ConcreteSearch(problem, network, config, layers=layers, keep=keep, task=task))
    taken: dict[str, list[float]] = {"ltr": [], **{method: [] for method in SEARCHES}}
    for turn in range(turns):
        clock = Clock()
        network = problem.build()
        train(network, data, problem.training, seed=0, mask=layers, hooks=clock, stop_step=steps + 1)
        taken["ltr"] += list(np.diff(clock.ends))
        for method, (network, search) in searches.items():
            with batch_statistics(network.eval()):
                for number in range(turn * steps, (turn + 1) * steps):
                    begun = time.perf_counter()
                    search.step(number % search.steps)
                    taken[method].append(time.perf_counter() - begun)
    return {method: float(np.median(seconds)) for method, seconds in taken.items()}


def ltr_levels(panel: Panel, seed: int, data: Dataset) -> dict[str, Any]:
    """Return LTR's accuracies and examples at every density on its way down."""
    options = {"prune_fraction": PRUNE_FRACTION, "rewind_epochs": panel.rewind_epochs}
    problem = panel.setting.problem(data, density=min(ROUNDS), seed=seed, options=options)
    workdir = FOLDER / "crossover" / f"{panel.name}-ltr-{seed}"
    workdir.mkdir(parents=True, exist_ok=True)
    ticket = METHODS["ltr"].find(dataclasses.replace(problem, workdir=workdir, resume=True))
    batch = panel.setting.training.batch_size
    levels = []
    for density, number in ROUNDS.items():
        entry, before = ticket.info.history[number], ticket.info.history[:number]
        assert math.isclose(entry["density"], density, rel_tol=0.01), (entry["density"], density)
        steps = sum(past["steps"] for past in before)
        levels.append({
            "density": density, "accuracy": entry["accuracy"], "search_steps": steps, "search_examples": steps * batch,
            "search_seconds": sum(past["seconds"] for past in before),
        })  # fmt: skip
    return {"dense_accuracy": ticket.info.history[0]["accuracy"], "levels": levels}


def concrete_level(panel: Panel, method: str, density: float, seed: int, data: Dataset) -> dict[str, Any]:
    """Return the accuracy of one ticket of CTS or CTS-KL, and what finding it took."""
    options = {"rewind_epochs": panel.rewind_epochs, **panel.options[method]}
    info = METHODS[method].find(panel.setting.problem(data, density=density, seed=seed, options=options)).info
    spent = {name: info.cost[name] for name in ("search_steps", "search_examples", "search_seconds")}
    return {"density": density, "accuracy": info.accuracy, **spent, "history": [dict(past) for past in info.history]}


def rows(panel: Panel, seed: int, data: Dataset) -> dict[str, Any]:
    """Return one seed's measurements by method, measured where they are missing."""
    what = {"setting": panel.setting.to_json(), "rewind_epochs": panel.rewind_epochs, "seed": seed}
    folder = FOLDER / "crossover"
    found: dict[str, Any] = {}
    for method in SEARCHES:
        levels = []
        # The density that the claim is about comes first.
        for density in sorted(panel.densities, key=lambda density: abs(math.log(density / CLAIMED))):
            row = measured_once(
                folder,
                {**what, "method": method, "density": density, "options": panel.options[method]},
                lambda method=method, density=density: concrete_level(panel, method, density, seed, data),
            )
            print(panel.name, seed, method, density, row["accuracy"], flush=True)
            levels.append(row)
        found[method] = {"levels": sorted(levels, key=lambda level: -level["density"])}
    options = {"prune_fraction": PRUNE_FRACTION, "rounds": list(ROUNDS.values())}
    found["ltr"] = measured_once(
        folder, {**what, "method": "ltr", "options": options}, lambda: ltr_levels(panel, seed, data)
    )
    print(panel.name, seed, "ltr", [level["accuracy"] for level in found["ltr"]["levels"]], flush=True)
    return found


def crossover_density(differences: dict[float, float]) -> float | None:
    """Return the density at which the differences change sign, whichever way, interpolated over its logarithm.

    None if they never do from the densest level to the sparsest.
    """
    levels = sorted(differences, reverse=True)
    for dense, sparse in itertools.pairwise(levels):
        high, low = differences[dense], differences[sparse]
        if (high > 0) != (low > 0):
            share = high / (high - low)
            return math.exp(math.log(dense) + share * (math.log(sparse) - math.log(dense)))
    return None


def at_density(levels: list[dict[str, Any]], density: float) -> dict[str, Any]:
    """Return the level of that density."""
    return next(level for level in levels if level["density"] == density)


def accuracies(raw: list[dict[str, Any]], method: str, density: float) -> list[float]:
    """Return each seed's accuracy."""
    return [at_density(row[method]["levels"], density)["accuracy"] for row in raw]


def compare(panel: Panel, raw: list[dict[str, Any]], seconds: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Return, for CTS and CTS-KL, differences from LTR at each density, the crossover, and the ratios of cost."""
    result = {}
    for method in SEARCHES:
        gains = {
            density: paired(accuracies(raw, method, density), accuracies(raw, "ltr", density))
            for density in panel.densities
        }
        ours, theirs = (at_density(raw[0][name]["levels"], CLAIMED) for name in (method, "ltr"))
        per_epoch = panel.setting.train_limit // panel.setting.training.batch_size
        search_steps = round(panel.options[method]["epochs"] * per_epoch)
        spent = (ours["search_steps"] - search_steps) * seconds["ltr"] + search_steps * seconds[method]
        result[method] = {
            "accuracy_above_ltr": {str(density): gain for density, gain in gains.items()},
            "crossover_density": crossover_density({density: gain["mean"] for density, gain in gains.items()}),
            "examples_ratio": ours["search_examples"] / theirs["search_examples"],
            "seconds_ratio": spent / (theirs["search_steps"] * seconds["ltr"]),
        }
    return result


def main() -> None:
    """Measure all seeds and write the result."""
    raw: dict[str, Any] = {}
    bars: dict[str, Bar] = {}
    for panel in PANELS:
        data = panel.setting.dataset()
        measured = [rows(panel, seed, data) for seed in panel.seeds]
        seconds = step_seconds(panel, data)
        comparison = compare(panel, measured, seconds)
        raw[panel.name] = {
            "by_seed": dict(zip(map(str, panel.seeds), measured, strict=True)), "step_seconds": seconds, **comparison
        }  # fmt: skip
        for method, told in comparison.items():
            at = f"{panel.name}, {method} at {CLAIMED:.0%}"
            for unit in ("examples", "seconds"):
                bars[f"{at}: {unit} of LTR's search"] = Bar(value=told[f"{unit}_ratio"], bound=0.1, at_most=True)
            if not panel.is_paper:
                continue
            points = 100 * told["accuracy_above_ltr"][str(CLAIMED)]["mean"]
            bars[f"{at}: accuracy points above LTR"] = Bar(value=points, bound=0.0, at_most=False)
    setting = {
        panel.name: {
            **panel.setting.to_json(),
            "seeds": list(panel.seeds),
            "rewind_epochs": panel.rewind_epochs,
            "method_options": panel.options,
        }
        for panel in PANELS
    }
    setting |= {"prune_fraction": PRUNE_FRACTION, "densities": list(ROUNDS), "chosen_on_seed": 100}
    seeds = sorted({seed for panel in PANELS for seed in panel.seeds})
    write_result("crossover", setting=setting, seeds=seeds, raw=raw, bars=bars)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for seed in map(int, sys.argv[1:]):
            for panel in PANELS:
                if seed in panel.seeds:
                    rows(panel, seed, panel.setting.dataset())
    else:
        main()
