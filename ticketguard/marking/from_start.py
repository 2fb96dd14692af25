"""Marks that bind the weights a training starts from, before anything is trained.

The start weights are quantised and committed to; the key's signs follow from that, and go into the weights that the
training starts from. Other marks of the same claim bind the same start.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import Binding, Json, Mark, SearchedMark, StartMark
from ticketguard.errors import TicketguardWarning
from ticketguard.keyed import KeyedStream
from ticketguard.marking.commitments import claim_of
from ticketguard.ticket import Array, Mask, StartReference, Ticket, TicketInfo
from ticketguard.ticket.start_reference import SALT_BYTES

# Layers that a warning names.
MOST_NAMED = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartMarks:
    """Marks that are drawn for start weights.

    Attributes:
        reference: What the commitments bind.
        vault: The owner's.
        claims: The marks, each with what the claim will say of it.
        weights: What training starts from: the start weights, with the marks that are in them.
        left_out: Why layers carry no such mark, by name.
    """

    reference: StartReference
    vault: Vault
    claims: tuple[tuple[Mark, MarkClaim], ...]
    weights: Mapping[str, Array]
    left_out: Mapping[str, str]


def bind_start(
    start: Mapping[str, Array],
    everything: Mask,
    marks: Sequence[Mark],
    *,
    owner: Owner,
    secret: bytes,
    info: TicketInfo,
    density: float,
    groups: Sequence[Sequence[Sequence[str | int]]] | None,
    level_bits: int,
) -> StartMarks:
    """Commit to start weights and draw the marks that are in them.

    Args:
        start: A state dict.
        everything: The mask that keeps all prunable weights: the layers that are bound.
        marks: Kinds of marks, one that is in the start weights among them.
        owner: Whose marks they are.
        secret: 32 secret bytes.
        info: What will be known of the network.
        density: Share of the prunable weights that it will keep.
        groups: The model's channel groups as plain JSON; None if they are unknown.
        level_bits: A verdict will need p ≤ 2^-level_bits.

    Raises:
        ConfigurationError: Most of the start weights cannot carry a mark, or one cannot be made for a network that is
            not trained yet.
    """
    first = next(mark for mark in marks if isinstance(mark, StartMark))
    reference, left_out = first.bound({name: start[name] for name in everything}, salt=_salt(secret))
    vault = Vault(secret=secret, reference=reference.to_bytes(), channel_groups=groups)
    digest = reference.digest()
    untrained = Ticket(mask=everything, weights=start, rewind_weights=start, info=info)
    claims = tuple(
        (
            mark,
            claim_of(mark, _parameters(mark, untrained, density), vault, digest, owner=owner, level_bits=level_bits),
        )
        for mark in marks
    )
    weights = dict(start)
    for mark, claim in claims:
        if isinstance(mark, StartMark):
            weights = mark.drawn(weights, reference, Binding(secret=secret, commitment=claim.commitment))
    return StartMarks(reference=reference, vault=vault, claims=claims, weights=weights, left_out=left_out)


def _salt(secret: bytes) -> bytes:
    """Return what says where marks are in a start: secret like the key, and fixed before any commitment."""
    return KeyedStream(secret=secret, commitment=bytes(32), label="anchors").bytes(SALT_BYTES)


def warn_of_left_out(reasons: Mapping[str, str]) -> None:
    """Say which layers carry no keyed signs, with a `TicketguardWarning`."""
    if reasons:
        shown = "; ".join(f"'{name}' {reason}" for name, reason in list(reasons.items())[:MOST_NAMED])
        more = f"; and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else ""
        warnings.warn(f"{len(reasons)} layers carry no keyed signs: {shown}{more}", TicketguardWarning, stacklevel=3)


def _parameters(mark: Mark, untrained: Ticket, density: float) -> dict[str, Json]:
    if isinstance(mark, StartMark):
        return mark.start_parameters(density)
    return mark.search_parameters(density) if isinstance(mark, SearchedMark) else mark.parameters(untrained)
