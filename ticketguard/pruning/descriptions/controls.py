"""The controls as methods: what each makes of a ticket in a file, and what they are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ticketguard.pruning.descriptions.method import Method

CONTROLS: Mapping[str, str] = {
    "inverted": "a ticket's layer densities, with weights that the ticket prunes: a control",
    "random_like": "weights drawn at random, as many as a ticket keeps in all: a control",
    "reinitialised": "a ticket's mask with fresh weights: a control",
    "scratch_b": "a ticket's mask with fresh weights, trained for the dense network's FLOPs: a control",
    "scratch_e": "a ticket's mask with fresh weights, trained for as many epochs: a control",
    "shuffled": "a ticket's mask, shuffled within each layer: a control",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Settings of a control.

    Attributes:
        ticket: File of the ticket that it is a control of; there is none by default, and one must be named.
    """

    ticket: str = ""


def control(name: str) -> Method:
    """Return one of `CONTROLS` as a method."""
    return Method(
        name=name,
        summary=CONTROLS[name],
        config=ControlConfig,
        search="ticketguard.pruning.methods.control_methods:find",
        chooses_weights=False,  # the ticket's mask says which
        takes=frozenset(),
    )
