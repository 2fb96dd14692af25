"""Claim a stolen ticket with marks of one's own, which were never embedded in it."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from ticketguard.attacks.interface import Published
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.errors import TicketguardWarning
from ticketguard.keyed import SECRET_BYTES
from ticketguard.marking.plan import prepare
from ticketguard.models import load_arrays
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnMarks:
    """Draw marks for the released ticket, train nothing, and sign a claim over it.

    Attributes:
        forger: Who signs.
        level_bits: Level of the forged claim.
    """

    forger: Owner
    level_bits: int = DEFAULT_LEVEL_BITS

    @property
    def name(self) -> str:
        """The attack in a few words."""
        return "a claim with marks of one's own"

    def run(self, published: Published, *, generator: np.random.Generator) -> Credential:
        """Return the forger's credential."""
        network = published.build()
        load_arrays(network, published.ticket.weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TicketguardWarning)  # that a reordered copy may not be recognised
            plan = prepare(
                published.ticket, owner=self.forger, level_bits=self.level_bits, secret=generator.bytes(SECRET_BYTES)
            )
        return plan.finish(network, check=False, rescale=False)[1]
