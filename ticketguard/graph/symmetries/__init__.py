"""Symmetries: what changes a network's weights and leaves its function alone, made and undone."""

from __future__ import annotations

from ticketguard.graph.symmetries.layouts import LAYOUTS, Move, Relayout
from ticketguard.graph.symmetries.names import Companion, Renaming
from ticketguard.graph.symmetries.norms import NORM_EPSILON, NormFolding, NormScaling
from ticketguard.graph.symmetries.permutation import Edge, EdgePermutation, Permutation
from ticketguard.graph.symmetries.scaling import Scaling
from ticketguard.graph.symmetries.streams import Shortcut, StreamPermutation, shortcut_index, streams_of
from ticketguard.graph.symmetries.trials import Same, Scalable
from ticketguard.graph.symmetries.turns import Grid, Turn, square_grids

__all__ = [
    "LAYOUTS",
    "NORM_EPSILON",
    "Companion",
    "Edge",
    "EdgePermutation",
    "Grid",
    "Move",
    "NormFolding",
    "NormScaling",
    "Permutation",
    "Relayout",
    "Renaming",
    "Same",
    "Scalable",
    "Scaling",
    "Shortcut",
    "StreamPermutation",
    "Turn",
    "shortcut_index",
    "square_grids",
    "streams_of",
]
