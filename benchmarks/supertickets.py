"""SuperTickets: joint search and pruning against one after the other, at equal epochs; and transfer to a second task.

Fashion-MNIST pooled to 14x14, 3 000 training and 4 000 test images, a supernet of 3 cells, 16 epochs. The paper's run
has 350, so all that counts epochs is 21.9 times as fast (cuts every 0.46 epochs instead of 10, prunings every 1.14
instead of 25, a warm-up of 1.14 instead of 25), and ρ and the threshold of death are 21.9 times as large: the penalty
pulls a scale as far over the whole run, and the threshold keeps its ratio to what it pulls in one step. The arms that
do one thing after the other give each half of the epochs (see ``SuperTicketsConfig.order``).

The second task is the 8x8 digits, enlarged to 14x14: the joint tickets get a fresh classifier and are trained there,
beside fresh networks.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import DATA_FOLDER
from ticketguard.data import Dataset, load_data
from ticketguard.models import build_model, load_arrays, model_of, state_arrays
from ticketguard.models.counting import uses_per_weight
from ticketguard.pipeline import find
from ticketguard.pruning.engine.selection import full_mask
from ticketguard.ticket import Mask, Ticket
from ticketguard.training import TrainingConfig, train

SEEDS = (0, 1, 2)
ORDERS = ("joint", "search_first", "prune_first")
EPOCHS, PAPER_EPOCHS = 16, 350
FASTER = PAPER_EPOCHS / EPOCHS
DENSITY = 0.2
DATA_OPTIONS: dict[str, Any] = {"folder": DATA_FOLDER, "train_limit": 3000, "test_limit": 4000, "image_size": 14}
MODEL_OPTIONS: dict[str, Any] = {"widths": [8, 16, 24], "depths": [1, 1, 1]}
METHOD_OPTIONS: dict[str, Any] = {
    "penalty": 1.8e-4 * FASTER,
    "threshold": 1e-3 * FASTER,
    "warmup_epochs": 25 / FASTER,
    "shrink_every": 10 / FASTER,
    "prune_every": 25 / FASTER,
}
TRAINING = TrainingConfig(epochs=EPOCHS, batch_size=64, learning_rate=0.1, schedule="cosine", augment=False)
SECOND_TRAINING = dataclasses.replace(TRAINING, epochs=8, learning_rate=0.05)
INPUTS = {"classes": 10, "input_shape": (1, 14, 14)}
SETTING: dict[str, Any] = {
    "model": {"name": "supernet", **MODEL_OPTIONS},
    "data": "fashion-mnist, 3 000 training and 4 000 test images, pooled to 14x14",
    "density": f"{DENSITY} of the weights of the network that remains",
    "training": TRAINING.to_json(),
    "method_options": METHOD_OPTIONS,
    "second_task": "digits, enlarged bilinearly from 8x8 to 14x14",
    "second_training": SECOND_TRAINING.to_json(),
}


def network(seed: int, **options: Any) -> torch.nn.Module:
    """Build a supernet."""
    return build_model("supernet", options={**INPUTS, **MODEL_OPTIONS, **options}, seed=seed)


def measured(ticket: Ticket) -> dict[str, Any]:
    """Return what a found ticket is and cost."""
    final = ticket.info.history[-1]
    return {
        "accuracy": ticket.info.accuracy,
        "kept_weights": ticket.mask.kept,
        "weights": ticket.mask.size,
        "channels": final["channels"],
        "macs": final["macs"],
        "kept_macs": final["kept_macs"],
        "kernels": {
            name.removesuffix(".depthwise.weight"): len(array)
            for name, array in ticket.weights.items()
            if name.endswith(".depthwise.weight")
        },
        "examples": ticket.info.cost["examples"],
        "seconds": ticket.info.cost["seconds"],
    }


def latencies(models: Mapping[str, torch.nn.Module], *, runs: int = 40) -> dict[str, float]:
    """Return median milliseconds of a batch of 64 on one thread; the models take turns."""
    inputs = torch.randn(64, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {name: [] for name in models}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        for run in range(runs + 5):
            for name, model in models.items():
                begin = time.perf_counter()
                model.eval()(inputs)
                if run >= 5:
                    times[name].append(1000 * (time.perf_counter() - begin))
    torch.set_num_threads(threads)
    return {name: statistics.median(values) for name, values in times.items()}


def dense(seed: int, data: Dataset) -> dict[str, Any]:
    """Train the whole supernet as long, unpruned: what the search starts from."""
    model = network(seed)
    uses, state = uses_per_weight(model, (1, 14, 14)), model.state_dict()
    result = train(model, data, TRAINING, seed=seed)
    return {
        "accuracy": result.accuracy,
        "weights": sum(state[name].numel() for name in uses),
        "macs": sum(state[name].numel() * uses[name] for name in uses),
        "examples": result.examples,
        "seconds": result.seconds,
    }


def as_large(weights: int) -> dict[str, Any]:
    """Return the options of the supernet whose number of weights comes nearest."""
    candidates = [
        {"widths": [width, 2 * width, 3 * width], "expansion": expansion}
        for width in range(2, 9)
        for expansion in (2, 4)
    ]
    return min(
        (options for options in candidates if options["widths"][0] * options["expansion"] >= 3),
        key=lambda options: abs(sum(value.numel() for value in _layers(network(0, **options)).values()) - weights),
    )


def _layers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {name: state[name] for name in uses_per_weight(model, (1, 14, 14))}


def transfer(ticket: Ticket, data: Dataset, *, seed: int) -> dict[str, Any]:
    """Train a ticket, and fresh networks, on the second task."""
    fresh = state_arrays(model_of(ticket, seed=seed + 100))
    head = {name: array for name, array in fresh.items() if name.startswith("classifier.")}
    mask = Mask(
        layers={**ticket.mask.layers, "classifier.weight": np.ones(head["classifier.weight"].shape, dtype=np.bool_)}
    )
    small = as_large(mask.kept)
    arms = {}
    for arm, model, start, under in (
        ("ticket", model_of(ticket), {**ticket.weights, **head}, mask),
        ("the ticket's structure, fresh weights", model_of(ticket), fresh, mask),
        ("fresh supernet of as many weights", network(seed + 100, **small), None, None),
        ("fresh whole supernet", network(seed + 100), None, None),
    ):
        if start is not None:
            load_arrays(model, start)
        kept = (under or full_mask({name: tuple(layer.shape) for name, layer in _layers(model).items()})).kept
        result = train(model, data, SECOND_TRAINING, seed=seed, mask=under)
        arms[arm] = {"accuracy": result.accuracy, "kept_weights": kept}
    return {"arms": arms, "options of as many weights": small}


def row(seed: int, data: Dataset, second: Dataset) -> dict[str, Any]:
    """Return one seed's measures."""
    tickets = {
        order: find(
            "supernet",
            data=data,
            method="supertickets",
            model_options=MODEL_OPTIONS,
            method_options={**METHOD_OPTIONS, "order": order},
            density=DENSITY,
            training=TRAINING,
            seed=seed,
        )
        for order in ORDERS
    }
    models = {"supernet": network(seed)}
    for order, ticket in tickets.items():
        models[order] = model_of(ticket)
        load_arrays(models[order], ticket.weights)
    arms = {"supernet": dense(seed, data), **{order: measured(ticket) for order, ticket in tickets.items()}}
    for name, milliseconds in latencies(models).items():
        arms[name]["latency_ms"] = milliseconds
    return {"seed": seed, "arms": arms, "transfer": transfer(tickets["joint"], second, seed=seed)}


