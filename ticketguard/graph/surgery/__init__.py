"""Surgery: channels and neurons removed, cut away and added."""

from __future__ import annotations

from ticketguard.graph.surgery.blocks import BlockRemoval
from ticketguard.graph.surgery.cutting import Activation, Cut
from ticketguard.graph.surgery.everywhere import Added, Clique, in_every_group
from ticketguard.graph.surgery.growth import Growth
from ticketguard.graph.surgery.neurons import NewNeurons, SplitNeurons
from ticketguard.graph.surgery.removal import Removal, magnitudes

__all__ = [
    "Activation",
    "Added",
    "BlockRemoval",
    "Clique",
    "Cut",
    "Growth",
    "NewNeurons",
    "Removal",
    "SplitNeurons",
    "in_every_group",
    "magnitudes",
]
