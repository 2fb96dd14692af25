"""Planted signs: how many planted edges keep the sign that the key gave them, and what that adds to a verdict.

Perceptrons on the digits, pruned to 10% by IMP. The same mark is embedded with and without planted signs, and stolen.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import owner, secret_of
from ticketguard.attacks import FineTuning, MagnitudePruning, RandomRegrowth, Victim
from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.credentials.credential import Credential
from ticketguard.data import load_data
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedGraph, PlantedParameters
from ticketguard.models import build_model
from ticketguard.pipeline import embed, find, verify
from ticketguard.ticket import Mask, Ticket
from ticketguard.training import TrainingConfig, train
from ticketguard.verification.interface import own_parameters
from ticketguard.verification.planted_graph.counting import ReadSuspect, count_hits

SEEDS = (0, 1, 2)
TRAINING = {"epochs": 30}
SETTING = {"model": "mlp", "data": "digits", "method": "imp", "density": 0.1, "training": TRAINING}
AT_THE_RATE = TrainingConfig(epochs=5, learning_rate=0.1, schedule="constant")
# Half the ticket's rate, without its mask.
DENSE = TrainingConfig(epochs=2, learning_rate=0.05, schedule="constant")
REWIRING = TrainingConfig(epochs=10, learning_rate=0.1)
REWIRED_SHARE, SMALL_SHARE = 0.3, 0.3
Steal = Callable[[Victim, np.random.Generator], Ticket]


def rewired(victim: Victim, generator: np.random.Generator) -> Ticket:
    """Replace the weakest edges of every layer by random ones, and train."""
    ticket, layers, weights = victim.ticket, {}, dict(victim.ticket.weights)
    for name in ticket.mask:
        flat = weights[name].reshape(-1).copy()
        edges, free = np.flatnonzero(ticket.mask[name]), np.flatnonzero(~ticket.mask[name])
        weakest = edges[np.argsort(np.abs(flat[edges]))[: round(REWIRED_SHARE * len(edges))]]
        others = generator.choice(free, size=len(weakest), replace=False)
        flat[others] = generator.choice(flat[edges], size=len(weakest))
        flat[weakest] = 0
        weights[name] = flat.reshape(weights[name].shape)
        layers[name] = weights[name] != 0
    moved = dataclasses.replace(ticket, mask=Mask(layers=layers), weights=weights)
    return FineTuning(training=REWIRING).run(dataclasses.replace(victim, ticket=moved), generator=generator)


def retrained(victim: Victim, generator: np.random.Generator) -> Ticket:
    """Train fresh weights under the stolen mask, for as long as the ticket was trained."""
    ticket = victim.ticket
    seed = int(generator.integers(2**31))
    fresh = build_model(ticket.info.model, options=model_options(ticket), seed=seed)
    result = train(fresh, victim.data, TrainingConfig(**TRAINING), seed=seed, mask=ticket.mask)
    return dataclasses.replace(ticket, weights=result.state)


def pruned_and_tuned(victim: Victim, generator: np.random.Generator) -> Ticket:
    """Prune 80%, and train on."""
    pruned = MagnitudePruning(share=0.8).run(victim, generator=generator)
    return FineTuning(training=AT_THE_RATE).run(dataclasses.replace(victim, ticket=pruned), generator=generator)


def informed(start: Mapping[str, Any]) -> Steal:
    """Return the theft of somebody who knows the start weights: a public seed gives them away.

    Edges that started among the smallest three tenths of their layer go, as do those that changed sign.
    """

    def steal(victim: Victim, generator: np.random.Generator) -> Ticket:
        layers, weights = {}, dict(victim.ticket.weights)
        for name in victim.ticket.mask:
            kept, before = victim.ticket.mask[name], start[name]
            is_small = np.abs(before) <= np.quantile(np.abs(before[kept]), SMALL_SHARE)
            layers[name] = kept & ~is_small & (np.sign(weights[name]) == np.sign(before))
            weights[name] = np.where(layers[name], weights[name], 0)
        fewer = dataclasses.replace(victim.ticket, mask=Mask(layers=layers), weights=weights)
        return FineTuning(training=AT_THE_RATE).run(dataclasses.replace(victim, ticket=fewer), generator=generator)

    return steal


def flipped(victim: Victim, generator: np.random.Generator) -> Ticket:
    """Turn the signs of half of the rows; a normalisation would take that back."""
    weights = dict(victim.ticket.weights)
    for name in victim.ticket.mask:
        signs = generator.choice([-1, 1], size=(len(weights[name]), 1)).astype(np.float32)
        weights[name] = weights[name] * signs
    return dataclasses.replace(victim.ticket, weights=weights)


THEFTS: Mapping[str, Steal] = {
    "untouched": lambda victim, generator: victim.ticket,
    "pruned-50": lambda victim, generator: MagnitudePruning(share=0.5).run(victim, generator=generator),
    "pruned-80": lambda victim, generator: MagnitudePruning(share=0.8).run(victim, generator=generator),
    "pruned-90": lambda victim, generator: MagnitudePruning(share=0.9).run(victim, generator=generator),
    "pruned-80, 5 epochs": pruned_and_tuned,
    "5 epochs under the mask": lambda victim, generator: FineTuning(training=AT_THE_RATE).run(
        victim, generator=generator
    ),
    "2 epochs without the mask": lambda victim, generator: FineTuning(training=DENSE, keep_mask=False).run(
        victim, generator=generator
    ),
    "regrown-100": lambda victim, generator: RandomRegrowth(share=1.0).run(victim, generator=generator),
    "rewired-30": rewired,
    "rows flipped": flipped,
    "new weights under the mask": retrained,
}


def model_options(ticket: Ticket) -> dict[str, Any]:
    """Return what the ticket's model is built with."""
    return {**ticket.info.model_options, "classes": ticket.info.classes, "input_shape": ticket.info.input_shape}


