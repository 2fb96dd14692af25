"""Exact changes of weights under a mask: what a thief does before anything is trained again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ticketguard.ticket import Array, Mask

Generator = np.random.Generator


def edges_of(state: Mapping[str, Array], names: Mapping[str, object]) -> Mask:
    """Return where a sparse state dict's layers are not zero."""
    return Mask(layers={name: state[name] != 0 for name in sorted(names)})


def pruned(state: Mapping[str, Array], mask: Mask, share: float) -> Mask:
    """Drop the *share* of the edges with the smallest weights, over all layers together."""
    sizes = np.concatenate([np.abs(state[name][mask[name]]) for name in mask])
    bound = np.partition(sizes, min(round(share * sizes.size), sizes.size - 1))[round(share * sizes.size)]
    return Mask(layers={name: mask[name] & (np.abs(state[name]) >= bound) for name in mask})


def moved(mask: Mask, gone: Mapping[str, Array], generator: Generator) -> Mask:
    """Move the edges that are *gone* to positions drawn at random, in each layer, among those that were empty."""
    layers = {}
    for name in mask:
        layer = (mask[name] & ~gone[name]).reshape(-1)
        empty = np.flatnonzero(~mask[name].reshape(-1))
        count = min(int(gone[name].sum()), len(empty))
        layer[generator.choice(empty, size=count, replace=False)] = True
        layers[name] = layer.reshape(mask[name].shape)
    return Mask(layers=layers)


def weakest(state: Mapping[str, Array], mask: Mask, share: float) -> dict[str, Array]:
    """Return the edges that `pruned` would drop."""
    left = pruned(state, mask, share)
    return {name: mask[name] & ~left[name] for name in mask}


def grown(state: Mapping[str, Array], mask: Mask, share: float, generator: Generator) -> tuple[dict[str, Array], Mask]:
    """Add edges at random, a *share* of each layer's, with weights drawn from the layer's own."""
    weights, layers = dict(mask.applied(state)), {}
    for name in mask:
        flat, values = mask[name].reshape(-1).copy(), weights[name].reshape(-1).copy()
        edges, empty = np.flatnonzero(flat), np.flatnonzero(~flat)
        new = generator.choice(empty, size=min(len(empty), round(share * len(edges))), replace=False)
        if len(edges):
            values[new] = generator.choice(values[edges], size=len(new))
        flat[new] = True
        layers[name], weights[name] = flat.reshape(mask[name].shape), values.reshape(mask[name].shape)
    return weights, Mask(layers=layers)


def rounded(state: Mapping[str, Array], mask: Mask, bits: int) -> dict[str, Array]:
    """Round each layer's output channels to signed integers of *bits* and back, one scale a channel."""
    top = 2 ** (bits - 1) - 1
    weights = dict(state)
    for name in mask:
        rows = state[name].reshape(len(state[name]), -1)
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / top
        weights[name] = (np.rint(rows / scale) * scale).reshape(state[name].shape).astype(np.float32)
    return weights


def with_noise(state: Mapping[str, Array], mask: Mask, size: float, generator: Generator) -> dict[str, Array]:
    """Fill every hole with noise, *size* times as large as the layer's smallest hundredth of edges."""
    weights = dict(state)
    for name in mask:
        if (layer := mask[name]).any():
            spread = size * float(np.quantile(np.abs(state[name][layer]), 0.01))
            noise = generator.normal(0.0, spread, layer.shape)
            weights[name] = np.where(layer, state[name], noise).astype(np.float32)
    return weights


def drawn(mask: Mask, share: float, generator: Generator) -> dict[str, Array]:
    """Draw a *share* of the edges, over all layers together."""
    count = mask.kept
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[generator.choice(count, size=round(share * count), replace=False)] = True
    edges, begun = {}, 0
    for name in mask:
        layer = np.zeros(mask[name].shape, dtype=np.bool_)
        kept = int(mask[name].sum())
        layer[mask[name]] = chosen[begun : begun + kept]
        edges[name], begun = layer, begun + kept
    return edges


def flipped(state: Mapping[str, Array], edges: Mapping[str, Array]) -> dict[str, Array]:
    """Turn the signs of some edges."""
    return {**state, **{name: np.where(edges[name], -state[name], state[name]) for name in edges}}


def rewired(
    state: Mapping[str, Array], mask: Mask, share: float, generator: Generator
) -> tuple[dict[str, Array], Mask]:
    """Move the weakest edges to random places, which get the weights that went in another order; the rest is kept."""
    gone = weakest(state, mask, share)
    there = moved(mask, gone, generator)
    weights = dict(there.applied(state))
    for name in mask:
        fresh = there[name] & ~mask[name]
        values = np.array(weights[name])
        values[fresh] = generator.permutation(state[name][gone[name]])[: int(fresh.sum())]
        weights[name] = values
    return weights, there
