"""What thieves do to a ticket whose edges were planted and whose signs were drawn: one row a theft."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import torch

from benchmarks.shared.fleet import Task, accuracy_of
from benchmarks.shared.thefts import masks, structure
from benchmarks.shared.thefts.reading import generator_of
from benchmarks.shared.thefts.rows import Theft
from benchmarks.shared.thefts.tickets import Bench, fresh_state
from ticketguard.graph import channel_groups
from ticketguard.ticket import Array, Mask
from ticketguard.training import TrainingConfig

# What a thief begins with: a state dict, and the mask that is trained under; None trains everything.
Start: TypeAlias = tuple[Mapping[str, Array], Mask | None]
Change: TypeAlias = Callable[[Theft, np.random.Generator], Start]
# What training from scratch is given to be compared; longer rows are held against it too, and beat it sooner.
SHORT, OWN = "2 epochs", "a ticket's budget"
UNTOUCHED, PRUNED_MOST, DENSE = "untouched", "pruned 90%", "dense fine-tuning, 2 epochs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignRow:
    """A theft.

    Attributes:
        name: Of the row.
        start: Makes what the thief begins with.
        recipe: How it is trained; None for thefts that need no training.
        budget: Of training from scratch that it is compared with; None if it costs no training.
        adaptive: Whether the thief knows how keyed signs and planted graphs are read, and is after them.
    """

    name: str
    start: Change
    recipe: Callable[[Bench], TrainingConfig] | None = None
    budget: str | None = None
    adaptive: bool = False

    def make(self, theft: Theft) -> Task:
        """Make the suspect and keep it, with its accuracy."""
        bench = theft.bench
        state, mask = self.start(theft, generator_of(bench.seed, f"signs, {self.name}"))
        if self.recipe is None:
            accuracy = accuracy_of(bench.network(state), bench.data)
            theft.shelf.keep(self.name, state, exact=True, accuracy=accuracy, steps=0, epochs=0)
            return
        recipe, stream = self.recipe(bench), int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4])
        outcome = yield bench.run(bench.network(state), recipe, stream=stream, mask=mask)
        theft.keep(self.name, outcome, recipe)


def _tuning(epochs: float) -> Callable[[Bench], TrainingConfig]:
    return lambda bench: bench.recipe(epochs, tuning=True)


def _as_trained(bench: Bench) -> TrainingConfig:
    return bench.recipe(2)


def _as_a_ticket(bench: Bench) -> TrainingConfig:
    return bench.recipe()


def _pruned(theft: Theft, _: np.random.Generator, *, share: float) -> Start:
    mask = masks.pruned(theft.stolen.weights, theft.stolen.mask, share)
    return mask.applied(theft.stolen.weights), mask


def _stolen(theft: Theft, _: np.random.Generator, *, dense: bool = False) -> Start:
    return theft.stolen.weights, None if dense else theft.stolen.mask


def _changed(theft: Theft, draw: np.random.Generator, *, flip: float, prune: float = 0.0, rewire: float = 0.0) -> Start:
    """Prune, move the weakest edges, then flip the weakest of those that stayed where they were."""
    state, mask = theft.stolen.weights, theft.stolen.mask
    if prune:
        mask = masks.pruned(state, mask, prune)
        state = mask.applied(state)
    stay = mask
    if rewire:
        before = mask
        state, mask = masks.rewired(state, before, rewire, draw)
        stay = Mask(layers={name: before[name] & mask[name] for name in mask})
    if flip:
        state = masks.flipped(state, masks.weakest(state, stay, flip))
    return state, mask


def _half_flipped(theft: Theft, draw: np.random.Generator) -> Start:
    mask = theft.stolen.mask
    return masks.flipped(theft.stolen.weights, masks.drawn(mask, 0.5, draw)), mask


def _laundered(theft: Theft, draw: np.random.Generator) -> Start:
    return fresh_state(theft.bench, stream=int(draw.integers(2**31))), theft.stolen.mask


def _filters_flipped(theft: Theft, draw: np.random.Generator) -> Start:
    setting = theft.bench.setting
    groups = tuple(channel_groups(setting.build(0), torch.zeros(1, *setting.input_shape)))
    return structure.filters_flipped(theft.stolen.weights, groups, draw), theft.stolen.mask


def sign_rows(setting_model: str) -> Iterator[SignRow]:
    """List the thefts of tickets of a model, those that need no training first."""
    part = functools.partial
    yield SignRow(name=UNTOUCHED, start=_stolen)
    for share in (0.5, 0.8, 0.9, 0.95):
        yield SignRow(name=f"pruned {share:.0%}", start=part(_pruned, share=share))
    if setting_model != "mlp":
        yield SignRow(name="filters flipped", start=_filters_flipped, adaptive=True)
    yield SignRow(name=DENSE, start=part(_stolen, dense=True), recipe=_tuning(2), budget=SHORT)
    yield SignRow(
        name="fine-tuning at the training's rate, 2 epochs", start=_stolen, recipe=_as_trained, budget=SHORT
    )  # fmt: skip
    for share in (0.5, 0.8, 0.9):
        yield SignRow(
            name=f"pruned {share:.0%}, 2 epochs", start=part(_pruned, share=share), recipe=_tuning(2), budget=SHORT
        )
    short = part(SignRow, recipe=_tuning(3), budget=SHORT)
    yield short(name="30% rewired, 3 epochs", start=part(_changed, flip=0.0, rewire=0.3))
    adaptive = part(short, adaptive=True)
    for share in (0.3, 0.5, 0.7):
        yield adaptive(name=f"weakest {share:.0%} flipped, 3 epochs", start=part(_changed, flip=share))
    for share in (0.3, 0.5):
        yield adaptive(
            name=f"30% rewired, weakest {share:.0%} flipped, 3 epochs", start=part(_changed, flip=share, rewire=0.3)
        )
    yield adaptive(
        name="pruned 50%, 30% rewired, weakest 30% flipped, 3 epochs",
        start=part(_changed, flip=0.3, prune=0.5, rewire=0.3),
    )
    own = part(SignRow, recipe=_as_a_ticket, budget=OWN, adaptive=True)
    yield own(name="random half flipped, retrained", start=_half_flipped)
    yield own(name="laundered", start=_laundered)
