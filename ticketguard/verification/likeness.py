"""How like a reference's layer a suspect's tensor is: where its strongest weights lie, and how many in what row.

None of it sees a key. Which tensor stands for which layer may be chosen by it, at no cost: the secret edges are a fresh
draw given the reference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ticketguard.checkpoints.matching import Layout, Shape
from ticketguard.graph.groups import IndexArray
from ticketguard.graph.similarity import balanced
from ticketguard.graph.sketches import profiles, sketch
from ticketguard.ticket import AnyReference, FloatArray

# Positions of a layer that are looked up in each tensor, and of all layers together.
MOST_SAMPLES, MOST_SAMPLES_IN_ALL = 1024, 2**22
# Share of a full layer's weights that are compared: which edges it has says nothing.
FULL_SHARE = 0.25
# With more weights than this multiple of the reference's edges, a tensor's are compared relative to their channels.
DENSE = 2.0
# What a difference in how many weights are not zero counts beside what they look like.
AMOUNT_WEIGHT = 0.5
# A profile of fewer numbers correlates by chance.
FEWEST_PLACES = 12
# Nats beyond which two layers overlap as no two do by chance, among a million pairs.
CLEAR_NATS = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for: one of the reference's layers.

    Attributes:
        shape: (out, in, *kernel).
        edges: How many of a tensor's strongest weights are compared.
        samples: Flat positions of some of the reference's edges.
        sketch: What its edges look like, in any order of channels.
        profiles: How many edges its output channels have, and its input channels, in their order.
    """

    shape: Shape
    edges: int
    samples: IndexArray
    sketch: FloatArray
    profiles: tuple[FloatArray, FloatArray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """A tensor, read by one layout.

    Attributes:
        layout: The layout.
        layers: The layers that it may be in this layout.
        nats: By layer, how much more of its edges are among the tensor's strongest weights than chance gives: log
            likelihood ratio, in nats.
        sketch: What its strongest weights look like.
        profiles: How many of them its output channels have, and its input channels, in their order.
        alive: How many of its weights are not zero.
    """

    layout: Layout
    layers: frozenset[str]
    nats: Mapping[str, float]
    sketch: FloatArray
    profiles: tuple[FloatArray, FloatArray]
    alive: int


def wanted_layers(reference: AnyReference, names: Sequence[str]) -> dict[str, Wanted]:
    """Return what is looked for, one layer in memory at a time."""
    most = min(MOST_SAMPLES, max(1, MOST_SAMPLES_IN_ALL // max(1, len(names))))
    found: dict[str, Wanted] = {}
    for index, name in enumerate(names):
        mask = reference.mask[name]
        edges = np.flatnonzero(mask)
        if len(edges) == mask.size:
            strength = np.abs(reference.kept_weights[name])
            edges = np.sort(np.argsort(-strength, kind="stable")[: max(1, round(FULL_SHARE * mask.size))])
        generator = np.random.default_rng(index)
        samples = edges if len(edges) <= most else np.sort(generator.choice(edges, most, replace=False))
        found[name] = Wanted(
            shape=mask.shape,
            edges=len(edges),
            samples=samples,
            sketch=sketch(edges, mask.shape),
            profiles=profiles(edges, mask.shape),
        )
    return found


def look(layer: FloatArray, layout: Layout, wanted: Mapping[str, Wanted]) -> Seen:
    """Compare a tensor, read by one layout, with the layers that it might be.

    Args:
        layer: The tensor's weights in the layout's shape.
        layout: The layout.
        wanted: The layers, of one shape of kernel. Positions are compared only with those of the tensor's shape.
    """
    alive = int(np.count_nonzero(layer))
    edges = sorted(item.edges for item in wanted.values())
    strength = np.abs(balanced(layer) if alive > DENSE * edges[-1] else layer).reshape(-1)
    counts = sorted({min(count, alive) for count in edges} - {0})
    # Every threshold in one pass, over what is not zero.
    there = strength[strength > 0]
    ranks = [there.size - count for count in counts]
    split = np.partition(there, ranks) if ranks else there
    threshold = {
        count: max(float(split[rank]), np.finfo(np.float32).tiny) for count, rank in zip(counts, ranks, strict=True)
    }
    nats = {}
    for name, item in wanted.items():
        count = min(item.edges, alive)
        if item.shape != layer.shape or not count:
            continue
        hits = int(np.count_nonzero(strength[item.samples] >= threshold[count]))
        nats[name] = _log_likelihood_ratio(hits, len(item.samples), count / strength.size)
    typical = min(edges[len(edges) // 2], alive)
    strongest = (
        np.flatnonzero(strength >= threshold[typical])
        if typical and alive > DENSE * typical
        else np.flatnonzero(strength)
    )
    return Seen(
        layout=layout,
        layers=frozenset(wanted),
        nats=nats,
        sketch=sketch(strongest, layer.shape),
        profiles=profiles(strongest, layer.shape),
        alive=alive,
    )


def _log_likelihood_ratio(hits: int, samples: int, chance: float) -> float:
    """Return the log likelihood ratio of the observed rate of hits to chance; 0 where there are fewer."""
    rate = hits / samples
    if rate <= chance:
        return 0.0
    misses = 0.0 if rate == 1 else (1 - rate) * math.log((1 - rate) / (1 - chance))
    return samples * (rate * math.log(rate / chance) + misses)


def distances(wanted: Sequence[Wanted], seen: Sequence[Seen]) -> npt.NDArray[np.float64]:
    """Return how far layers are from tensors by what they look like, in mean squared deviations; about 2 if unrelated.

    Pruning, regrowth and training change all layers' sketches alike, so each side is compared with its own mean.
    """
    sides = []
    for sketches, counts in (
        ([item.sketch for item in wanted], [item.edges for item in wanted]),
        ([item.sketch for item in seen], [item.alive for item in seen]),
    ):
        amounts = np.log(np.maximum(np.array(counts, dtype=np.float64), 1))
        features = np.stack(sketches).astype(np.float64)
        sides.append((features - features.mean(axis=0), amounts - np.median(amounts)))
    (ours, our_edges), (theirs, their_edges) = sides
    scale = np.concatenate([ours, theirs]).std(axis=0) + 1e-3
    ours, theirs = ours / scale, theirs / scale
    squares = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1)[None] - 2 * ours @ theirs.T
    spread = our_edges.std() + 0.05
    return np.asarray(
        squares / ours.shape[1]
        + AMOUNT_WEIGHT * np.minimum(((our_edges[:, None] - their_edges[None]) / spread) ** 2, 4)
    )


def profile_nats(wanted: Sequence[Wanted], seen: Sequence[Seen]) -> npt.NDArray[np.float64]:
    """Return how much more layers' channels are like tensors', each in its place, than chance gives, in nats.

    It says something where one side of a layer is in order and the other is not: the log likelihood ratio of a
    correlation, −n/2 · ln(1 − r²), of what each has beside the others of its side.

    Args:
        wanted: Layers.
        seen: Tensors.

    Returns:
        Shape (layers, tensors); 0 where their shapes differ.
    """
    found = np.zeros((len(wanted), len(seen)))
    for axis in (0, 1):
        for size in {len(item.profiles[axis]) for item in wanted}:
            rows = [row for row, item in enumerate(wanted) if len(item.profiles[axis]) == size]
            columns = [column for column, item in enumerate(seen) if len(item.profiles[axis]) == size]
            if not columns or size < FEWEST_PLACES:
                continue
            ours = _beside_others([wanted[row].profiles[axis] for row in rows])
            theirs = _beside_others([seen[column].profiles[axis] for column in columns])
            correlation = np.clip(ours @ theirs.T, 0, 1 - 1e-6)
            found[np.ix_(rows, columns)] -= size / 2 * np.log1p(-(correlation**2))
    return found


def _beside_others(vectors: Sequence[FloatArray]) -> npt.NDArray[np.float64]:
    """Return vectors less the mean of all of them, and their own, with length 1."""
    rows = np.stack(vectors).astype(np.float64)
    rows /= np.maximum(rows.mean(axis=1, keepdims=True), 1e-9)
    if len(rows) > 1:
        rows -= rows.mean(axis=0)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
