"""Controls: what a ticket must be compared with before its mask or its weights are credited for its accuracy.

Re-initialised and randomly drawn masks are Frankle & Carbin's (2019, sections 2 and 3); shuffling within layers and
inverting are Frankle et al.'s (2021, "Pruning neural networks at initialization: why are we missing the mark?");
training from scratch is Liu et al.'s (2019, "Rethinking the value of network pruning").
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import CUT_STRUCTURES, REMOVED_BLOCKS, Factory, model_of, state_arrays, whole_model_of
from ticketguard.models.counting import multiplications
from ticketguard.pruning.engine.selection import full_mask, global_top_k
from ticketguard.seeds import entropy_of
from ticketguard.ticket import Array, BoolArray, Mask, Ticket

# Fresh weights must not be the ones that the ticket was found from, though both are drawn by the same small seeds.
FRESH_SEED = 1_000_000
# Scratch-B trains for the dense network's FLOPs, but for no more than so many times the epochs (Liu et al. 2019).
MOST_EPOCHS = 2.0
OWN_START, FRESH_START = "the ticket's start weights", "a fresh initialisation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What a control trains.

    Attributes:
        mask: Which weights are kept.
        start: The whole state dict that it is trained from.
        origin: Where *start* comes from: `OWN_START` or `FRESH_START`.
    """

    mask: Mask
    start: Mapping[str, Array]
    origin: str


def make_control(name: str, ticket: Ticket, *, seed: int, model: str | Factory | None = None) -> Trial:
    """Make one of `CONTROLS` of *ticket*.

    A control that is about the mask starts from the ticket's own start weights, if those say what pruned weights were.

    Args:
        name: The control.
        ticket: What is to be compared with it.
        seed: Fixes what is drawn: fresh weights, or another mask.
        model: Takes the place of the ticket's model.

    Raises:
        ConfigurationError: Shuffling or inverting changes nothing: all layers are kept, or dropped, whole.
    """
    change = _MASKS.get(name)
    mask = (
        ticket.mask
        if change is None
        else change(ticket.mask, np.random.default_rng([entropy_of(seed), _STREAMS[name]]))
    )
    own = None if change is None else dense_start(ticket)
    start = fresh_weights(ticket, seed=seed, model=model) if own is None else own
    return Trial(mask=mask, start=start, origin=FRESH_START if own is None else OWN_START)


def can_change(mask: Mask) -> bool:
    """Say whether some layer is kept in part, so that its mask could be another one of the same density."""
    return any(layer.any() and not layer.all() for layer in mask.layers.values())


def shuffled(mask: Mask, generator: np.random.Generator) -> Mask:
    """Permute each layer's mask at random; each keeps as many weights, and each that can change does.

    Raises:
        ConfigurationError: No layer can change.
    """
    _require_change(mask, "shuffling")
    layers = {}
    for name in mask:
        layer = mask[name].reshape(-1)
        drawn = generator.permutation(layer)
        while layer.any() and not layer.all() and np.array_equal(drawn, layer):
            drawn = generator.permutation(layer)
        layers[name] = drawn.reshape(mask[name].shape)
    return Mask(layers=layers)


def inverted(mask: Mask, generator: np.random.Generator) -> Mask:
    """Keep, in each layer, as many weights drawn at random among those that *mask* prunes; all of them if fewer.

    A layer that *mask* keeps whole stays whole: a layer without any weights would cut the network.

    Raises:
        ConfigurationError: No layer can change.
    """
    _require_change(mask, "inverting")
    layers = {}
    for name in mask:
        layer = mask[name].reshape(-1)
        outside = np.flatnonzero(~layer)
        other: BoolArray = layer.copy() if layer.all() else np.zeros(layer.size, dtype=np.bool_)
        other[generator.permutation(outside)[: int(layer.sum())]] = True
        layers[name] = other.reshape(mask[name].shape)
    return Mask(layers=layers)


