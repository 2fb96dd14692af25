"""The rows of the table that need a thief's training, each a task of the fleet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from torch import nn

from benchmarks.shared.fleet import Outcome, Task, accuracy_of
from benchmarks.shared.thefts import masks, structure
from benchmarks.shared.thefts.storing import Shelf
from benchmarks.shared.thefts.tickets import Bench, embed, fresh_state, owner_of
from ticketguard.models.blocks import remove_blocks
from ticketguard.pruning.methods.controls import random_like
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import TrainingConfig

# Rank of the low-rank updates.
LOW_RANK = 4
# A thief who repairs a network after real channel pruning has this many images.
REPAIR_IMAGES = 10_000
EMBEDDINGS, EMBEDDING_SHARE = 8, 0.2
# The row that costs most.
OVERWRITTEN = "overwritten"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theft:
    """A stolen ticket and where the suspects made of it are kept.

    Attributes:
        bench: Setting, seed, device.
        stolen: The marked ticket.
        shelf: Where suspects go.
    """

    bench: Bench
    stolen: Ticket
    shelf: Shelf

    def generator(self, stream: int) -> np.random.Generator:
        """Return the thief's own randomness."""
        return np.random.default_rng([self.bench.seed, 1000 + stream])

    def keep(self, row: str, outcome: Outcome, recipe: TrainingConfig, **told: Any) -> None:
        """Keep a suspect that was trained."""
        spent: dict[str, Any] = {"steps": outcome.steps, "epochs": recipe.epochs}
        self.shelf.keep(row, outcome.state, accuracy=outcome.accuracy, **spent, **told)

    def tell_untrained(self, row: str, state: Mapping[str, Array]) -> None:
        """Measure a suspect that needed no training."""
        accuracy = accuracy_of(self.bench.network(state), self.bench.data)
        self.shelf.tell(row, accuracy=accuracy, steps=0, epochs=0)

    def tuned(
        self, row: str, state: Mapping[str, Array], mask: Mask | None, *, stream: int, epochs: float | None = None
    ) -> Task:
        """Fine-tune *state* under *mask*, and keep it."""
        recipe = self.bench.recipe(epochs, tuning=True)
        outcome = yield self.bench.run(self.bench.network(state), recipe, stream=stream, mask=mask)
        self.keep(row, outcome, recipe)


Row: TypeAlias = Callable[[Theft], Task]


def untrained_states(theft: Theft) -> Iterator[tuple[str, dict[str, Array]]]:
    """Make the suspects that need no training; the same ones each time."""
    state, mask = dict(theft.stolen.weights), theft.stolen.mask
    draw = theft.generator(0)
    for share in (0.5, 0.8, 0.9):
        yield f"pruned {share:.0%}", masks.pruned(state, mask, share).applied(state)
    yield "doubled at random", masks.grown(state, mask, 1.0, draw)[0]
    for bits in (8, 4, 3):
        yield f"int{bits}", masks.rounded(state, mask, bits)
    yield "noise in every hole", masks.with_noise(state, mask, 0.5, draw)
    if theft.bench.setting.model != "mlp":
        yield "kernels mirrored, images as they are", structure.mirrored(state)


def untrained(theft: Theft) -> Task:
    """Keep the stolen ticket, and measure what needs no training: it is made again when it is read."""
    yield from ()
    accuracy = accuracy_of(theft.bench.network(theft.stolen.weights), theft.bench.data)
    theft.shelf.keep("untouched", theft.stolen.weights, exact=True, accuracy=accuracy, steps=0, epochs=0)
    for row, state in untrained_states(theft):
        theft.tell_untrained(row, state)


def pruned_and_tuned(share: float) -> Row:
    """Prune and fine-tune for two epochs."""

    def task(theft: Theft) -> Task:
        mask = masks.pruned(theft.stolen.weights, theft.stolen.mask, share)
        yield from theft.tuned(
            f"pruned {share:.0%}, 2 epochs", mask.applied(theft.stolen.weights), mask, stream=30 + round(10 * share)
        )

    return task


def pruned_long(theft: Theft) -> Task:
    """Prune 75%, then train for 80 epochs."""
    mask = masks.pruned(theft.stolen.weights, theft.stolen.mask, 0.75)
    yield from theft.tuned("pruned 75%, 80 epochs", mask.applied(theft.stolen.weights), mask, stream=41, epochs=80)


def doubled_and_tuned(theft: Theft) -> Task:
    """Double the mask at random and fine-tune."""
    state, mask = masks.grown(theft.stolen.weights, theft.stolen.mask, 1.0, theft.generator(1))
    yield from theft.tuned("doubled at random, 2 epochs", state, mask, stream=42)