def paired(first: list[float], second: list[float]) -> tuple[float, float]:
    """Return the mean difference in points, and its standard error over seeds."""
    points = [100 * (one - other) for one, other in zip(first, second, strict=True)]
    return statistics.mean(points), statistics.stdev(points) / len(points) ** 0.5


def main() -> None:
    """Measure and write results/supertickets.json."""
    torch.set_num_threads(1)
    data, second = load_data("fashion-mnist", options=DATA_OPTIONS), load_data("digits", options={"image_size": 14})
    rows = []
    for seed in SEEDS:
        rows.append(row(seed, data, second))
        for name, arm in rows[-1]["arms"].items():
            print(seed, name, arm, flush=True)
        print(seed, rows[-1]["transfer"], flush=True)
    accuracy = {arm: [each["arms"][arm]["accuracy"] for each in rows] for arm in ("supernet", *ORDERS)}
    bars = {}
    for arm, words in (("search_first", "search-then-prune"), ("prune_first", "prune-then-search")):
        difference, error = paired(accuracy["joint"], accuracy[arm])
        bars[f"joint over {words}, points (bound: minus one standard error)"] = Bar(
            value=difference, bound=-error, at_most=False
        )
    ratio = max(each["arms"]["joint"]["latency_ms"] / each["arms"]["supernet"]["latency_ms"] for each in rows)
    bars["slowest joint ticket over its supernet, latency"] = Bar(value=ratio, bound=1.0, at_most=True)
    moved = {arm: [each["transfer"]["arms"][arm]["accuracy"] for each in rows] for arm in rows[0]["transfer"]["arms"]}
    gain, _ = paired(moved["ticket"], moved["fresh supernet of as many weights"])
    bars["second task: ticket over a fresh supernet of as many weights, points"] = Bar(
        value=gain, bound=0.0, at_most=False
    )
    write_result("supertickets", setting=SETTING, seeds=SEEDS, raw=rows, bars=bars)


if __name__ == "__main__":
    main()
