"""Fixed owners and credentials, and a second implementation of the age format for cheap test vaults."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.claim import Claim, MarkClaim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault import Vault
from ticketguard.keyed import commit
from ticketguard.ticket import Mask, Reference

# RFC 8032 §7.1, test 1: a key that everybody knows, for test vectors only.
PUBLIC_TEST_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")


@pytest.fixture(scope="session")
def owner() -> Owner:
    return Owner(name="Test Vector Ltd", private_key=Ed25519PrivateKey.from_private_bytes(PUBLIC_TEST_SEED))


@pytest.fixture(scope="session")
def reference() -> Reference:
    kept = np.arange(12).reshape(3, 4) % 3 == 0
    return Reference(
        mask=Mask(layers={"fc.weight": kept}), kept_weights={"fc.weight": np.array([0.5, -0.25, 1.5, -2], np.float32)}
    )


@pytest.fixture(scope="session")
def credential(owner: Owner, reference: Reference) -> Credential:
    secret, parameters = bytes(range(32)), {"secret_ppm": 10_000}
    mark = MarkClaim(
        scheme="planted-graph",
        version=1,
        level_bits=64,
        parameters=parameters,
        commitment=commit(
            secret=secret,
            owner_public_key=owner.public_key,
            reference_digest=reference.digest(),
            scheme="planted-graph",
            version=1,
            level_bits=64,
            parameters=canonical_json(parameters),
        ),
    )
    claim = Claim(
        owner_name=owner.name,
        owner_public_key=owner.public_key,
        created="2026-01-31T12:00:00Z",
        mask_digest=reference.mask.digest(),
        weights_digest=hashlib.sha256(b"weights").digest(),
        marks=(mark,),
    )
    vault = Vault(
        secret=secret,
        reference=reference.to_bytes(),
        channel_groups=[[["fc.weight", 0, 1], ["head.weight", 1, 4]]],
        notes={"what": "a public test vector"},
    )
    return Credential(claim=claim, vault=vault)


@pytest.fixture(scope="session")
def other_credential(credential: Credential) -> Credential:
    """Another owner's well-formed vault under the first owner's claim."""
    return Credential(claim=credential.claim, vault=dataclasses.replace(credential.vault, secret=bytes(32)))


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return hmac.digest(hmac.digest(salt or bytes(32), key, "sha256"), info + b"\1", "sha256")


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def age_seal(plaintext: bytes, passphrase: str, *, work_factor: int = 1, chunks: list[bytes] | None = None) -> bytes:
    """Write an age v1 file (age-encryption.org/v1) with fixed salts and next to no scrypt work."""
    file_key, salt, nonce = bytes(range(16)), bytes(range(16, 32)), bytes(16)
    wrap_key = hashlib.scrypt(
        passphrase.encode(), salt=b"age-encryption.org/v1/scrypt" + salt, n=2**work_factor, r=8, p=1, dklen=32
    )
    stanza = b"-> scrypt %b %d\n" % (_base64(salt), work_factor)
    body = _base64(ChaCha20Poly1305(wrap_key).encrypt(bytes(12), file_key, None))
    header = b"age-encryption.org/v1\n" + stanza + body + b"\n---"
    mac = hmac.digest(_hkdf(file_key, b"", b"header"), header, "sha256")
    cipher = ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload"))
    if chunks is None:
        chunks = [plaintext[start : start + 65536] for start in range(0, len(plaintext), 65536)] or [b""]
    sealed = [
        cipher.encrypt(number.to_bytes(11, "big") + bytes([number == len(chunks) - 1]), chunk, None)
        for number, chunk in enumerate(chunks)
    ]
    return header + b" " + _base64(mac) + b"\n" + nonce + b"".join(sealed)


@pytest.fixture(scope="session")
def seal_cheaply() -> Callable[..., bytes]:
    return age_seal
