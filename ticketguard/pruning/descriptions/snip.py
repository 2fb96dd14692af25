"""SNIP: single-shot pruning by connection sensitivity (Lee et al. 2019)."""

from __future__ import annotations

import dataclasses

from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import require_in_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class SnipConfig:
    """Settings of SNIP.

    Attributes:
        examples: Training examples in the one batch that sensitivity is measured on; the paper's is a training batch.
    """

    examples: int = 128

    def __post_init__(self) -> None:
        require_in_range(self, "examples", least=1)


METHOD = Method(
    name="snip",
    summary="the weights to which the loss is most sensitive at initialisation",
    config=SnipConfig,
    search="ticketguard.pruning.methods.snip:find",
)
