"""The mask as a graph: vertices are channels, edges are kept kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.graph.groups import ChannelGroup
from ticketguard.ticket import Mask

if TYPE_CHECKING:
    import networkx


def mask_graph(mask: Mask, groups: Sequence[ChannelGroup] = ()) -> networkx.DiGraph:
    """Return *mask* as a layered directed graph from input channels to output channels.

    A channel that several layers share (a residual sum) is one vertex: ``("group", g, c)``. A channel outside all
    groups belongs to its own layer: ``(layer, "in" or "out", position)``. An edge carries, per layer that joins its two
    vertices, the number of kept weights: ``edge["layers"] = {layer: weights}``, and their sum ``edge["weights"]``.

    Args:
        mask: Layers of shape (out, in, *kernel).
        groups: Channel groups; without them every layer is a bipartite graph of its own.
    """
    import networkx

    graph = networkx.DiGraph()
    for name in mask:
        kept = mask[name].reshape(*mask[name].shape[:2], -1).sum(axis=2)
        outs = _vertices(name, 0, kept.shape[0], groups)
        ins = _vertices(name, 1, kept.shape[1], groups)
        graph.add_nodes_from([*ins, *outs])
        for out, given in np.argwhere(kept).tolist():
            _add_edge(graph, ins[given], outs[out], name, int(kept[out, given]))
    return graph


def _vertices(name: str, axis: int, size: int, groups: Sequence[ChannelGroup]) -> list[tuple[str, int | str, int]]:
    vertices: list[tuple[str, int | str, int]] = [(name, ("out", "in")[axis], position) for position in range(size)]
    for index, group in enumerate(groups):
        for member in group:
            if (member.tensor, member.axis) == (name, axis):
                for channel, positions in enumerate(member.positions().tolist()):
                    for position in positions:
                        vertices[position] = ("group", index, channel)
    return vertices


def _add_edge(graph: networkx.DiGraph, start: object, end: object, layer: str, weights: int) -> None:
    if not graph.has_edge(start, end):
        graph.add_edge(start, end, layers={}, weights=0)
    edge = graph.edges[start, end]
    edge["layers"][layer] = edge["layers"].get(layer, 0) + weights
    edge["weights"] += weights
