"""What one of our files, or a suspect, holds: recognised by its bytes, returned as a plain JSON document.

Nothing secret is ever in a document: for a vault it says what the reference is, never the secret or its draws.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.sharded import INDEX_SUFFIX
from ticketguard.credentials import age_passphrase
from ticketguard.credentials.canonical import as_written
from ticketguard.credentials.claim import CLAIM_LIMIT_BYTES, Claim, claim_digest, read_claim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import load_public_key
from ticketguard.credentials.vault import Vault, read_vault
from ticketguard.embedding.interface import Binding, Positions
from ticketguard.errors import ConfigurationError, CredentialError, FileError, TensorError
from ticketguard.files import open_at_once, read_whole, reading
from ticketguard.strict_json import parse_json
from ticketguard.tensor_file import HEADER_LIMIT_BYTES, MAX_HEADER_VALUES
from ticketguard.ticket import METADATA_KEY, Mask, Ticket, read_reference, weights_digest
from ticketguard.verification.registry import scheme_of

INSPECT_VERSION = "ticketguard.inspect/1"
# What a key's file holds somewhere in its first bytes → its kind.
_KEYS = {
    b"-----BEGIN PRIVATE KEY-----": "private-key",
    b"-----BEGIN ENCRYPTED PRIVATE KEY-----": "private-key",
    b"AGE-SECRET-KEY-1": "vault-key",
    b"-----BEGIN PUBLIC KEY-----": "public-key",
}
# What a file may be that is given as a claim or vault, in words.
_CALLED = {
    "claim": "a claim",
    "vault": "a vault",
    "ticket": "a ticket",
    "public-key": "a public key",
    "private-key": "a private key",
    "vault-key": "a vault key",
    "folder": "a folder",
}
_START_BYTES = 4096

Document = dict[str, Any]


def inspect_file(path: str | os.PathLike[str], *, unlock: Callable[[], Mapping[str, Any]]) -> Document:
    """Say what *path* holds: a ticket, claim, vault, owner key, or else a suspect's tensors.

    Args:
        path: The file.
        unlock: Asked for what opens a vault, as `read_vault` takes it, and only if the file is one.

    Raises:
        FileError: The file cannot be read, or is none of these.
        TicketguardError: It is one of these, but damaged or of an unknown version.
    """
    kind = file_kind(path)
    document: Document = {"version": INSPECT_VERSION, "file": os.fspath(path), "kind": kind}
    if kind == "ticket":
        return {**document, "ticket": ticket_document(Ticket.load(path))}
    if kind == "claim":
        content = read_whole(path, limit_bytes=CLAIM_LIMIT_BYTES)
        claim = read_claim(content, name=path)
        return {**document, "claim": {"claim_digest": claim_digest(content), **claim_document(claim)}}
    if kind == "vault":
        return {**document, "vault": vault_document(read_vault(path, **unlock()))}
    if kind == "public-key":
        return {**document, "public_key": {"algorithm": "Ed25519", "hex": load_public_key(path).hex()}}
    return {**document, "suspect": checkpoint_document(Checkpoint(path))}


def file_kind(path: str | os.PathLike[str]) -> str:
    """Say from its bytes whether a file is a ticket, claim, vault or public key, or may be a suspect.

    Raises:
        FileError: The file cannot be read, or is an owner's private key or a vault key.
    """
    if Path(path).is_dir():
        return "suspect"  # A sharded checkpoint's folder, or an error that says what a folder lacks.
    kind = _kind_of_file(path)
    if kind is None:
        raise FileError(path=path, reason="is a folder, pipe or device", hint="expected a file")
    if kind == "private-key":
        raise FileError(path=path, reason="is a private key", hint="inspect the public key beside it (.pub)")
    if kind == "vault-key":
        raise FileError(path=path, reason="is a vault key", hint="inspect a vault that it opens with --vault-key")
    return kind


def require_credential(claim: str | os.PathLike[str], vault: str | os.PathLike[str]) -> None:
    """Check that the files given as claim and vault are not of another kind, before anything is asked for.

    Whatever else is wrong with them is reported when they are read.

    Raises:
        ConfigurationError: One is another kind of file, or a folder, or they are swapped.
    """
    found = {"claim": _kind_given(claim), "vault": _kind_given(vault)}
    if found == {"claim": "vault", "vault": "claim"}:
        raise ConfigurationError(f"'{claim}' is a vault, '{vault}' is a claim: swap --claim and --vault")
    for wanted, path in (("claim", claim), ("vault", vault)):
        kind = found[wanted]
        if kind in _CALLED and kind != wanted:
            raise ConfigurationError(
                f"'{path}' is {_CALLED[kind]}, expected a {wanted}: give what 'ticketguard embed' wrote as --{wanted}"
            )


def _kind_given(path: str | os.PathLike[str]) -> str:
    """Return what a file is, as far as its first bytes show; nothing for what can be read only once, or not at all."""
    try:
        with reading(path):
            if Path(path).is_dir():
                return "folder"
        return _kind_of_file(path) or ""
    except FileError:
        return ""


def _kind_of_file(path: str | os.PathLike[str]) -> str | None:
    """Return a file's kind, judged by its bytes; None for a pipe or device, which are not read.

    Raises:
        FileError: The file cannot be read.
    """
    with reading(path), open(path, "rb", opener=open_at_once) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return None
        start = stream.read(_START_BYTES)
        if start.startswith(age_passphrase.MAGIC):
            return "vault"
        if as_written(start).lstrip()[:1] == b"{":
            return "suspect" if b'"weight_map"' in start or Path(path).name.endswith(INDEX_SUFFIX) else "claim"
        for label, kind in _KEYS.items():
            if label in start:
                return kind
        stream.seek(8)
        size = int.from_bytes(start[:8], "little")
        return "ticket" if size <= HEADER_LIMIT_BYTES and _is_ticket(stream.read(size)) else "suspect"


def _is_ticket(header: bytes) -> bool:
    try:
        metadata = parse_json(header, max_values=MAX_HEADER_VALUES).get("__metadata__")
    except (ValueError, AttributeError):
        return False
    return isinstance(metadata, dict) and METADATA_KEY in metadata


def ticket_document(ticket: Ticket) -> Document:
    """Return what a ticket holds, and how dense it is with the weights that its mask does not cover."""
    outside = _weights_outside(ticket)
    positions = ticket.mask.size + outside
    return {
        "mask_digest": ticket.mask.digest().hex(),
        "weights_digest": weights_digest(ticket.weights).hex(),
        "has_rewind_weights": ticket.rewind_weights is not None,
        **mask_document(ticket.mask),
        "dense_weights": outside,
        "overall_density": (ticket.mask.kept + outside) / positions if positions else 0.0,
        "info": ticket.info.to_json(),
    }


def _weights_outside(ticket: Ticket) -> int:
    """Return how many weights tensors of two axes or more have that the mask does not cover; tied ones count once."""
    sizes: dict[bytes, int] = {}
    for name, array in ticket.weights.items():
        if array.ndim >= 2 and array.dtype.kind == "f":
            digest = weights_digest({"": array})
            sizes[digest] = 0 if name in ticket.mask.layers else sizes.get(digest, array.size)
    return sum(sizes.values())


def mask_document(mask: Mask) -> Document:
    """Return a mask's sizes, layer by layer."""
    return {
        "density": mask.density,
        "edges": mask.kept,
        "positions": mask.size,
        "layers": [
            {
                "name": name,
                "shape": list(mask.shape(name)),
                "edges": mask.count(name),
                "density": mask.count(name) / max(1, math.prod(mask.shape(name))),
            }
            for name in mask
        ],
    }


