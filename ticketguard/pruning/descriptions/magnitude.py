"""One-shot magnitude pruning at initialisation: a baseline."""

from __future__ import annotations

import dataclasses

from ticketguard.pruning.descriptions.method import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class MagnitudeConfig:
    """Magnitude pruning has no settings."""


METHOD = Method(
    name="magnitude",
    summary="the weights that are largest at initialisation: a baseline",
    config=MagnitudeConfig,
    search="ticketguard.pruning.methods.magnitude:find",
)
