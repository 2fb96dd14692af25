from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.claim import (
    CLAIM_LIMIT_BYTES,
    PREDICATE_TYPE,
    Claim,
    MarkClaim,
    claim_digest,
    read_claim,
    sign_claim,
)
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.envelope import seal
from ticketguard.credentials.keys import Owner
from ticketguard.errors import CredentialError, UnknownVersionError

SIGNATURES = Path(__file__).parents[2] / "signatures"
SAMPLE = (SIGNATURES / "sample-claim.json").read_bytes()
VECTORS = json.loads((SIGNATURES / "vectors" / "claim.json").read_text())


def payload_of(content: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(base64.b64decode(json.loads(content)["payload"]))
    return payload


def read_changed(owner: Owner, change: Callable[[dict[str, Any]], object]) -> Claim:
    """Change the sample's statement as its owner could, sign it again, and read it."""
    statement = payload_of(SAMPLE)
    change(statement)
    return read_claim(seal(canonical_json(statement), owner.private_key))


def test_sample_claim_is_what_its_owner_signed(credential: Credential, owner: Owner) -> None:
    assert read_claim(SAMPLE) == credential.claim
    assert sign_claim(credential.claim, owner) == SAMPLE


@pytest.mark.parametrize("vector", VECTORS["claims"], ids=lambda vector: vector["name"])
def test_published_claims_are_read_and_signed_byte_for_byte(vector: dict[str, Any], owner: Owner) -> None:
    content = vector["file"].encode()
    claim = read_claim(content)
    assert payload_of(content) == vector["statement"]
    assert (claim.owner_public_key.hex(), claim_digest(content)) == (vector["public_key"], vector["digest"])
    assert sign_claim(claim, owner) == content


@pytest.mark.parametrize("vector", VECTORS["also_read"], ids=lambda vector: vector["what"])
def test_a_claim_that_an_editor_touched_is_the_same_claim(vector: dict[str, str], credential: Credential) -> None:
    content = vector["file"].encode()
    assert content != SAMPLE
    assert read_claim(content) == credential.claim
    assert claim_digest(content) == claim_digest(SAMPLE) == hashlib.sha256(SAMPLE).hexdigest()


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" * 2 + SAMPLE, b" " + SAMPLE, SAMPLE + b"\0", SAMPLE + b"\x0b", SAMPLE + "\u00a0".encode()],
    ids=["two byte order marks", "a space in front", "a zero", "a vertical tab", "a no-break space"],
)
def test_other_bytes_around_a_claim_are_refused(content: bytes) -> None:
    with pytest.raises(CredentialError, match="it was changed, damaged, or is"):
        read_claim(content)


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["why"])
def test_published_forgeries_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises((CredentialError, UnknownVersionError), match=vector["message"]):
        read_claim(vector["file"].encode())


def test_signature_verifies_without_the_signing_library() -> None:
    document = json.loads(SAMPLE)
    payload, kind = base64.b64decode(document["payload"]), document["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    public_key = bytes.fromhex(payload_of(SAMPLE)["predicate"]["owner"]["publicKey"])
    Ed25519PublicKey.from_public_bytes(public_key).verify(base64.b64decode(document["signatures"][0]["sig"]), signed)
    assert document["signatures"][0]["keyid"] == hashlib.sha256(public_key).hexdigest()


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_each_single_byte_of_a_claim_flipped_is_refused(flip: int) -> None:
    for position in range(len(SAMPLE)):
        changed = bytearray(SAMPLE)
        changed[position] ^= flip
        with pytest.raises((CredentialError, UnknownVersionError), match="claim 'claim'"):
            read_claim(bytes(changed))


def test_each_byte_of_a_claim_left_out_or_doubled_is_refused() -> None:
    for position in range(len(SAMPLE)):
        for changed in (SAMPLE[:position] + SAMPLE[position + 1 :], SAMPLE[: position + 1] + SAMPLE[position:]):
            with pytest.raises((CredentialError, UnknownVersionError), match="claim 'claim'"):
                read_claim(changed)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(CredentialError, match="it was changed, damaged, or is not a claim"):
        read_claim(content)


@settings(deadline=None)
@given(
    name=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=50),
    digests=st.lists(st.binary(min_size=32, max_size=32), min_size=4, max_size=4),
    level_bits=st.integers(1, 256),
    parameters=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-1000, 1000), max_size=3),
    parent=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
)
def test_every_claim_is_read_back_as_it_was_signed(
    owner: Owner, name: str, digests: list[bytes], level_bits: int, parameters: dict[str, Any], parent: str | None
) -> None:
    mark = MarkClaim(
        scheme="s-1",
        version=1,
        level_bits=level_bits,
        parameters=parameters,
        commitment=digests[2],
        merkle_root=digests[3],
    )
    claim = Claim(
        owner_name=name,
        owner_public_key=owner.public_key,
        created="2026-02-28T23:59:59Z",
        mask_digest=digests[0],
        weights_digest=digests[1],
        marks=(mark, dataclasses.replace(mark, scheme="s-2", merkle_root=None)),
        parent=parent,
    )
    assert read_claim(sign_claim(claim, owner)) == claim


