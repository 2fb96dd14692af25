"""What a claim says about a mark: parameters, the commitment to them, and the root of its parts."""

from __future__ import annotations

import dataclasses
import datetime

from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.credentials.claim import Claim, MarkClaim
from ticketguard.credentials.credential import GROUPS_PARAMETER
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.merkle import merkle_root
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import Json, Mark, PlannedMark
from ticketguard.errors import ConfigurationError
from ticketguard.keyed import commit
from ticketguard.ticket import Ticket, weights_digest
from ticketguard.verification.registry import scheme


def claim_of(
    mark: Mark, parameters: dict[str, Json], vault: Vault, reference_digest: bytes, *, owner: Owner, level_bits: int
) -> MarkClaim:
    """Commit to a mark's parameters, the vault's secret and the reference; every draw is a function of that.

    What is read from weights is aligned first where it can be, so it binds the channel groups.

    Raises:
        ConfigurationError: The parameters hold what no claim can.
    """
    if vault.channel_groups is not None and scheme(mark.scheme).reads == "weights":
        parameters = {**parameters, GROUPS_PARAMETER: groups_digest(vault.channel_groups)}
    try:
        written = canonical_json(parameters)
    except ValueError as error:
        raise ConfigurationError(
            f"parameters of mark '{mark.scheme}' cannot be in a claim, which {error}: write shares as whole numbers"
        ) from error
    commitment = commit(
        secret=vault.secret,
        owner_public_key=owner.public_key,
        reference_digest=reference_digest,
        scheme=mark.scheme,
        version=mark.version,
        level_bits=level_bits,
        parameters=written,
    )
    return MarkClaim(
        scheme=mark.scheme,
        version=mark.version,
        level_bits=level_bits,
        parameters=parameters,
        commitment=commitment,
        merkle_root=None,
    )


def claim_about(
    marked: Ticket, marks: tuple[MarkClaim, ...], *, owner: Owner, created: datetime.datetime | None = None
) -> Claim:
    """Return what is claimed of a marked network.

    Args:
        marked: The network, as it is released.
        marks: What is said about its marks.
        owner: Whose it is.
        created: When the claim says it was made; by default now.
    """
    moment = (created or datetime.datetime.now(datetime.UTC)).astimezone(datetime.UTC)
    return Claim(
        owner_name=owner.name,
        owner_public_key=owner.public_key,
        created=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        mask_digest=marked.mask.digest(),
        weights_digest=weights_digest(marked.weights),
        marks=marks,
        parent=None,
    )


def with_leaves(claim: MarkClaim, planned: PlannedMark) -> MarkClaim:
    """Return *claim* with the Merkle root of the mark's parts, if it has any."""
    leaves = planned.leaves()
    return dataclasses.replace(claim, merkle_root=merkle_root(leaves)) if leaves else claim
