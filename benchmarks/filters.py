"""Whole filters removed from a trained ResNet-20 by bi-level pruning, and what a smaller network gains.

Fashion-MNIST pooled to 14x14, 10 000 training images. Each seed's dense network is trained once. Beside BiP, of the
same density: the channels of the largest L2 norms in the trained network, in one shot, fine-tuned for as many examples
forward and backward (BiP's steps on the mask count as those on the weights do), and a fresh network of the ticket's
sizes, trained for all the epochs that the dense network and BiP had. All rates are the paper's; nothing was tuned.
Size and latency are the measured ones, in turns with the dense network's.

What is measured is kept under ``runs/benchmarks``, so that an interrupted benchmark goes on.

    python -m benchmarks.filters
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch

import ticketguard as tg
from benchmarks.shared.results import Bar, write_result
from benchmarks.shared.searches import FOLDER, Setting, measured_once, paired
from ticketguard.data import Dataset
from ticketguard.models import load_arrays, model_of, resize_to, state_arrays
from ticketguard.pruning import METHODS
from ticketguard.pruning.engine.channel_gates import ChannelGates
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.methods.controls import make_control
from ticketguard.ticket import Array
from ticketguard.training import TrainingConfig, train

SEEDS = (0, 1, 2)
DENSITY = 0.4
STRUCTURE = "filter"
SETTING = Setting(
    model="resnet20",
    train_limit=10_000,
    image_size=14,
    training=TrainingConfig(
        epochs=4, batch_size=64, learning_rate=0.1, weight_decay=5e-4, schedule="cosine", augment=False
    ),
)
BIP: dict[str, Any] = {"epochs": 3.0, "batch_size": 64}
FINE_TUNING = dataclasses.replace(SETTING.training, epochs=2 * BIP["epochs"])
FRESH = dataclasses.replace(SETTING.training, epochs=SETTING.training.epochs + 2 * BIP["epochs"])
BATCHES = (1, 64)


def one_shot(problem: SearchProblem, state: dict[str, Array]) -> float:
    """Return the accuracy after cutting the trained network's own smallest channels, and fine-tuning."""
    network = problem.build()
    cut = ChannelGates(problem, network, problem.everything(network), structure=STRUCTURE).cut(state, state)
    resize_to(network, {name: array.shape for name, array in cut.items()})
    load_arrays(network, cut)
    return train(network, problem.data, FINE_TUNING, seed=problem.seed).accuracy


def fresh(ticket: tg.Ticket, data: Dataset, *, seed: int) -> float:
    """Return the accuracy of a network of the ticket's sizes, trained from fresh weights."""
    network = model_of(ticket)
    load_arrays(network, make_control("scratch_e", ticket, seed=seed).start)
    return train(network, data, FRESH, seed=seed).accuracy


def row_of(data: Dataset, seed: int) -> dict[str, Any]:
    """Measure one seed."""
    problem = SETTING.problem(data, density=DENSITY, seed=seed, options={**BIP, "structure": STRUCTURE})
    dense = problem.build()
    accuracy = train(dense, data, SETTING.training, seed=seed).accuracy
    state = state_arrays(dense)
    ticket = METHODS["bip"].find(dataclasses.replace(problem, pretrained=state))
    costs = {}
    for batch_size in BATCHES:
        measured = tg.measure(ticket, batch_size=batch_size, repeats=50).to_json()
        for part in ("ticket", "dense"):
            measured[part].pop("latencies")
        costs[f"batch {batch_size}"] = measured
    row = {
        "seed": seed,
        "dense": accuracy,
        "bip": ticket.info.accuracy,
        "one-shot, fine-tuned": one_shot(problem, state),
        "fresh": fresh(ticket, data, seed=seed + 1000),
        "costs": costs,
    }
    print({name: value for name, value in row.items() if name != "costs"}, flush=True)
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how far BiP is above each of the others, and shares of the dense network's costs, worst seeds."""

    def share(field: str, batch_size: int) -> float:
        measured = [row["costs"][f"batch {batch_size}"] for row in rows]
        return float(max(cost["ticket"][field] / cost["dense"][field] for cost in measured))

    ours = [row["bip"] for row in rows]
    others = ("dense", "one-shot, fine-tuned", "fresh")
    return {
        "accuracy_above": {name: paired(ours, [row[name] for row in rows]) for name in others},
        "shares_of_dense": {
            "multiply_adds": share("multiply_adds", 1),
            "file_bytes": share("file_bytes", 1),
            **{f"latency, batch {size}": share("latency_seconds", size) for size in BATCHES},
        },
    }


def main() -> None:
    """Measure and write results/filters.json."""
    torch.set_num_threads(1)
    data = SETTING.dataset()
    what = {**SETTING.to_json(), "density": DENSITY, "bip": BIP, "structure": STRUCTURE}
    rows = [
        measured_once(FOLDER / "filters", {**what, "seed": seed}, functools.partial(row_of, data, seed))
        for seed in SEEDS
    ]
    told = summary(rows)
    bars = {
        "accuracy points above one-shot pruning and fine-tuning": Bar(
            value=100 * told["accuracy_above"]["one-shot, fine-tuned"]["mean"], bound=0.0, at_most=False
        )
    }
    for name in ("file_bytes", "latency, batch 64"):
        bars[f"{name}, share of the dense network's, worst seed"] = Bar(
            value=told["shares_of_dense"][name], bound=0.85, at_most=True
        )
    searched = dataclasses.asdict(METHODS["bip"].config(**BIP, structure=STRUCTURE))
    setting = {
        **SETTING.to_json(), "density": DENSITY, "bip": searched,
        "fine_tuning_after_one_shot": FINE_TUNING.to_json(), "fresh": FRESH.to_json(), "threads": 1,
    }  # fmt: skip
    write_result("filters", setting=setting, seeds=SEEDS, raw={"rows": rows, **told}, bars=bars)


if __name__ == "__main__":
    main()
