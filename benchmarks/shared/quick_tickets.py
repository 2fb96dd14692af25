"""Tickets that take seconds: a perceptron and a convolutional network on the digits, found, and marked.

`benchmarks.honesty` is about keys: a verdict's p-value has to be as rare as it says on any suspect, so small tickets
say as much as large ones, and anybody can make them. They carry their mark as large ones do, and are stolen like them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

import ticketguard as tg
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.graph import ChannelGroup, groups_from_json
from ticketguard.graph.surgery import NewNeurons, Removal, SplitNeurons, in_every_group
from ticketguard.graph.symmetries import Permutation, Turn
from ticketguard.ticket import Reference
from ticketguard.training import TrainingConfig
from ticketguard.verification.interface import own_parameters
from ticketguard.verification.ways import Way, likeliest_way

DENSITY = 0.1
FINDING: dict[str, Any] = {"training": {"epochs": 12}, "method_options": {"prune_fraction": 0.7, "level_epochs": 5}}
EMBEDDING: dict[str, Any] = {"training": {"epochs": 30}}
MODELS = {"perceptron": "mlp", "convolutional": "benchmarks.shared.quick_tickets:convolutional"}
REMOVED_SHARE, ADDED = 0.25, 6
State = dict[str, Any]


def convolutional(*, classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Build a convolutional network of 56 000 weights."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quick:
    """A network's tickets, and what has become of them.

    Attributes:
        credential: The owner's.
        reference: What its commitment binds.
        parameters: Of the planted graph.
        groups: Channel groups that the commitment binds.
        suspects: State dicts by name.
    """

    credential: tg.Credential
    reference: Reference
    parameters: PlantedParameters
    groups: tuple[ChannelGroup, ...]
    suspects: dict[str, State]

    def way(self, suspect: tg.Checkpoint) -> Way:
        """Return how a suspect is read beside the reference."""
        return likeliest_way(suspect, self.reference, self.groups)


def quick(name: str) -> Quick:
    """Find, mark and steal one network's tickets."""
    tickets = [tg.find(MODELS[name], data="digits", density=DENSITY, seed=seed, **_finding()) for seed in (0, 1)]
    secret = hashlib.sha256(b"quick ticket " + name.encode()).digest()
    training = TrainingConfig.from_json({**tickets[0].info.training, **EMBEDDING["training"]})
    marked, credential = tg.embed(
        tickets[0], owner=tg.Owner.generate("benchmark"), marks=[tg.PlantedGraph()], training=training, seed=0,
        secret=secret,
    )  # fmt: skip
    groups = tuple(groups_from_json(credential.vault.channel_groups))
    states = {"marked": dict(marked.weights), "innocent": dict(tickets[1].weights)}
    suspects: dict[str, State] = {"unmarked": dict(tickets[0].weights)}
    for kind, state in states.items():
        suspects |= {f"{kind}{what}": stolen for what, stolen in _stolen(state, groups).items()}
    # An innocent network that merely is in another order cannot be aligned, and reads as it is stored.
    suspects = {
        name: state for name, state in suspects.items() if name not in ("innocent, permuted", "innocent, turned")
    }
    return Quick(
        credential=credential,
        reference=credential.reference,
        parameters=PlantedParameters.from_json(own_parameters(credential.claim.marks[0])),
        groups=groups,
        suspects=suspects,
    )


def _finding() -> dict[str, Any]:
    return {"training": TrainingConfig(**FINDING["training"]), "method_options": FINDING["method_options"]}


def _stolen(state: State, groups: tuple[ChannelGroup, ...]) -> dict[str, State]:
    """Return what thieves make of a network; all but what is refilled has its channels permuted as well."""
    generator = np.random.default_rng(5)

    def permuted(changed: State, now: Sequence[ChannelGroup]) -> State:
        return Permutation.drawn(changed, now, generator=generator).apply(changed)

    removal = Removal.drawn(state, groups, share=REMOVED_SHARE, generator=generator)
    padded: State = dict(state)
    now = groups
    for draw in (NewNeurons.dead, SplitNeurons.drawn):
        chain, after = in_every_group(
            padded, now, lambda current, group, draw=draw: draw(current, group, count=ADDED, generator=generator)
        )
        padded, now = chain.apply(padded), after
    found = {
        "": state,
        ", refilled": {name: _refilled(array, generator) for name, array in state.items()},
        ", permuted": permuted(state, groups),
        ", cut": permuted(removal.apply(state), removal.groups_after(state)),
        ", padded": permuted(padded, now),
    }
    if any(array.ndim == 4 for array in state.values()):
        turned = Turn.drawn(state, generator=generator).apply(state)
        found[", turned"] = permuted(turned, groups)
    return found


def _refilled(array: Any, generator: np.random.Generator) -> Any:
    """Return a layer with noise in every hole, a third as large as what it has."""
    if array.ndim < 2:
        return array
    scale = float(np.abs(array).sum()) / max(1, np.count_nonzero(array)) / 3
    noise = generator.normal(scale=scale, size=array.shape).astype(np.float32)
    return np.where(array == 0, noise, array)