def pruned_and_regrown(theft: Theft) -> Task:
    """Prune half, regrow a fifth elsewhere, fine-tune."""
    left = masks.pruned(theft.stolen.weights, theft.stolen.mask, 0.5)
    state, mask = masks.grown(theft.stolen.weights, left, 0.2, theft.generator(2))
    yield from theft.tuned("pruned 50%, 20% regrown, 2 epochs", state, mask, stream=43)


def dense_tuned(theft: Theft) -> Task:
    """Drop the mask and fine-tune every weight."""
    yield from theft.tuned("dense fine-tuning, 2 epochs", theft.stolen.weights, None, stream=44)


def masked_tuned(theft: Theft) -> Task:
    """Fine-tune under the mask."""
    yield from theft.tuned("fine-tuning, 2 epochs", theft.stolen.weights, theft.stolen.mask, stream=45)


def mirrored_tuned(theft: Theft) -> Task:
    """Mirror all kernels, leave the images, fine-tune."""
    mask = Mask(layers=structure.mirrored(theft.stolen.mask.layers))
    yield from theft.tuned("kernels mirrored, 2 epochs", structure.mirrored(theft.stolen.weights), mask, stream=46)


def rewired(share: float, epochs: float | None = None) -> Row:
    """Move the weakest edges to random places, draw new weights, and train as a ticket is trained."""

    def task(theft: Theft) -> Task:
        number = round(100 * share)
        gone = masks.weakest(theft.stolen.weights, theft.stolen.mask, share)
        mask = masks.moved(theft.stolen.mask, gone, theft.generator(number))
        recipe = theft.bench.recipe(epochs)
        model = theft.bench.network(fresh_state(theft.bench, stream=200 + number))
        outcome = yield theft.bench.run(model, recipe, stream=100 + number, mask=mask)
        length = "" if epochs is None else f", {epochs:g} epochs"
        theft.keep(f"{share:.0%} rewired, new weights{length}" if share else "new weights", outcome, recipe)

    return task


def _shaped(theft: Theft, row: str, model: nn.Module, *, stream: int, repair: bool) -> Task:
    """Fine-tune a network of another shape under the edges that are left of the ticket's."""
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    mask = masks.edges_of(state, {name: None for name in theft.stolen.mask if name in state})
    images = min(REPAIR_IMAGES, len(theft.bench.data.train_labels)) if repair else None
    recipe = theft.bench.recipe(1 if repair else 2, tuning=True)
    outcome = yield theft.bench.run(model, recipe, stream=stream, mask=mask, examples=images)
    theft.keep(row, outcome, recipe, examples=images)


def channels_pruned(share: float) -> Row:
    """Cut channels with Torch-Pruning and repair with 10 000 images."""

    def task(theft: Theft) -> Task:
        model = structure.torch_pruned(
            theft.bench.network(theft.stolen.weights), theft.bench.setting.input_shape, share
        )
        row = f"Torch-Pruning {share:.0%}, 10 000 images"
        yield from _shaped(theft, row, model, stream=50 + round(10 * share), repair=True)

    return task


def inner_channels_removed(theft: Theft) -> Task:
    """Remove a quarter of the inner channels, two epochs."""
    model = structure.without_inner_channels(
        theft.bench.network(theft.stolen.weights), theft.bench.setting.input_shape, 0.25
    )
    yield from _shaped(theft, "25% of inner channels removed, 2 epochs", model, stream=55, repair=False)


def block_removed(theft: Theft) -> Task:
    """Take one residual block out, two epochs."""
    model = theft.bench.network(theft.stolen.weights)
    remove_blocks(model, ["layer2.1"])
    yield from _shaped(theft, "a block removed, 2 epochs", model, stream=56, repair=False)


def low_rank(theft: Theft) -> Task:
    """Prune half, train low-rank updates for two epochs, merge them."""
    mask = masks.pruned(theft.stolen.weights, theft.stolen.mask, 0.5)
    model = theft.bench.network(mask.applied(theft.stolen.weights))
    structure.with_low_rank(model, LOW_RANK, seed=theft.bench.draw(57))
    recipe = theft.bench.recipe(2, tuning=True)
    outcome = yield theft.bench.run(model, recipe, stream=57)
    theft.keep("pruned 50%, LoRA merged", dataclasses.replace(outcome, state=structure.merged(model)), recipe)


