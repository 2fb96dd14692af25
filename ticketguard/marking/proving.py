"""Whether what is released proves its marks: those that training may have worn away."""

from __future__ import annotations

import contextlib
import warnings

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.credentials.credential import Credential
from ticketguard.errors import TicketguardWarning
from ticketguard.ticket import Ticket
from ticketguard.verification.interface import Inquiry
from ticketguard.verification.registry import marks_read_from, scheme
from ticketguard.verification.verdict import level_log10


def warn_unless_proved(marked: Ticket, credential: Credential, *, schemes: set[str], instead: str) -> None:
    """Verify a network by its own claim, and warn, with a `TicketguardWarning`, of marks that do not prove it.

    Args:
        marked: The network, as it is released.
        credential: Its owner's.
        schemes: Names of the marks to look at, all read from weights.
        instead: What the owner does about it.
    """
    marks = marks_read_from(credential.claim.marks, "weights")
    for mark in marks:
        if mark.scheme not in schemes:
            continue
        with contextlib.ExitStack() as open_files:
            inquiry = Inquiry(
                credential=credential,
                mark=mark,
                weights=Checkpoint(marked.weights),
                answers=None,
                open_files=open_files,
            )
            threshold = level_log10(mark.level_bits, tests=len(marks))
            evidence = scheme(mark.scheme).examine(inquiry)(threshold)
        if evidence.status != "supported":
            warnings.warn(
                f"the {mark.scheme} of this network show 10^{evidence.log10_p:.1f}, and its claim needs "
                f"10^{threshold:.1f}: too many signs were turned in training, so that a copy may not prove ownership; "
                f"{instead}",
                TicketguardWarning,
                stacklevel=3,
            )