def claim_document(claim: Claim) -> Document:
    """Return what a claim says."""
    return {
        "owner": claim.owner_name,
        "owner_public_key": claim.owner_public_key.hex(),
        "created": claim.created,
        "mask_digest": claim.mask_digest.hex(),
        "weights_digest": claim.weights_digest.hex(),
        "parent": claim.parent,
        "marks": [
            {
                "scheme": mark.scheme,
                "version": mark.version,
                "level_bits": mark.level_bits,
                "parameters": dict(mark.parameters),
                "commitment": mark.commitment.hex(),
                "merkle_root": None if mark.merkle_root is None else mark.merkle_root.hex(),
            }
            for mark in claim.marks
        ],
    }


def vault_document(vault: Vault) -> Document:
    """Return what a vault holds, without its secret."""
    reference = read_reference(vault.reference)
    return {
        "reference_digest": reference.digest().hex(),
        "channel_groups": None if vault.channel_groups is None else len(vault.channel_groups),
        "notes": dict(vault.notes),
        **mask_document(reference.mask),
    }


def checkpoint_document(checkpoint: Checkpoint) -> Document:
    """Return a suspect's networks and tensors, and how many values in each are not zero, or not finite."""
    packed = checkpoint.packed()
    tensors: list[Document] = []
    for name in checkpoint.names():
        entry: Document = {"name": name, "shape": list(checkpoint.shape(name)), "type": checkpoint.type_name(name)}
        try:
            values = checkpoint.stored(name)
        except TensorError as error:
            tensors.append({**entry, "unreadable": error.reason})
            continue
        entry["nonzero"] = int(np.count_nonzero(values))
        wrong = values.size - int(np.count_nonzero(np.isfinite(values))) if values.dtype.kind == "f" else 0
        tensors.append({**entry, "not_finite": wrong} if wrong else entry)
    return {
        **({"networks": list(checkpoint.networks())} if checkpoint.networks() else {}),
        **({"packed": [{"name": name, "format": form} for name, form in packed.items()]} if packed else {}),
        "tensors": tensors,
    }


def binds_start(credential: Credential) -> bool:
    """Say whether the reference is weights that a training or search started from, rather than a ticket.

    Marks that were there before the mask say how dense the ticket is.
    """
    return any("density_ppm" in mark.parameters for mark in credential.claim.marks)


def secret_positions(credential: Credential) -> dict[str, Positions]:
    """Return the secret positions of the owner's marks, for pictures that only the owner sees.

    Raises:
        CredentialError: The claim has no mark with positions in the mask.
    """
    mask = credential.reference.mask
    found: dict[str, Positions] = {}
    for mark in credential.claim.marks:
        known = scheme_of(mark)
        binding = Binding(secret=credential.vault.secret, commitment=mark.commitment)
        for name, positions in ({} if known is None else known.secret_positions(mark, binding, mask)).items():
            found[name] = np.union1d(found[name], positions) if name in found else positions
    if not found:
        known_marks = ", ".join(mark.scheme for mark in credential.claim.marks)
        raise CredentialError(f"the claim has {known_marks}, none of which has positions in the mask to draw")
    return found
