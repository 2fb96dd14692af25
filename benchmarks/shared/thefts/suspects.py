"""What is held against a credential: thefts, transformations that cost nothing, and networks that are no copies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import torch

from benchmarks.shared.thefts import masks
from benchmarks.shared.thefts.exact import Base, Change, State, dead, exact_rows
from benchmarks.shared.thefts.reading import AS_MADE, DISGUISED, Manner, Owned, generator_of
from benchmarks.shared.thefts.rows import Theft, untrained_states
from ticketguard.graph import ChannelGroup, channel_groups
from ticketguard.graph.surgery import Removal
from ticketguard.models import prunable_layers
from ticketguard.ticket import Array

# Share of the channels that an innocent suspect loses.
INNOCENT_CUT = 0.25

# A row, and what makes its suspect: nothing is made that was read before.
Suspect: TypeAlias = tuple[str, Callable[[], State]]


def stolen_suspects(owned: Owned) -> Iterator[Suspect]:
    """Give what was made of the stolen ticket, by row."""
    if owned.mark == "marked":
        theft = Theft(bench=owned.bench, stolen=owned.ticket, shelf=owned.shelf)
        states = functools.cache(lambda: dict(untrained_states(theft)))
        for row in ("pruned 50%", "pruned 80%", "pruned 90%", "doubled at random", "int8", "int4", "int3",
                    "noise in every hole", "kernels mirrored, images as they are"):  # fmt: skip
            if owned.shelf.has(row):
                yield row, lambda row=row: states()[row]  # type: ignore[misc]
    else:
        mask, weights = owned.ticket.mask, owned.ticket.weights
        yield "small mark, pruned 80%", lambda: masks.pruned(weights, mask, 0.8).applied(weights)
    for path in sorted(owned.shelf.folder.glob("*.safetensors")):
        row = path.stem
        is_small = row.startswith("small mark")
        if not row.startswith(("scratch", "unmarked")) and is_small == (owned.mark == "small"):
            yield row, functools.partial(owned.shelf.suspect, row)


def exact_suspects(owned: Owned, other: Callable[[], State], manner: Manner) -> Iterator[Suspect]:
    """Give the stolen ticket after each transformation that costs nothing.

    Args:
        owned: The stolen ticket.
        other: Gives an innocent network of its shape.
        manner: Whether it is permuted and rescaled first.
    """

    @functools.cache
    def state() -> State:
        released = dict(owned.ticket.weights)
        return owned.disguised("exact", released) if manner == DISGUISED else released

    def changed(row: str, change: Change) -> State:
        model = owned.setting.build(0)
        prunable = prunable_layers(model)
        layers = tuple(name for name, _ in model.named_parameters() if name in prunable)
        draw = generator_of(owned.bench.seed, row)
        return change(Base(state=state(), groups=_groups(owned), layers=layers, other=other(), generator=draw))

    for row, change in exact_rows(convolutional=owned.setting.model != "mlp", hidden=manner == DISGUISED):
        yield row, functools.partial(changed, row, change)


def innocent_suspects(owned: Owned, others: Mapping[int, Callable[[], State]]) -> Iterator[Suspect]:
    """Give networks that are no copies: the ticket before it was marked, one from scratch, and other seeds' tickets.

    Args:
        owned: Whose credential they are held against.
        others: Gives tickets by seed, this one's left out; each is permuted, cut and padded too.
    """
    for name, row in {
        "the ticket before it was marked": "unmarked",
        "trained from scratch under a random mask": "scratch, random mask, a ticket's budget",
    }.items():
        if (owned.shelf.folder / f"{row}.safetensors").exists():
            yield name, functools.partial(owned.shelf.suspect, row)
    for seed, ticket in others.items():
        row = f"the ticket of seed {seed}"
        yield row, ticket
        yield f"{row}, permuted and rescaled", lambda row=row, ticket=ticket: owned.disguised(row, ticket())  # type: ignore[misc]
        yield f"{row}, a quarter of its channels cut", functools.partial(_cut, owned, ticket, seed)
        yield f"{row}, dead neurons added", functools.partial(_padded, owned, ticket, seed)


def _groups(owned: Owned) -> tuple[ChannelGroup, ...]:
    return tuple(channel_groups(owned.setting.build(0), torch.zeros(1, *owned.setting.input_shape)))


def _cut(owned: Owned, ticket: Callable[[], State], seed: int) -> dict[str, Array]:
    state, draw = ticket(), generator_of(owned.bench.seed, f"cut {seed}")
    return Removal.drawn(state, _groups(owned), share=INNOCENT_CUT, generator=draw).apply(state)


def _padded(owned: Owned, ticket: Callable[[], State], seed: int) -> State:
    draw = generator_of(owned.bench.seed, f"padded {seed}")
    return dead(Base(state=ticket(), groups=_groups(owned), layers=(), other={}, generator=draw))


MANNERS: tuple[Manner, ...] = (AS_MADE, DISGUISED)
