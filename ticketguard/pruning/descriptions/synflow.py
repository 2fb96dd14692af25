"""SynFlow: iterative pruning by conserved synaptic flow, without any data (Tanaka et al. 2020)."""

from __future__ import annotations

import dataclasses

from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynflowConfig:
    """Settings of SynFlow.

    Attributes:
        rounds: Rounds of scoring and pruning; after round k of n, density^(k/n) of the weights are left.
    """

    rounds: int = 100

    def __post_init__(self) -> None:
        require_in_range(self, "rounds", least=1)


METHOD = Method(
    name="synflow",
    summary="the weights that most signal flows through at initialisation; needs no data",
    config=SynflowConfig,
    search="ticketguard.pruning.methods.synflow:find",
)