def random_like(mask: Mask, generator: np.random.Generator) -> Mask:
    """Keep as many weights in all, drawn at random over all layers alike; no layer is left empty."""
    scores = {name: generator.random(mask[name].shape) for name in mask}
    return global_top_k(scores, mask.kept, within=full_mask({name: mask[name].shape for name in mask}))


_MASKS: Mapping[str, Callable[[Mask, np.random.Generator], Mask]] = {
    "inverted": inverted,
    "random_like": random_like,
    "shuffled": shuffled,
}
# Streams of the seed's generator; 1 is random pruning's own.
_STREAMS = {"shuffled": 2, "inverted": 3, "random_like": 4}


def _require_change(mask: Mask, deed: str) -> None:
    if not can_change(mask):
        raise ConfigurationError(
            f"{deed} changes nothing: the ticket keeps whole layers, not single weights; use 'scratch_e' as the control"
        )


def fresh_weights(ticket: Ticket, *, seed: int, model: str | Factory | None = None) -> dict[str, Array]:
    """Return the state dict of the ticket's network, initialised anew: never the initialisation it was found from.

    Where the ticket's tensors are smaller than the model's own, weights are scaled to the variance that an
    initialisation by fan-in (He et al. 2015) gives a network of the ticket's size.

    Args:
        ticket: Says model, options and size.
        seed: Fixes the initialisation.
        model: Takes the place of the ticket's model.
    """
    number = seed + FRESH_SEED + (seed + FRESH_SEED == ticket.info.seed)
    state = state_arrays(model_of(ticket, seed=number, model=model))
    if ticket.info.structure in CUT_STRUCTURES:
        whole = dense_network(ticket, seed=number, model=model).state_dict()
        for name in ticket.mask:
            before, after = (math.prod(shape[1:]) for shape in (whole[name].shape, state[name].shape))
            state[name] = (state[name] * math.sqrt(before / after)).astype(state[name].dtype)
    return state


def dense_start(ticket: Ticket) -> Mapping[str, Array] | None:
    """Return the ticket's rewind weights if they still say what the pruned weights were; None if they do not.

    They do if, in each layer, most of the weights that the mask prunes are not zero.
    """
    state = ticket.rewind_weights
    if state is None or any(
        not ticket.mask[name].all()
        and np.count_nonzero(state[name][~ticket.mask[name]]) * 2 <= (~ticket.mask[name]).sum()
        for name in ticket.mask
    ):
        return None
    return state


def dense_network(
    ticket: Ticket, *, seed: int, model: str | Factory | None = None, changes: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build the network that nothing was removed from, initialised by *seed*.

    Args:
        ticket: Says model and options.
        seed: Fixes the initialisation.
        model: Takes the place of the ticket's model.
        changes: To the ticket's model options; a ticket without some blocks says which options leave them out.

    Raises:
        ConfigurationError: The ticket's model options leave blocks out, and *changes* do not say what the whole one is.
    """
    removed = REMOVED_BLOCKS in ticket.info.model_options
    if ticket.info.structure == "block" and not removed and not changes:
        raise ConfigurationError(
            "the ticket's model options leave blocks out, expected those of the whole network too: give what changes "
            "with --dense-option NAME=VALUE (dense_options=)"
        )
    return whole_model_of(ticket, seed=seed, model=model, changes=changes)


def scratch_b_factor(
    ticket: Ticket,
    input_shape: Sequence[int],
    *,
    model: str | Factory | None = None,
    changes: Mapping[str, Any] | None = None,
) -> float:
    """Return how many times as many epochs of the ticket take the dense network's FLOPs, at most `MOST_EPOCHS`.

    Args:
        ticket: Mask and structure say what is computed.
        input_shape: Shape of one input without the batch axis.
        model: Takes the place of the ticket's model.
        changes: As `dense_network` takes them.
    """
    dense = multiplications(dense_network(ticket, seed=0, model=model, changes=changes), input_shape)
    sparse = multiplications(model_of(ticket, model=model), input_shape, mask=ticket.mask)
    return max(1.0, min(MOST_EPOCHS, dense / max(1, sparse)))