def overwritten(theft: Theft) -> Task:
    """Embed eight marks of the thief's own, one over the other."""
    bench, ticket = theft.bench, theft.stolen
    recipe = bench.recipe(20 if bench.setting.model == "mlp" else None)
    for number in range(1, EMBEDDINGS + 1):
        again = yield from embed(
            bench,
            dataclasses.replace(ticket, rewind_weights=None),
            owner=owner_of(bench.folder, "thief"),
            share=EMBEDDING_SHARE,
            words=("thief", bench.setting.name, bench.seed, number),
            training=recipe,
            stream=60 + number,
        )
        ticket = again.ticket
        if number in (1, 2, 4, EMBEDDINGS):
            theft.shelf.keep(f"overwritten {number} times", ticket.weights, accuracy=ticket.info.accuracy,
                             epochs=recipe.epochs * number, steps=0)  # fmt: skip


def from_scratch_and_soup(theft: Theft) -> Task:
    """Train a random mask from scratch, as long as a ticket; then mix it into the stolen ticket."""
    bench = theft.bench
    mask = random_like(theft.stolen.mask, theft.generator(3))
    recipe = bench.recipe()
    innocent = yield bench.run(bench.network(fresh_state(bench, stream=70)), recipe, stream=70, mask=mask)
    theft.keep("scratch, random mask, a ticket's budget", innocent, recipe)
    union = Mask(layers={name: mask[name] | theft.stolen.mask[name] for name in mask})
    for share in (0.7, 0.3):
        mixed = {
            name: (share * array + (1 - share) * innocent.state[name]).astype(array.dtype)
            for name, array in theft.stolen.weights.items()
        }
        theft.tell_untrained(f"soup, {share:.0%} stolen", mixed)
        yield from theft.tuned(f"soup, {share:.0%} stolen, 2 epochs", mixed, union, stream=71)


def scratch(kind: str, epochs: float, *, images: int | None = None) -> Row:
    """Train from scratch at a thief's budget: a dense network, or one under a random mask."""

    def task(theft: Theft) -> Task:
        bench = theft.bench
        mask = None if kind == "dense" else random_like(theft.stolen.mask, theft.generator(4))
        examples = None if images is None else min(images, len(bench.data.train_labels))
        recipe = dataclasses.replace(bench.recipe(epochs), schedule="cosine")
        model = bench.network(fresh_state(bench, stream=80))
        outcome = yield bench.run(model, recipe, stream=80, mask=mask, examples=examples)
        budget = f"{epochs:g} epochs" + ("" if images is None else f" of {images} images")
        theft.shelf.tell(f"scratch, {kind}, {budget}", accuracy=outcome.accuracy, steps=outcome.steps, epochs=epochs)

    return task


def rows(theft: Theft) -> Iterator[tuple[str, int, Row]]:
    """List the tasks of a stolen ticket: name, priority (lower goes first), task; long chains must begin early."""
    perceptron = theft.bench.setting.model == "mlp"
    yield "untrained", 10, untrained
    if perceptron:
        yield "pruned 75%, 80 epochs", 11, pruned_long
        yield "70% rewired, 80 epochs", 11, rewired(0.7, 80)
    yield OVERWRITTEN, 11, overwritten
    for share in (0.5, 0.3, 0.7):
        yield f"{share:.0%} rewired", 11, rewired(share)
    yield "25% of inner channels removed", 12, inner_channels_removed
    for share in (0.1, 0.2, 0.3):
        yield f"Torch-Pruning {share:.0%}", 12, channels_pruned(share)
    for share in (0.5, 0.8, 0.9):
        yield f"pruned {share:.0%} and tuned", 13, pruned_and_tuned(share)
    if not perceptron:
        yield "a block removed", 13, block_removed
        yield "mirrored and tuned", 13, mirrored_tuned
    yield "new weights", 14, rewired(0.0)
    yield "pruned and regrown", 14, pruned_and_regrown
    yield "LoRA", 14, low_rank
    yield "dense fine-tuning", 14, dense_tuned
    yield "fine-tuning", 14, masked_tuned
    yield "doubled and tuned", 14, doubled_and_tuned
    yield "from scratch and soup", 15, from_scratch_and_soup
    for kind in ("dense", "random mask"):
        yield f"scratch {kind}, 2 epochs", 16, scratch(kind, 2)
        yield f"scratch {kind}, few images", 16, scratch(kind, 1, images=REPAIR_IMAGES)
        yield f"scratch {kind}, a ticket's budget", 16, scratch(kind, theft.bench.setting.training.epochs)
        if perceptron:
            yield f"scratch {kind}, 80 epochs", 16, scratch(kind, 80)
