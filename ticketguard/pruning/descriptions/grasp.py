"""GraSP: keep the weights that gradient flow needs (Wang et al. 2020)."""

from __future__ import annotations

import dataclasses

from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraspConfig:
    """Settings of GraSP.

    Attributes:
        per_class: Training examples of each class that gradients are taken on; of a smaller class, all there are.
        temperature: What the network's outputs are divided by, so that no example counts as learnt already.
    """

    per_class: int = 25
    temperature: float = 200.0

    def __post_init__(self) -> None:
        require_in_range(self, "per_class", least=1)
        require_in_range(self, "temperature", above=0.0)


METHOD = Method(
    name="grasp",
    summary="the weights that gradient flow at initialisation needs",
    config=GraspConfig,
    search="ticketguard.pruning.methods.grasp:find",
)
