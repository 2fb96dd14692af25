"""IMP: iterative magnitude pruning, rewinding to initialisation (Frankle & Carbin 2019)."""

from __future__ import annotations

import dataclasses

from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """Settings of iterative magnitude pruning.

    Attributes:
        prune_fraction: Share of the remaining weights dropped in each round; the last drops what is left to drop.
        level_epochs: Epochs of each round before the last mask; 0 for those of the final training.
        rewind_epochs: Epochs after which the rewind weights are taken; 0 rewinds to initialisation.
    """

    prune_fraction: float = 0.2
    level_epochs: float = 0.0
    rewind_epochs: float = 0.0

    def __post_init__(self) -> None:
        require_in_range(self, "prune_fraction", above=0.0, below=1.0)
        require_in_range(self, "level_epochs rewind_epochs", least=0.0)

    def kept_counts(self, positions: int, target: int) -> list[int]:
        """Return how many of *positions* weights each round's end keeps; the last is *target* exactly."""
        counts = []
        kept = float(positions)
        while (kept := kept * (1.0 - self.prune_fraction)) > target * 1.0001:
            counts.append(round(kept))
        return [*counts, target]


METHOD = Method(
    name="imp",
    summary="rounds of training and magnitude pruning, rewinding to initialisation",
    config=RoundsConfig,
    search="ticketguard.pruning.methods.imp:find",
)
