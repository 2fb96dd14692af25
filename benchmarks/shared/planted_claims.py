"""Claims to references that no search made: what an owner's program would have signed."""

from __future__ import annotations

from collections.abc import Mapping

import ticketguard as tg
from ticketguard.credentials.claim import Claim, read_claim, sign_claim
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import Json
from ticketguard.marking.commitments import claim_of
from ticketguard.ticket import Reference

LEVEL_BITS = 64


def claimed(
    reference: Reference,
    secret: bytes,
    parameters: Mapping[str, Json],
    *,
    owner: tg.Owner,
    groups: list[list[list[object]]] | None = None,
) -> tg.Credential:
    """Return an honest claim to a planted graph in a reference, with its vault.

    Args:
        reference: The unmarked ticket.
        secret: What the secret edges are drawn from, 32 bytes.
        parameters: Public parameters of the planted graph.
        owner: Who signs.
        groups: Channel groups that the claim binds.
    """
    vault = Vault(secret=secret, reference=reference.to_bytes(), channel_groups=groups, notes={})
    mark = claim_of(tg.PlantedGraph(), dict(parameters), vault, reference.digest(), owner=owner, level_bits=LEVEL_BITS)
    claim = Claim(
        owner_name=owner.name,
        owner_public_key=owner.public_key,
        created="2026-01-31T12:00:00Z",
        mask_digest=reference.mask.digest(),
        weights_digest=bytes(32),
        marks=(mark,),
    )
    return tg.Credential(claim=read_claim(sign_claim(claim, owner)), vault=vault)
