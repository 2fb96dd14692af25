"""Keys nobody owns: the points of small order, as github.com/C2SP/CCTV lists them, and real signatures under them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.claim import read_claim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.edwards import ORDER, PRIME, check_signature, is_of_prime_order
from ticketguard.credentials.envelope import PAYLOAD_TYPE, key_id
from ticketguard.credentials.keys import Owner, load_public_key
from ticketguard.errors import CredentialError

NEUTRAL = bytes.fromhex("01" + "00" * 31)
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
OTHER_SPELLINGS = [
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
# The public test key (RFC 8032 §7.1, test 1) plus a point of order 8: its private half signs for this one as well.
MIXED_ORDER = "3b5b475c4b82dd1572799fc546f4c6c03e478c6654aa4c7f945b347ea32af60d"
nobodys_keys = pytest.mark.parametrize("key", [*SMALL_ORDER, *OTHER_SPELLINGS])


def statement(public_key: str, attempt: int) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "mask", "digest": {"ticketguardMaskV1": "00" * 32}},
            {"name": "weights", "digest": {"ticketguardWeightsV1": "00" * 32}},
        ],
        "predicateType": "urn:ticketguard:claim:1",
        "predicate": {
            "owner": {"name": f"nobody {attempt}", "publicKey": public_key},
            "created": "2026-01-31T12:00:00Z",
            "marks": [
                {"scheme": "s", "version": 1, "levelBits": 64, "parameters": {}, "commitment": "00" * 32},
            ],
        },
    }


def envelope(payload: bytes, public_key: bytes, signature: bytes) -> bytes:
    return canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": key_id(public_key), "sig": base64.b64encode(signature).decode()}],
        }
    )


def passes(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def forge(public_key: bytes) -> bytes:
    """Sign a claim without a private key: R neutral, S zero, and a name for which the challenge times 8 vanishes."""
    signature = NEUTRAL + bytes(32)
    for attempt in range(2000):
        payload = canonical_json(statement(public_key.hex(), attempt))
        if passes(public_key, signature, b"DSSEv1 %d %b %d %b" % (28, PAYLOAD_TYPE.encode(), len(payload), payload)):
            return envelope(payload, public_key, signature)
    raise AssertionError("no forgery passes: the library has become strict")


@nobodys_keys
def test_a_claim_under_a_key_that_nobody_owns_is_refused(key: str) -> None:
    with pytest.raises(CredentialError, match=f"names the key {key}, which nobody can own"):
        read_claim(forge(bytes.fromhex(key)))


@nobodys_keys
def test_a_key_file_that_nobody_owns_is_refused(tmp_path: Path, key: str) -> None:
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    (tmp_path / "owner.key.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(CredentialError, match=rf"owner\.key\.pub' names the key {key}, which nobody can own"):
        load_public_key(tmp_path / "owner.key.pub")


@nobodys_keys
def test_a_claim_cannot_be_made_for_a_key_that_nobody_owns(credential: Credential, key: str) -> None:
    with pytest.raises(ValueError, match="which nobody can own"):
        dataclasses.replace(credential.claim, owner_public_key=bytes.fromhex(key))


def test_a_key_that_is_mixed_with_a_point_of_small_order_is_refused(credential: Credential, owner: Owner) -> None:
    """The mixed key's holder has a private half, but two keys of one holder should not look like two owners."""
    key = bytes.fromhex(MIXED_ORDER)
    assert not is_of_prime_order(key)
    with pytest.raises(ValueError, match="which nobody can own"):
        dataclasses.replace(credential.claim, owner_public_key=key)


@pytest.mark.parametrize("first", [*SMALL_ORDER, *OTHER_SPELLINGS, MIXED_ORDER, "02" + "00" * 31])
def test_a_signature_whose_first_half_is_not_of_prime_order_is_refused(first: str) -> None:
    with pytest.raises(ValueError, match="not in the one form that signing gives"):
        check_signature(bytes.fromhex(first) + bytes(32))


@pytest.mark.parametrize("raised", [1, 2, 7])
def test_a_signature_whose_second_half_is_not_below_the_order_is_refused(owner: Owner, raised: int) -> None:
    signature = owner.private_key.sign(b"message")
    check_signature(signature)
    second = int.from_bytes(signature[32:], "little") + raised * ORDER
    with pytest.raises(ValueError, match="not in the one form that signing gives"):
        check_signature(signature[:32] + second.to_bytes(32, "little"))


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65)])
def test_a_signature_of_another_length_is_refused(signature: bytes) -> None:
    with pytest.raises(ValueError, match="not in the one form that signing gives"):
        check_signature(signature)


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: s[:32]])
def test_an_honest_signature_that_was_cut_or_filled_up_is_refused(
    owner: Owner, change: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(ValueError, match="not in the one form that signing gives"):
        check_signature(change(owner.private_key.sign(b"message")))


def test_an_honest_first_half_does_not_carry_the_order_itself(owner: Owner) -> None:
    with pytest.raises(ValueError, match="not in the one form that signing gives"):
        check_signature(owner.private_key.sign(b"message")[:32] + ORDER.to_bytes(32, "little"))


def test_a_key_plus_the_point_of_order_two_or_with_a_byte_more_is_refused(owner: Owner) -> None:
    """(x, y) + (0, -1) is (-x, -y): of twice the order of an honest key, which is (x, y)."""
    number = int.from_bytes(owner.public_key, "little")
    twin = (PRIME - number % 2**255) | ((number >> 255 ^ 1) << 255)
    assert not is_of_prime_order(twin.to_bytes(32, "little"))
    assert not is_of_prime_order(owner.public_key + b"\0")


def test_honest_keys_and_signatures_are_of_prime_order() -> None:
    for number in range(20):
        key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(bytes([number])).digest())
        assert is_of_prime_order(key.public_key().public_bytes_raw())
        check_signature(key.sign(b"message"))
    assert not is_of_prime_order(bytes.fromhex("02" + "00" * 31)), "y = 2 is on no point of the curve"
    assert not is_of_prime_order(b"")
