"""Structured tickets: the layer lottery matches the dense network within noise, and trains and runs measurably faster.

ResNet-32 on Fashion-MNIST pooled to 14x14, 5 000 training images: five of its fifteen residual blocks are removed at
initialisation. Beside it, trained alike: the dense network; a fresh network of the same depth (other initial weights),
which is the control that the paper's claim asks for; and one without five random blocks. Times are taken in turns, a
step of one network and a step of the other, so that other load slows both.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from typing import Any

import numpy as np
import torch

import ticketguard as tg
from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import DATA_FOLDER, FOLDER
from ticketguard.data import Dataset, load_data
from ticketguard.files import write_whole
from ticketguard.models import REMOVED_BLOCKS, build_model, model_of, prunable_layers, removable_blocks
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.training import TrainingConfig, train
from ticketguard.training.feeding import Feeder
from ticketguard.training.optimizers import make_optimizer

SEEDS = (0, 1, 2)
BLOCKS = 5
DATA_OPTIONS: dict[str, Any] = {"folder": DATA_FOLDER, "train_limit": 5000, "test_limit": 5000, "image_size": 14}
OPTIONS: dict[str, Any] = {"classes": 10, "input_shape": [1, 14, 14]}
TRAINING = TrainingConfig(
    epochs=5, batch_size=64, learning_rate=0.1, momentum=0.9, weight_decay=5e-4, schedule="cosine", augment=False
)
STEPS = 30
WARM_UP_STEPS = 3


def find_ticket(data: Dataset, seed: int) -> tg.Ticket:
    """Find the ticket of a seed; one that an earlier run found is read again."""
    path = FOLDER / f"structured-{seed}.safetensors"
    if path.exists():
        return tg.Ticket.load(path)
    problem = SearchProblem(
        model="resnet32", model_options=OPTIONS, data=data, data_name="fashion-mnist", data_options=DATA_OPTIONS,
        density=None, training=TRAINING, seed=seed, method_options={"blocks": BLOCKS},
    )  # fmt: skip
    ticket = METHODS["layer_lottery"].find(problem)
    path.parent.mkdir(parents=True, exist_ok=True)
    ticket.save(path)
    return ticket


def random_blocks(seed: int) -> list[str]:
    """Draw as many removable blocks as the ticket lost."""
    network = build_model("resnet32", options=OPTIONS, seed=seed)
    blocks = removable_blocks(network, torch.zeros(1, *OPTIONS["input_shape"]), layers=prunable_layers(network))
    chosen = np.random.default_rng(seed).choice(len(blocks), BLOCKS, replace=False)
    return sorted(blocks[index].name for index in chosen)


def trained(data: Dataset, name: str, removed: list[str], *, initial_seed: int, seed: int) -> float:
    """Return the test accuracy of a network without some blocks; what an earlier run measured is read again."""
    path = FOLDER / f"structured-{name}-{seed}.json"
    if not path.exists():
        network = build_model("resnet32", options={**OPTIONS, REMOVED_BLOCKS: removed}, seed=initial_seed)
        accuracy = train(network, data, TRAINING, seed=seed).accuracy
        write_whole(path, json.dumps(accuracy).encode())
    return float(json.loads(path.read_text()))


def step_times(data: Dataset, ticket: tg.Ticket) -> tuple[list[float], list[float]]:
    """Return the wall times of training steps of the ticket and of the dense network, taken in turns."""
    feeder = Feeder(
        data, batch_size=TRAINING.batch_size, seed=0, augment=False, device=torch.device("cpu"), process=(0, 1)
    )
    steps = []
    for network in (model_of(ticket), build_model("resnet32", options=OPTIONS, seed=0)):
        network.to(memory_format=torch.channels_last).train()
        steps.append((network, make_optimizer(network, TRAINING)))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP_STEPS + STEPS):
        inputs, labels = feeder.batch(number)
        for index in (0, 1) if number % 2 else (1, 0):
            network, optimizer = steps[index]
            begun = time.perf_counter()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
            if number >= WARM_UP_STEPS:
                times[index].append(time.perf_counter() - begun)
    return times


def row_of(data: Dataset, seed: int) -> dict[str, Any]:
    """Measure one seed."""
    ticket = find_ticket(data, seed)
    removed = list(ticket.info.model_options[REMOVED_BLOCKS])
    by_chance = random_blocks(seed)
    row = {
        "seed": seed,
        "removed_blocks": removed,
        "block_scores": ticket.info.history[0]["block_scores"],
        "random_blocks": by_chance,
        "ticket": ticket.info.accuracy,
        "dense": trained(data, "dense", [], initial_seed=seed, seed=seed),
        "fresh, same depth": trained(data, "fresh", removed, initial_seed=seed + 1000, seed=seed),
        "random blocks": trained(data, "random", by_chance, initial_seed=seed, seed=seed),
    }
    print({name: value for name, value in row.items() if name != "block_scores"}, flush=True)
    return row


def costs_of(data: Dataset, ticket: tg.Ticket) -> dict[str, Any]:
    """Measure the time of a training step, and size and latency."""
    own, dense = step_times(data, ticket)
    measured = {}
    for batch_size in (1, 64):
        found = tg.measure(ticket, batch_size=batch_size, repeats=30).to_json()
        for part in ("ticket", "dense"):
            found[part].pop("latencies")
        measured[f"batch {batch_size}"] = found
    return {
        "training_step_seconds": {"ticket": statistics.median(own), "dense": statistics.median(dense)},
        "training_step_ratio": statistics.median(own) / statistics.median(dense),
        "inference": measured,
    }


def summary(rows: list[dict[str, Any]], name: str, other: str) -> dict[str, float]:
    """Return the mean paired difference of two accuracies, in points, and its standard error."""
    differences = [100 * (row[name] - row[other]) for row in rows]
    return {
        "mean_points": statistics.mean(differences),
        "standard_error_points": statistics.stdev(differences) / len(differences) ** 0.5,
    }


def main() -> None:
    """Measure and write results/structured.json."""
    torch.set_num_threads(1)
    data = load_data("fashion-mnist", options=DATA_OPTIONS)
    rows = [row_of(data, seed) for seed in SEEDS]
    costs = [costs_of(data, find_ticket(data, seed)) for seed in SEEDS]
    differences = {
        f"ticket − {other}": summary(rows, "ticket", other) for other in ("dense", "fresh, same depth", "random blocks")
    }
    to_dense = differences["ticket − dense"]
    one = costs[0]["inference"]["batch 1"]
    bars = {
        "ticket's accuracy minus the dense network's, points, against 1 point or 2 standard errors": Bar(
            value=to_dense["mean_points"], bound=-max(1.0, 2 * to_dense["standard_error_points"]), at_most=False
        ),
        "time of a training step, share of the dense network's, worst seed": Bar(
            value=max(cost["training_step_ratio"] for cost in costs), bound=0.85, at_most=True
        ),
        "latency of a batch of 64, share of the dense network's, worst seed": Bar(
            value=max(1 / cost["inference"]["batch 64"]["speedup"] for cost in costs), bound=0.85, at_most=True
        ),
        "multiply-adds, share of the dense network's": Bar(
            value=one["ticket"]["multiply_adds"] / one["dense"]["multiply_adds"], bound=0.85, at_most=True
        ),
    }
    setting = {
        "model": "resnet32",
        "data": "fashion-mnist, first 5 000 training images, pooled to 14x14, first 5 000 test images",
        "method": "layer_lottery, GraSP at initialisation",
        "blocks": f"{BLOCKS} of 15 removed",
        "training": TRAINING.to_json(),
        "threads": 1,
        "load_average": os.getloadavg()[0],
    }
    raw = {"rows": rows, "differences": differences, "costs": costs}
    write_result("structured", setting=setting, seeds=SEEDS, raw=raw, bars=bars)


if __name__ == "__main__":
    main()
