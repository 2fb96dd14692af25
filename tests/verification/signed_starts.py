"""Starts with keyed signs, claims to them, and suspects, made by hand: nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

import ticketguard as tg
from tests.verification.claims import EVE, SECRET
from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.credentials.claim import Claim, MarkClaim
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import KeyedSigns
from ticketguard.keyed import commit
from ticketguard.ticket import Array, Reference, StartReference

SMALL = {"a.weight": (30, 20), "b.weight": (12, 5, 3, 3)}
Weights = Mapping[str, Array]


def drawn_start(shapes: Mapping[str, tuple[int, ...]] = SMALL, *, seed: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def sign_mark(
    reference: StartReference | Reference,
    *,
    density_ppm: int = 1_000_000,
    groups: object = None,
    secret: bytes = SECRET,
    level_bits: int = 64,
    parameters: Mapping[str, Any] | None = None,
    scheme: str = "keyed-signs",
    version: int = 1,
) -> MarkClaim:
    """Return a mark of Eve's whose commitment is right."""
    bound = {} if groups is None else {"channel_groups_digest": groups_digest(groups)}  # type: ignore[arg-type]
    said = {**({"density_ppm": density_ppm} if parameters is None else parameters), **bound}
    commitment = commit(
        secret=secret,
        owner_public_key=EVE.public_key,
        reference_digest=reference.digest(),
        scheme=scheme,
        version=version,
        level_bits=level_bits,
        parameters=canonical_json(said),
    )
    return MarkClaim(
        scheme=scheme,
        version=version,
        level_bits=level_bits,
        parameters=said,
        commitment=commitment,
        merkle_root=None,
    )


def credential_of(
    *marks: MarkClaim, reference: StartReference | Reference, groups: object = None, secret: bytes = SECRET
) -> tg.Credential:
    """Return a credential as a reader has it; the claim's own signature is for other tests."""
    claim = Claim(
        owner_name=EVE.name,
        owner_public_key=EVE.public_key,
        created="2026-01-31T12:00:00Z",
        mask_digest=bytes(32),
        weights_digest=bytes(32),
        marks=marks,
        parent=None,
    )
    vault = Vault(secret=secret, reference=reference.to_bytes(), channel_groups=groups)  # type: ignore[arg-type]
    return tg.Credential(claim=claim, vault=vault)


def bound(weights: Weights, *, anchors: float = 0.7) -> StartReference:
    return KeyedSigns(anchors=anchors).bound(weights)[0]


def signed_weights(
    weights: Weights, reference: StartReference, made: MarkClaim, secret: bytes = SECRET
) -> dict[str, Array]:
    """Return the weights that a training starts from."""
    return KeyedSigns().drawn(weights, reference, Binding(secret=secret, commitment=made.commitment))


def as_if_trained(
    weights: Weights, *, kept_signs: float = 0.9, density: float = 1.0, seed: int = 0
) -> dict[str, Array]:
    """Return weights that have moved and kept most of their signs; the largest of each layer are left."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, layer in weights.items():
        moved = layer * np.exp(0.3 * generator.normal(size=layer.shape))
        moved = np.where(generator.random(layer.shape) < kept_signs, moved, -moved)
        if density < 1:
            threshold = np.quantile(np.abs(moved), 1 - density)
            moved = np.where(np.abs(moved) > threshold, moved, 0)
        found[name] = moved.astype(np.float32)
    return found


def p_of_fair_coins(agreements: int, votes: int) -> float:
    """log10 P(X ≥ agreements), from integers."""
    ways = sum(math.comb(votes, k) for k in range(agreements, votes + 1))
    return (math.log2(ways) - votes) * math.log10(2)