def test_only_the_named_owner_can_sign(credential: Credential) -> None:
    with pytest.raises(CredentialError, match="only the owner it names can sign it"):
        sign_claim(credential.claim, Owner.generate("thief"))


def test_thief_cannot_put_another_name_and_key_over_a_claim(owner: Owner) -> None:
    thief = Owner.generate("thief")
    statement = payload_of(SAMPLE)
    with pytest.raises(CredentialError, match="is signed by another key, not the owner's that it names"):
        read_claim(seal(canonical_json(statement), thief.private_key))


def test_signature_over_another_payload_is_refused(owner: Owner) -> None:
    statement = payload_of(SAMPLE)
    statement["predicate"]["created"] = "2020-01-01T00:00:00Z"
    envelope = json.loads(SAMPLE)
    envelope["payload"] = base64.b64encode(canonical_json(statement)).decode()
    with pytest.raises(CredentialError, match="has a wrong signature"):
        read_claim(canonical_json(envelope))


@pytest.mark.parametrize(
    "change",
    [
        lambda envelope: envelope.update(signatures=[]),
        lambda envelope: envelope.update(signatures=envelope["signatures"] * 2),
        lambda envelope: envelope["signatures"].append({"keyid": "other", "sig": "AAAA"}),
        lambda envelope: envelope.update(payloadType="application/json"),
        lambda envelope: envelope.update(extra=1),
        lambda envelope: envelope.update(payload=envelope["payload"].replace("=", "") + "===="),
        lambda envelope: envelope.update(payload=7),
        lambda envelope: envelope.update(signatures="none"),
        lambda envelope: envelope.pop("payload"),
    ],
)
def test_other_envelopes_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    envelope = json.loads(SAMPLE)
    change(envelope)
    with pytest.raises(CredentialError, match="is not a DSSE envelope"):
        read_claim(canonical_json(envelope))


def test_envelope_that_is_no_object_is_refused() -> None:
    with pytest.raises(CredentialError, match="is not a DSSE envelope"):
        read_claim(b"[]")


def test_large_files_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(CredentialError, match=f"expected at most {CLAIM_LIMIT_BYTES}"):
        read_claim(b"[" * (CLAIM_LIMIT_BYTES + 1))


@pytest.mark.parametrize("version", ["urn:ticketguard:claim:2", "https://slsa.dev/provenance/v1"])
def test_unknown_versions_are_refused(owner: Owner, version: str) -> None:
    with pytest.raises(UnknownVersionError, match=f"'{version}', expected {PREDICATE_TYPE}"):
        read_changed(owner, lambda statement: statement.update(predicateType=version))