def read(stolen: Ticket, credential: Credential) -> dict[str, Any]:
    """Return what hits alone and hits with their signs show, and how many planted signs are left."""
    mark = credential.claim.marks[0]
    parameters = PlantedParameters.from_json(own_parameters(mark))
    binding = Binding(secret=credential.vault.secret, commitment=mark.commitment)
    weights = {name: stolen.weights[name].astype(np.float32) for name in credential.reference.mask}
    counts = count_hits(ReadSuspect.of(weights, credential.reference, parameters), binding, parameters)
    evidence = verify(Checkpoint(dict(stolen.weights)), credential).evidence[0]
    found: dict[str, Any] = {
        "hits": counts[0].hits,
        "alone": min(counted.results[0] for counted in counts),
        "log10_p": evidence.log10_p,
        "status": evidence.status,
        "signs": evidence.details.get("signs"),
    }
    best = min(counts, key=lambda counted: min(counted.results))
    if best.signs is not None:
        found |= {
            "with_signs": min(counted.results[1] for counted in counts),
            "agreeing": best.signs.agreeing,
            "of": best.signs.coins,
        }
    return found


def measure(seed: int) -> dict[str, Any]:
    """Embed both kinds of marks into a ticket, and steal them."""
    ticket = find("mlp", data="digits", method="imp", density=0.1, training=TRAINING, seed=seed)
    row: dict[str, Any] = {"seed": seed, "unmarked accuracy": ticket.info.accuracy}
    for signed in (True, False):
        marked, credential = embed(
            ticket,
            owner=owner(),
            marks=[PlantedGraph(signed=signed)],
            seed=seed,
            secret=secret_of(seed),
            training=TRAINING,
        )
        victim = Victim(
            ticket=marked,
            build=lambda: build_model(ticket.info.model, options=model_options(ticket), seed=0),
            data=load_data("digits", options={}),
        )
        kind = "signed" if signed else "unsigned"
        row[kind] = {"accuracy": marked.info.accuracy}
        for name, steal in {**THEFTS, "start weights known": informed(ticket.start_weights)}.items():
            stolen = steal(victim, np.random.default_rng(seed))
            row[kind][name] = {"accuracy": stolen.info.accuracy, **read(stolen, credential)}
            print(seed, kind, name, row[kind][name], flush=True)
    return row


def main() -> None:
    """Measure and write results/planted_signs.json."""
    rows = [measure(seed) for seed in SEEDS]

    def mean(of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.mean(map(of, rows))

    lost = mean(lambda row: 100 * (row["unsigned"]["accuracy"] - row["signed"]["accuracy"]))
    left = [row["signed"]["untouched"]["agreeing"] / row["signed"]["untouched"]["of"] for row in rows]
    bars = {
        "points of accuracy lost beside the same mark without signs": Bar(value=lost, bound=0.5, at_most=True),
        "share of signs that training turned, most": Bar(value=1 - min(left), bound=0.14, at_most=True),
        "new weights under the mask, weakest log10 p": Bar(
            value=max(row["signed"]["new weights under the mask"]["log10_p"] for row in rows),
            bound=-19.3,
            at_most=True,
        ),
        "start weights known, weakest log10 p": Bar(
            value=max(row["signed"]["start weights known"]["log10_p"] for row in rows), bound=-19.3, at_most=True
        ),
    }
    for theft in ("untouched", "pruned-80", "regrown-100", "rewired-30"):
        gain = mean(lambda row: row["signed"][theft]["with_signs"] / row["signed"][theft]["alone"])  # noqa: B023
        bars[f"log10 p with signs beside hits alone, {theft}"] = Bar(value=gain, bound=1.2, at_most=False)
    write_result("planted_signs", setting=SETTING, seeds=SEEDS, raw=rows, bars=bars)


if __name__ == "__main__":
    main()
