"""The pruning methods of this release: a new one needs a line here, its description, and its search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ticketguard.pruning.descriptions import (
    bip,
    controls,
    cts,
    cts_kl,
    grasp,
    grokking,
    imp,
    jackpot,
    layer_lottery,
    ltr,
    magnitude,
    random,
    snip,
    supertickets,
    synflow,
)

if TYPE_CHECKING:
    from ticketguard.pruning.engine.interface import PruningMethod

# In the order in which 'find --methods' lists them.
METHODS: dict[str, PruningMethod] = {
    described.METHOD.name: described.METHOD
    for described in (
        imp,
        ltr,
        cts,
        cts_kl,
        jackpot,
        bip,
        supertickets,
        grokking,
        layer_lottery,
        snip,
        grasp,
        synflow,
        magnitude,
        random,
    )
}
METHODS.update({name: controls.control(name) for name in controls.CONTROLS})
