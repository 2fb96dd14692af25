"""SuperTickets: one training run finds the channels of a supernet and their weights together."""

from __future__ import annotations

import dataclasses

from ticketguard.errors import ConfigurationError
from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range

ORDERS = ("joint", "search_first", "prune_first")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperTicketsConfig:
    """Settings of SuperTickets; the defaults are the paper's, for runs of some 350 epochs.

    Attributes:
        penalty: ρ of the loss term Σ ρ·cost·|γ| over the searched channels: γ is the scale of a channel's batch
            normalisation, cost its multiply-accumulates over those of the mean channel.
        warmup_epochs: Epochs over which ρ rises from 0.
        threshold: Channels whose scale is at most this large, whatever its sign, die.
        shrink_every: Epochs between the cuts of dead channels.
        prune_every: Epochs between prunings.
        prune_step: How much more of the remaining weights each pruning leaves out, until the density is reached.
        order: "joint" does both throughout. The two it is compared with give each task half of the epochs, as a run of
            its own with twice the pace (intervals and warm-up halved, ρ doubled, learning rate anew): "search_first"
            prunes what the search left, "prune_first" searches under the pruned weights.
    """

    penalty: float = 1.8e-4
    warmup_epochs: float = 25.0
    threshold: float = 1e-3
    shrink_every: float = 10.0
    prune_every: float = 25.0
    prune_step: float = 0.1
    order: str = "joint"

    def __post_init__(self) -> None:
        require_in_range(self, "penalty warmup_epochs threshold", least=0.0)
        require_in_range(self, "shrink_every prune_every", above=0.0)
        require_in_range(self, "prune_step", above=0.0, below=1.0)
        if self.order not in ORDERS:
            raise ConfigurationError(f"method option 'order' is '{self.order}', expected one of {', '.join(ORDERS)}")


METHOD = Method(
    name="supertickets",
    summary="channels of a supernet and weights, searched and pruned in one training run",
    config=SuperTicketsConfig,
    search="ticketguard.pruning.methods.supertickets:find",
    # A mark binds the network before the search, which loses channels that the mark would count on.
    chooses_weights=False,
)