def mark_of(statement: dict[str, Any]) -> dict[str, Any]:
    mark: dict[str, Any] = statement["predicate"]["marks"][0]
    return mark


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "is not an in-toto statement"),
        (lambda s: s.update(extra=1), r"has unknown fields \['extra'\]"),
        (lambda s: s.update(predicate=[]), "has a list where an object with owner, created, marks belongs"),
        (lambda s: s["predicate"].pop("created"), r"lacks the fields \['created'\]"),
        (lambda s: s["predicate"].update(created="2026-02-30T00:00:00Z"), "time is '2026-02-30T00:00:00Z'"),
        (lambda s: s["predicate"].update(created="2026-2-03T00:00:00Z"), "time is '2026-2-03T00:00:00Z'"),
        (lambda s: s["predicate"].update(created=5), "has 5 where text belongs"),
        (lambda s: s["predicate"].update(parent="F" * 64), "expected 64 lower case hex digits"),
        (lambda s: s["predicate"]["owner"].update(name="a\nb"), "owner name is"),
        (lambda s: s["predicate"]["owner"].update(publicKey="00"), "where 64 lower case hex digits belong"),
        (lambda s: s.update(subject=s["subject"][:1]), "has other subjects than a mask and weights"),
        (lambda s: s["subject"].reverse(), "has a subject 'weights', expected 'mask'"),
        (lambda s: s["subject"][0].update(digest={"sha256": "0" * 64}), r"lacks the fields \['ticketguardMaskV1'\]"),
        (lambda s: s["predicate"].update(marks={}), "has marks that are not a list"),
        (lambda s: s["predicate"].update(marks=[]), "expected at least one and at most 32, each scheme once"),
        (lambda s: s["predicate"].update(marks=s["predicate"]["marks"] * 2), "each scheme once"),
        (lambda s: s["predicate"].update(marks=[{**mark_of(s), "scheme": f"s-{n}"} for n in range(33)]), "at most 32"),
        (lambda s: mark_of(s).update(parameters={"a": [1] * 20_000}), "holds more values than any file of ours"),
        (lambda s: mark_of(s).update(scheme="x" * 100_000), r"scheme is 'x+\.\.\.x+', expected lower case"),
        (lambda s: s["predicate"].update({"y" * 100_000: 1}), r"has unknown fields \['y+\.\.\.y+'\]"),
        (lambda s: mark_of(s).update(parameters=[]), "has parameters that are not an object"),
        (lambda s: mark_of(s).update(scheme="../x"), "expected lower case letters, digits and dashes"),
        (lambda s: mark_of(s).update(version=0), "version is 0, expected an integer from 1"),
        (lambda s: mark_of(s).update(levelBits=257), "level_bits is 257, expected an integer from 1 to 256"),
        (lambda s: mark_of(s).update(levelBits="64"), "level_bits is '64', expected an integer"),
        (lambda s: mark_of(s).update(commitment="0" * 63), "where 64 lower case hex digits belong"),
        (lambda s: mark_of(s).update(merkleRoot=""), "where 64 lower case hex digits belong"),
    ],
)
def test_signed_statements_of_another_form_are_refused(
    owner: Owner, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(CredentialError, match=message) as caught:
        read_changed(owner, change)
    assert len(str(caught.value)) < 400


def test_a_version_of_any_length_is_named_in_a_line(owner: Owner) -> None:
    with pytest.raises(UnknownVersionError, match=r"has version 'x+\.\.\.x+', expected") as caught:
        read_changed(owner, lambda statement: statement.update(predicateType="x" * 100_000))
    assert len(str(caught.value)) < 400


def test_a_claim_that_could_not_be_read_is_not_signed(credential: Credential, owner: Owner) -> None:
    for parameters in ({"a": "x" * CLAIM_LIMIT_BYTES}, {"a": [1] * 20_000}):
        mark = dataclasses.replace(credential.claim.marks[0], parameters=parameters)
        with pytest.raises(CredentialError, match=r"expected at most 1048576|holds more values"):
            sign_claim(dataclasses.replace(credential.claim, marks=(mark,)), owner)


def test_signed_floats_are_refused(owner: Owner) -> None:
    payload = canonical_json(payload_of(SAMPLE)).replace(b'"secret_ppm":10000', b'"secret_ppm":0.01')
    with pytest.raises(CredentialError, match="holds a float, expected strings, integers"):
        read_claim(seal(payload, owner.private_key))


@pytest.mark.parametrize("field", ["owner_public_key", "mask_digest", "weights_digest"])
def test_claims_with_fields_of_another_length_cannot_be_made(credential: Credential, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} has 31 bytes, expected 32"):
        dataclasses.replace(credential.claim, **{field: bytes(31)})


@pytest.mark.parametrize(("field", "highest"), [("version", 2**31 - 1), ("level_bits", 256)])
def test_marks_are_numbered_from_one_to_a_limit(credential: Credential, field: str, highest: int) -> None:
    (mark,) = credential.claim.marks
    for number in (1, highest):
        assert getattr(dataclasses.replace(mark, **{field: number}), field) == number
    for number in (0, highest + 1, True, "1"):
        with pytest.raises(ValueError, match=f"{field} is '?{number}'?, expected an integer from 1 to {highest}$"):
            dataclasses.replace(mark, **{field: number})


@pytest.mark.parametrize("field", ["commitment", "merkle_root"])
def test_marks_with_fields_of_another_length_cannot_be_made(credential: Credential, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} has 33 bytes, expected 32"):
        dataclasses.replace(credential.claim.marks[0], **{field: bytes(33)})
