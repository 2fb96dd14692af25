"""Planted while found, or embedded afterwards: accuracy, and how much evidence survives.

LeNet-300-100 on Fashion-MNIST, 20 000 training images. Each ticket is found once without a mark and embedded, and once
with the secret edges in sight of the search. Finished tickets are kept under ``runs/benchmarks/planting``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ticketguard as tg
from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import DATA_FOLDER, owner, secret_of
from ticketguard.attacks import Victim
from ticketguard.attacks.removal.fine_tuning import FineTuning
from ticketguard.attacks.removal.pruning import MagnitudePruning
from ticketguard.credentials.credential import Credential
from ticketguard.data import Dataset, load_data
from ticketguard.files import write_whole
from ticketguard.graph import group_channels, groups_from_json, permute
from ticketguard.models import model_of
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig

SEEDS = (0, 1, 2)
FOLDER = Path("runs/benchmarks/planting")
CASES = (("imp", 0.1), ("imp", 0.05), ("imp", 0.02), ("snip", 0.05), ("random", 0.05))
TRAINING = TrainingConfig(
    epochs=5, batch_size=128, learning_rate=1.2e-3, optimizer="adam", schedule="constant", weight_decay=0.0,
    augment=False,
)  # fmt: skip
PRUNED = (0.2, 0.5, 0.8)


def tickets(method: str, density: float, seed: int, data: Dataset) -> dict[str, tuple[Ticket, Credential]]:
    """Return the ticket marked in either way, with its credential."""
    search: dict[str, Any] = {
        "data": data, "density": density, "method": method, "training": TRAINING, "seed": seed,
    }  # fmt: skip
    mark: dict[str, Any] = {"owner": owner(), "marks": [tg.PlantedGraph()], "secret": secret_of(seed)}
    unmarked = tg.find("mlp", **search)
    return {
        "unmarked": (unmarked, None),  # type: ignore[dict-item]
        "afterwards": tg.embed(unmarked, data=data, seed=seed, **mark),
        "meanwhile": tg.find_marked("mlp", **search, **mark),
    }


def evidence(marked: Ticket, credential: Credential, data: Dataset, seed: int) -> dict[str, float]:
    """Return log10 p of the marked ticket and of stolen copies of it."""
    victim = Victim(ticket=marked, build=lambda: model_of(marked), data=data)
    generator = np.random.default_rng(seed)
    groups = groups_from_json(credential.vault.channel_groups)
    orders = [generator.permutation(group_channels(group)) for group in groups]
    suspects: dict[str, Mapping[str, Any]] = {"intact": marked.weights}
    for share in PRUNED:
        attack = MagnitudePruning(share=share)
        suspects[attack.name] = attack.run(victim, generator=generator).weights
    dense = FineTuning(training=dataclasses.replace(TRAINING, epochs=2), keep_mask=False)
    suspects["dense fine-tuning, 2 epochs"] = dense.run(victim, generator=generator).weights
    suspects["permuted"] = permute(dict(marked.weights), groups, orders)
    return {
        name: tg.verify(tg.Checkpoint(weights), credential).evidence[0].log10_p for name, weights in suspects.items()
    }


def measured(method: str, density: float, seed: int, data: Dataset) -> dict[str, Any]:
    """Return one seed's numbers of one method and density, measured once."""
    path = FOLDER / f"{method}-{density}-{seed}.json"
    if not path.exists():
        row: dict[str, Any] = {"method": method, "density": density, "seed": seed}
        for kind, (ticket, credential) in tickets(method, density, seed, data).items():
            row[kind] = {"accuracy": ticket.info.accuracy}
            if credential is not None:
                row[kind]["log10_p"] = evidence(ticket, credential, data, seed)
        write_whole(path, json.dumps(row).encode())
    row = json.loads(path.read_text())
    print(row, flush=True)
    return row


def main() -> None:
    """Measure, and write the result."""
    data = load_data("fashion-mnist", options={"folder": DATA_FOLDER, "train_limit": 20_000})
    rows = [measured(method, density, seed, data) for method, density in CASES for seed in SEEDS]
    halved = MagnitudePruning(share=0.5).name
    searched = [row for row in rows if row["method"] == "imp"]
    gains = [row["meanwhile"]["log10_p"][halved] - row["afterwards"]["log10_p"][halved] for row in searched]
    losses = [100 * (row["unmarked"]["accuracy"] - row["meanwhile"]["accuracy"]) for row in searched]
    weakest = max(row["meanwhile"]["log10_p"]["permuted"] for row in searched)
    write_result(
        "planting",
        setting={
            "model": "mlp (LeNet-300-100)",
            "data": "fashion-mnist, first 20 000 training images, all 10 000 test images",
            "training": TRAINING.to_json(),
            "cases": [list(case) for case in CASES],
            "mark": "planted graph, defaults",
        },
        seeds=SEEDS,
        raw=rows,
        bars={
            "IMP, after 50% pruning: log10 p meanwhile less afterwards, mean": Bar(
                value=float(np.mean(gains)), bound=0.0, at_most=True
            ),
            "IMP: accuracy lost to planting meanwhile, points, mean": Bar(
                value=float(np.mean(losses)), bound=0.5, at_most=True
            ),
            "IMP, planted meanwhile and permuted: log10 p of the weakest": Bar(
                value=weakest, bound=-19.3, at_most=True
            ),
        },
    )


if __name__ == "__main__":
    main()
