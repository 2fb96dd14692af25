"""Which tensors of a file are which layers: by names, shapes and order, whatever library wrote them."""

from __future__ import annotations

from ticketguard.checkpoints.matching.layers import (
    MAX_NETWORKS,
    LayerMatch,
    fitting_names,
    match_layers,
    match_networks,
)
from ticketguard.checkpoints.matching.layouts import Layout, Shape, layouts_of

__all__ = [
    "MAX_NETWORKS",
    "LayerMatch",
    "Layout",
    "Shape",
    "fitting_names",
    "layouts_of",
    "match_layers",
    "match_networks",
]
