"""Foresight: do trained marks, robbed for real, show what `plan` foresees before anything is trained?

A perceptron on the digits, pruned to 10% by IMP; the size of its planted graph is chosen, then embedded with five keys.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import owner, secret_of
from ticketguard.attacks import FineTuning, MagnitudePruning, RandomRegrowth, Removal, Victim
from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.data import load_data
from ticketguard.embedding.planted_graph import PlantedGraph
from ticketguard.marking.choosing import MarkChoice, choose_marks
from ticketguard.models import build_model
from ticketguard.pipeline import embed, find, verify
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig
from ticketguard.verification.thefts import Theft

SEEDS = (0, 1, 2, 3, 4)
SETTING = {"model": "mlp", "data": "digits", "method": "imp", "density": 0.1, "epochs": 30}
# Half the ticket's rate, without its mask.
TUNING = TrainingConfig(epochs=2, learning_rate=0.05, schedule="constant")
THEFTS: Mapping[str, Removal | None] = {
    "untouched": None,
    "pruned-50": MagnitudePruning(share=0.5),
    "pruned-80": MagnitudePruning(share=0.8),
    "regrown-100": RandomRegrowth(share=1.0),
    "tuned-dense": FineTuning(training=TUNING, keep_mask=False),
}
LEVEL = -19.3


def measure(ticket: Ticket, choice: MarkChoice, seed: int) -> dict[str, Any]:
    """Embed the chosen mark, steal it in every way, and return what is read."""
    marked, credential = embed(
        ticket, owner=owner(), marks=choice.marks, seed=seed, secret=secret_of(seed), training={"epochs": 30}
    )
    options = {**ticket.info.model_options, "classes": ticket.info.classes, "input_shape": ticket.info.input_shape}
    victim = Victim(
        ticket=marked,
        build=lambda: build_model(ticket.info.model, options=options, seed=0),
        data=load_data("digits", options={}),
    )
    shown = {}
    for name, attack in THEFTS.items():
        stolen = marked if attack is None else attack.run(victim, generator=np.random.default_rng(seed))
        shown[name] = verify(Checkpoint(dict(stolen.weights)), credential).evidence[0].log10_p
        print(seed, name, shown[name], flush=True)
    return {"seed": seed, "accuracy": marked.info.accuracy, "log10_p": shown}


def main() -> None:
    """Measure and write results/foresight.json."""
    ticket = find("mlp", data="digits", method="imp", density=0.1, training={"epochs": 30}, seed=0)
    choice = choose_marks(ticket, survive=("pruned-80", "regrown-100"), marks=[PlantedGraph()])
    assert choice.chosen is not None
    size = choice.chosen.size
    foreseen = {name: size.foresee(Theft.parse(name)) for name in THEFTS}
    rows = [measure(ticket, choice, seed) for seed in SEEDS]
    shown = {name: [float(row["log10_p"][name]) for row in rows] for name in THEFTS}
    kept = [p <= foreseen[name].unlucky_log10_p for name in THEFTS for p in shown[name]]
    bars = {
        "share of copies that show what 19 in 20 should": Bar(value=statistics.mean(kept), bound=0.9, at_most=False),
        "log10 p, weakest copy": Bar(value=max(max(ps) for ps in shown.values()), bound=LEVEL, at_most=True),
    }
    for name in ("untouched", "pruned-50", "pruned-80", "regrown-100"):
        off = abs(statistics.mean(shown[name]) / foreseen[name].log10_p - 1)
        bars[f"mean evidence beside the foreseen, {name}: off by"] = Bar(value=off, bound=0.15, at_most=True)
    setting = {**SETTING, "mark": dict(size.settings), "moved_edges": size.moved_edges, "edges": ticket.mask.kept}
    raw = {
        "unmarked_accuracy": ticket.info.accuracy,
        "foreseen": {name: [seen.log10_p, seen.unlucky_log10_p] for name, seen in foreseen.items()},
        "rows": rows,
    }
    write_result("foresight", setting=setting, seeds=SEEDS, raw=raw, bars=bars)


if __name__ == "__main__":
    main()
