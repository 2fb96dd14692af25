"""A few layers of a large network by which it is seen whether anything of the reference is in a suspect at all.

An alignment of all layers costs seconds, and a lost one shows in any part: of a copy nearly everything is found, of an
unrelated network nothing. The narrowest layers are taken, because they tell most for their price: a layer of n channels
costs up to n³ steps. Which ones follows from the reference alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence

from ticketguard.graph.groups import CHANNEL_AXES, ChannelGroup
from ticketguard.graph.streams import Shape, loosened_streams

# Networks of up to so many edges are aligned at once. Of larger ones layers with this share of the edges are tried
# first, at least so many edges: a tenth of these are held out, of which chance shares a hundred and a copy thousands.
AT_ONCE, SHARE, LEAST_EDGES = 150_000, 0.08, 40_000


def few_layers(
    shapes: Mapping[str, Shape], edges: Mapping[str, int], groups: Sequence[ChannelGroup]
) -> tuple[str, ...]:
    """Return the layers to try first, sorted; all of them, where there is nothing to gain.

    Args:
        shapes: Shapes of the reference's layers that the suspect has.
        edges: How many edges each has.
        groups: Channel groups; layers that share channels with one another tell more together.
    """
    total = sum(edges[name] for name in shapes)
    most = max(LEAST_EDGES, SHARE * total)
    chosen: list[str] = []
    taken = 0
    for name in _narrow_neighbours(shapes, edges, groups) if total > AT_ONCE else ():
        # A layer alone has hardly a neighbour to be known by.
        if len(chosen) >= 2 and taken + edges[name] > most:
            break
        chosen.append(name)
        taken += edges[name]
    return tuple(sorted(chosen if chosen and 2 * taken < total else shapes))


def _narrow_neighbours(
    shapes: Mapping[str, Shape], edges: Mapping[str, int], groups: Sequence[ChannelGroup]
) -> Iterator[str]:
    """Yield layers, narrow ones first, and those first that share channels with one that was yielded.

    The first one is an end of the network, where channels mostly are in place: the one with the most edges.
    """
    streams = [{member.tensor for member in stream.reference} for stream in loosened_streams(groups, shapes, shapes)]
    of_layer: dict[str, list[int]] = {}
    for index, names in enumerate(streams):
        for name in names:
            of_layer.setdefault(name, []).append(index)
    width = {name: (max(shape[:CHANNEL_AXES], default=0), math.prod(shape), name) for name, shape in shapes.items()}
    left, reached = set(shapes), set[int]()
    beside: list[tuple[int, int, str]] = []
    ends = {name for names in streams for name in names if len(names) == 1}
    first = min(ends or shapes, key=lambda name: (width[name][0], -edges[name], name))
    for start in (first, *sorted(shapes, key=width.__getitem__)):
        if start not in left:
            continue
        beside.append(width[start])
        while beside:
            name = heapq.heappop(beside)[-1]
            if name not in left:
                continue
            left.discard(name)
            yield name
            for index in of_layer.get(name, ()):
                if index not in reached:
                    reached.add(index)
                    for other in streams[index] & left:
                        heapq.heappush(beside, width[other])
