"""Strength: log10 p of the planted graph after each attack, on ResNet-20 at density 5%."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import DENSE_FINE_TUNING, FINE_TUNING, SEEDS, SETTING, Pair, dataset, judge, network
from ticketguard.attacks import FineTuning, FisherPruning, MagnitudePruning, RandomRegrowth, Removal
from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.models import load_arrays
from ticketguard.pipeline import verify
from ticketguard.ticket import Ticket
from ticketguard.training import evaluate

ATTACKS: tuple[Removal, ...] = (
    MagnitudePruning(share=0.2),
    MagnitudePruning(share=0.5),
    MagnitudePruning(share=0.8),
    FisherPruning(share=0.5),
    FineTuning(training=DENSE_FINE_TUNING, keep_mask=False),
    FineTuning(training=FINE_TUNING),
    RandomRegrowth(share=1.0),
)
LEVEL = -19.3


def measure(ticket: Ticket, tickets: Pair) -> dict[str, Any]:
    """Return accuracy and the verdict's numbers for a suspect."""
    model = network()
    load_arrays(model, ticket.weights)
    verdict = verify(Checkpoint(dict(ticket.weights)), tickets.credential)
    evidence = verdict.evidence[0]
    return {
        "accuracy": evaluate(model, dataset()),
        "status": verdict.status,
        "log10_p": evidence.log10_p,
        "hits": evidence.observed,
        "expected": evidence.expected,
        "reading": evidence.details["reading"],
    }


def worst(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Return the weakest log10 p over the seeds."""
    return max(float(row["suspects"][name]["log10_p"]) for row in rows)


def main() -> None:
    """Measure and write results/strength.json."""
    rows = judge(ATTACKS, measure)
    bars = {"log10 p, unattacked, weakest seed": Bar(value=worst(rows, "unattacked"), bound=-100.0, at_most=True)}
    for attack in ATTACKS:
        bars[f"log10 p, {attack.name}, weakest seed"] = Bar(value=worst(rows, attack.name), bound=LEVEL, at_most=True)
    write_result("strength", setting=SETTING, seeds=SEEDS, raw=rows, bars=bars)


if __name__ == "__main__":
    main()
