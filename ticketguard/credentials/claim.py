"""The claim: the public, signed statement of who marked which ticket, and what commits them to it.

On disk a claim is a DSSE envelope over an in-toto Statement v1, both canonical JSON
(``signatures/claim-and-vault.md`` writes it down for a second implementation).
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from ticketguard.credentials.canonical import Json, as_written, canonical_json, parse_canonical
from ticketguard.credentials.edwards import check_public_key
from ticketguard.credentials.keys import PUBLIC_KEY_BYTES, Owner, is_owner_name
from ticketguard.errors import CredentialError, UnknownVersionError
from ticketguard.settings import MAX_LEVEL_BITS

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:ticketguard:claim:1"
# Our digests cover names, shapes and values rather than a file's bytes, so they do not call themselves "sha256".
MASK_DIGEST = "ticketguardMaskV1"
WEIGHTS_DIGEST = "ticketguardWeightsV1"
CLAIM_LIMIT_BYTES = 1024 * 1024
# The parameters of every scheme that we know take a few dozen.
CLAIM_MAX_VALUES = 20_000
# Each costs its verifier a commitment; there are far fewer schemes.
MAX_MARKS = 32
DIGEST_BYTES = 32
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
SCHEME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,63}")
HEX_DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkClaim:
    """What a claim says about one mark.

    Attributes:
        scheme: Name of the mark's scheme.
        version: Version of the scheme, 1 or more.
        level_bits: A verdict needs p ≤ 2^-level_bits; 1 to 256.
        parameters: The scheme's public parameters; strings, integers, lists and objects, no floats.
        commitment: The commitment that fixes every secret draw, 32 bytes (`ticketguard.keyed.commit`).
        merkle_root: Root over the mark's salted parts, 32 bytes; None if it has none to reveal.

    Raises:
        ValueError: A field is not what is said here.
    """

    scheme: str
    version: int
    level_bits: int
    parameters: Mapping[str, Json]
    commitment: bytes
    merkle_root: bytes | None = None

    def __post_init__(self) -> None:
        if not SCHEME_PATTERN.fullmatch(self.scheme):
            raise ValueError(f"scheme is {reprlib.repr(self.scheme)}, expected lower case letters, digits and dashes")
        _check_range("version", self.version, highest=2**31 - 1)
        _check_range("level_bits", self.level_bits, highest=MAX_LEVEL_BITS)
        _check_length("commitment", self.commitment, DIGEST_BYTES)
        if self.merkle_root is not None:
            _check_length("merkle_root", self.merkle_root, DIGEST_BYTES)
        canonical_json(dict(self.parameters))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """Who claims which ticket, and by which marks.

    Attributes:
        owner_name: How the owner calls themselves; only the key proves anything.
        owner_public_key: Raw Ed25519 public key, 32 bytes: the canonical encoding of a point of prime order.
        created: When the owner says it was made, UTC, as 2026-01-31T12:00:00Z; a timestamp proves it, this does not.
        mask_digest: `Mask.digest` of the marked ticket, 32 bytes.
        weights_digest: `ticket.weights_digest` of the marked ticket's weights, 32 bytes.
        marks: The marks, one per scheme, 32 at most.
        parent: `claim_digest` of the claim this one continues; None if it is the first.

    Raises:
        ValueError: A field is not what is said here.
    """

    owner_name: str
    owner_public_key: bytes
    created: str
    mask_digest: bytes
    weights_digest: bytes
    marks: tuple[MarkClaim, ...]
    parent: str | None = None

    def __post_init__(self) -> None:
        if not is_owner_name(self.owner_name):
            raise ValueError(f"owner name is {reprlib.repr(self.owner_name)}, expected one printable line")
        _check_length("owner_public_key", self.owner_public_key, PUBLIC_KEY_BYTES)
        check_public_key(self.owner_public_key)
        _check_length("mask_digest", self.mask_digest, DIGEST_BYTES)
        _check_length("weights_digest", self.weights_digest, DIGEST_BYTES)
        _check_time(self.created)
        schemes = [mark.scheme for mark in self.marks]
        if not 1 <= len(schemes) <= MAX_MARKS or len(set(schemes)) != len(schemes):
            raise ValueError(
                f"marks are {reprlib.repr(schemes)}, expected at least one and at most {MAX_MARKS}, each scheme once"
            )
        if self.parent is not None and not HEX_DIGEST_PATTERN.fullmatch(self.parent):
            raise ValueError(f"parent is {reprlib.repr(self.parent)}, expected 64 lower case hex digits")


def sign_claim(claim: Claim, owner: Owner) -> bytes:
    """Sign *claim* and return the claim file's bytes.

    Raises:
        CredentialError: The claim names a key that is not *owner*'s, or is larger than `read_claim` would read.
    """
    # The signature library loads every signer it knows: a program that neither signs nor reads claims should not wait
    # for that.
    from ticketguard.credentials import envelope

    if claim.owner_public_key != owner.public_key:
        raise CredentialError(
            f"the claim names key {claim.owner_public_key.hex()}, expected {owner.public_key.hex()}: "
            "only the owner it names can sign it"
        )
    signed = envelope.seal(canonical_json(_to_statement(claim)), owner.private_key)
    read_claim(signed)  # a claim that nobody can read is not to be published
    return signed


def read_claim(content: bytes, *, name: object = "claim") -> Claim:
    """Verify a claim file and return what it says.

    1. It is small, and canonical JSON of one DSSE envelope.
    2. Its payload is a canonical in-toto statement with a predicate of a known version.
    3. The key it names is one that somebody can own, and its one signature is by that key.
    4. Every field is there, none besides, each of its type and length.

    That the named key is really the owner's is for the reader to know. A byte order mark in front and white space
    at the end are not part of a claim and are ignored; every other byte counts.

    Args:
        content: The file's bytes.
        name: What error messages call it, such as its path.

    Raises:
        CredentialError: It fails any of these steps.
        UnknownVersionError: The predicate's version is not known.
    """
    from ticketguard.credentials import envelope

    if len(content) > CLAIM_LIMIT_BYTES:
        raise CredentialError(f"claim '{name}' has {len(content)} bytes, expected at most {CLAIM_LIMIT_BYTES}")
    content = as_written(content)
    try:
        statement = parse_canonical(envelope.read_payload(content), max_values=CLAIM_MAX_VALUES)
        if not isinstance(statement, dict) or statement.get("_type") != STATEMENT_TYPE:
            raise ValueError("is not an in-toto statement")
        if statement.get("predicateType") != PREDICATE_TYPE:
            raise UnknownVersionError(
                what=f"claim '{name}'", found=statement.get("predicateType"), known=(PREDICATE_TYPE,)
            )
        predicate = _fields(statement.get("predicate"), ("owner", "created", "marks"), optional=("parent",))
        owner = _fields(predicate["owner"], ("name", "publicKey"))
        envelope.verify(content, _unhex(owner["publicKey"]))
        return _from_statement(statement, predicate, owner)
    except ValueError as error:
        raise CredentialError(
            f"claim '{name}' {error}: it was changed, damaged, or is not a claim; ask its owner for the original"
        ) from error


def claim_digest(content: bytes) -> str:
    """Return the SHA-256 of a claim, hex: what timestamps and later claims refer to.

    It covers the claim as it was signed, so that a newline that an editor added does not make it another claim: for a
    file as `sign_claim` wrote it, it is what `sha256sum` prints.
    """
    return hashlib.sha256(as_written(content)).hexdigest()


def _to_statement(claim: Claim) -> dict[str, Any]:
    predicate: dict[str, Any] = {
        "owner": {"name": claim.owner_name, "publicKey": claim.owner_public_key.hex()},
        "created": claim.created,
        "marks": [_mark_to_json(mark) for mark in claim.marks],
    }
    if claim.parent is not None:
        predicate["parent"] = claim.parent
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": "mask", "digest": {MASK_DIGEST: claim.mask_digest.hex()}},
            {"name": "weights", "digest": {WEIGHTS_DIGEST: claim.weights_digest.hex()}},
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def _mark_to_json(mark: MarkClaim) -> dict[str, Any]:
    document = {
        "scheme": mark.scheme,
        "version": mark.version,
        "levelBits": mark.level_bits,
        "parameters": dict(mark.parameters),
        "commitment": mark.commitment.hex(),
    }
    return document if mark.merkle_root is None else {**document, "merkleRoot": mark.merkle_root.hex()}


def _from_statement(statement: Mapping[str, Json], predicate: Mapping[str, Any], owner: Mapping[str, Any]) -> Claim:
    _fields(statement, ("_type", "subject", "predicateType", "predicate"))
    subjects = statement["subject"]
    if not isinstance(subjects, list) or len(subjects) != 2:
        raise ValueError("has other subjects than a mask and weights")
    digests: list[bytes] = []
    for subject, subject_name, digest_name in zip(
        subjects, ("mask", "weights"), (MASK_DIGEST, WEIGHTS_DIGEST), strict=True
    ):
        fields = _fields(subject, ("name", "digest"))
        if fields["name"] != subject_name:
            raise ValueError(f"has a subject {reprlib.repr(fields['name'])}, expected {subject_name!r}")
        digests.append(_unhex(_fields(fields["digest"], (digest_name,))[digest_name]))
    if not isinstance(predicate["marks"], list):
        raise ValueError("has marks that are not a list")
    return Claim(
        owner_name=_text(owner["name"]),
        owner_public_key=_unhex(owner["publicKey"]),
        created=_text(predicate["created"]),
        mask_digest=digests[0],
        weights_digest=digests[1],
        marks=tuple(_mark_from_json(mark) for mark in predicate["marks"]),
        parent=_text(predicate["parent"]) if "parent" in predicate else None,
    )


def _mark_from_json(document: object) -> MarkClaim:
    fields = _fields(document, ("scheme", "version", "levelBits", "parameters", "commitment"), optional=("merkleRoot",))
    if not isinstance(fields["parameters"], dict):
        raise ValueError("has parameters that are not an object")
    return MarkClaim(
        scheme=_text(fields["scheme"]),
        version=fields["version"],
        level_bits=fields["levelBits"],
        parameters=fields["parameters"],
        commitment=_unhex(fields["commitment"]),
        merkle_root=_unhex(fields["merkleRoot"]) if "merkleRoot" in fields else None,
    )


def _fields(document: object, required: tuple[str, ...], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"has a {type(document).__name__} where an object with {', '.join(required)} belongs")
    missing, unknown = set(required) - set(document), set(document) - set(required) - set(optional)
    if missing or unknown:
        raise ValueError(f"lacks the fields {sorted(missing)} and has unknown fields {reprlib.repr(sorted(unknown))}")
    return document


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"has {reprlib.repr(value)} where text belongs")
    return value


def _unhex(value: object) -> bytes:
    if not isinstance(value, str) or not HEX_DIGEST_PATTERN.fullmatch(value):
        raise ValueError(f"has {reprlib.repr(value)} where 64 lower case hex digits belong")
    return bytes.fromhex(value)


def _check_length(field: str, value: bytes, expected: int) -> None:
    if len(value) != expected:
        raise ValueError(f"{field} has {len(value)} bytes, expected {expected}")


def _check_range(field: str, value: object, *, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
        raise ValueError(f"{field} is {reprlib.repr(value)}, expected an integer from 1 to {highest}")


def _check_time(created: str) -> None:
    try:
        moment = datetime.datetime.strptime(created, TIME_FORMAT)
    except ValueError as error:
        raise ValueError(f"time is {reprlib.repr(created)}, expected UTC as 2026-01-31T12:00:00Z") from error
    if moment.strftime(TIME_FORMAT) != created:
        raise ValueError(f"time is {reprlib.repr(created)}, expected UTC as 2026-01-31T12:00:00Z")
