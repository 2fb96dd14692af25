"""Random pruning at initialisation: the baseline that every search must beat."""

from __future__ import annotations

import dataclasses

from ticketguard.pruning.descriptions.method import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Random pruning has no settings."""


METHOD = Method(
    name="random",
    summary="weights drawn at random: the baseline that every search must beat",
    config=RandomConfig,
    search="ticketguard.pruning.methods.random:find",
)
