"""LTR: lottery tickets with rewinding to an early step of training (Frankle et al. 2020)."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from ticketguard.pruning.descriptions.imp import RoundsConfig
from ticketguard.pruning.descriptions.method import Method
from ticketguard.pruning.descriptions.options import unless_given

# The reference's extreme tickets rewind to epoch 3 of 182 (Chen et al. 2021, arXiv 2111.00162, appendix A).
REWIND_SHARE = Fraction(3, 182)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewindingConfig(RoundsConfig):
    """Settings of IMP's rounds, with another rewind point unless one is given."""

    rewind_epochs: float = unless_given(f"{REWIND_SHARE} of the training's")


METHOD = Method(
    name="ltr",
    summary="rounds of training and magnitude pruning, rewinding to an early step",
    config=RewindingConfig,
    search="ticketguard.pruning.methods.ltr:find",
)
