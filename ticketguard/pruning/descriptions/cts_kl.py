"""CTS-KL: Concrete Ticket Search for the mask that keeps the dense network's answers (arXiv 2512.07142)."""

from __future__ import annotations

from ticketguard.pruning.descriptions.cts import ConcreteConfig
from ticketguard.pruning.descriptions.method import Method

METHOD = Method(
    name="cts_kl",
    summary="gradient search for the mask under which frozen early weights answer as the dense network does",
    config=ConcreteConfig,
    search="ticketguard.pruning.methods.cts_kl:find",
)
