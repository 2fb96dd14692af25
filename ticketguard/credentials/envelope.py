"""The signed envelope around a claim: DSSE v1, one Ed25519 signature, exactly one encoding.

DSSE signs the payload's bytes and type, never the JSON around them. So the file itself is held to canonical
JSON as well: whatever single byte of it changes, it is refused.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError

# The package names its public classes in its documentation, not in a form that mypy takes for an export.
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from ticketguard.credentials.canonical import canonical_json, parse_canonical
from ticketguard.credentials.edwards import check_public_key, check_signature

PAYLOAD_TYPE = "application/vnd.in-toto+json"
KEY_TYPE = "ed25519"
# An envelope has eight; a few more for those that are refused with a better message.
MAX_VALUES = 100


def key_id(public_key: bytes) -> str:
    """Return the name signatures give a key: SHA-256 of its 32 raw bytes, hex."""
    return hashlib.sha256(public_key).hexdigest()


def seal(payload: bytes, private_key: Ed25519PrivateKey) -> bytes:
    """Sign *payload* and return the envelope's canonical JSON."""
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(private_key, _key(private_key.public_key().public_bytes_raw())))
    return canonical_json(envelope.to_dict())


def read_payload(content: bytes) -> bytes:
    """Return an envelope's payload, not yet verified.

    Raises:
        ValueError: The bytes are not a canonical envelope of one in-toto payload and one signature.
    """
    return _parse(content).payload


def verify(content: bytes, public_key: bytes) -> None:
    """Check that *content* is an envelope signed by *public_key* (32 raw bytes).

    Raises:
        ValueError: It is malformed, names another key or one that nobody can own, or the signature is wrong.
    """
    check_public_key(public_key)
    envelope = _parse(content)
    if set(envelope.signatures) != {key_id(public_key)}:
        raise ValueError("is signed by another key, not the owner's that it names")
    check_signature(bytes.fromhex(envelope.signatures[key_id(public_key)].signature))
    try:
        envelope.verify([_key(public_key)], threshold=1)
    except VerificationError as error:
        raise ValueError("has a wrong signature") from error


def _key(public_key: bytes) -> SSlibKey:
    return SSlibKey(key_id(public_key), KEY_TYPE, KEY_TYPE, {"public": public_key.hex()})


def _parse(content: bytes) -> Envelope:
    document = parse_canonical(content, max_values=MAX_VALUES)
    if not isinstance(document, dict):
        raise ValueError("is not a DSSE envelope")
    try:
        envelope = Envelope.from_dict(document)
        encoded = canonical_json(envelope.to_dict())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError("is not a DSSE envelope") from error
    # One more comparison: base64 has several spellings of the same bytes, and unknown fields would be dropped.
    if encoded != content or envelope.payload_type != PAYLOAD_TYPE or len(envelope.signatures) != 1:
        raise ValueError(f"is not a DSSE envelope of one {PAYLOAD_TYPE} payload and one signature")
    return envelope
