"""Every secret-derived draw: domain-separated HKDF, a ChaCha20 keystream, positions and labels from it.

The construction is public and fixed (``signatures/keyed-draws.md`` writes it down for a second
implementation, ``signatures/vectors/keyed.json`` pins it). A draw is a function of (secret, commitment,
label) alone, so nobody can choose one after seeing what it will be tested on.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

COMMITMENT_DOMAIN = b"ticketguard/commitment/v1\0"
DRAW_DOMAIN = b"ticketguard/draw/v1\0"
SECRET_DOMAIN = b"ticketguard/secret/v1\0"
SECRET_BYTES = 32
# From one in so many on, distinct integers are marked in a map of all rather than sorted.
DENSE_BOUND = 64


def commit(
    *,
    secret: bytes,
    owner_public_key: bytes,
    reference_digest: bytes,
    scheme: str,
    version: int,
    level_bits: int,
    parameters: bytes,
) -> bytes:
    """Bind a secret to its owner, its reference ticket and its scheme, before anything is drawn from it.

    ``C = SHA-256(domain ‖ H(secret) ‖ public key ‖ reference digest ‖ scheme ‖ version ‖ level ‖ H(parameters))``
    where the scheme's name is preceded by its length and everything else has a fixed one, so that no two
    inputs run together (``signatures/keyed-draws.md`` gives every byte).

    Args:
        secret: 32 random bytes that only the owner knows.
        owner_public_key: The raw Ed25519 public key, 32 bytes.
        reference_digest: SHA-256 digest of the unmarked reference ticket, 32 bytes.
        scheme: Name of the mark's scheme.
        version: Version of the scheme, below 2^32.
        level_bits: A verdict needs p ≤ 2^-level_bits; below 2^32.
        parameters: Canonical JSON of the scheme's public parameters.

    Raises:
        ValueError: A field has the wrong length or range.
    """
    _check_32_bytes(secret=secret, owner_public_key=owner_public_key, reference_digest=reference_digest)
    for field, number in (("version", version), ("level_bits", level_bits)):
        if not 0 <= number < 2**32:
            raise ValueError(f"{field} is {number}, expected 0 to 2^32 - 1")
    scheme_name = scheme.encode()
    return hashlib.sha256(
        COMMITMENT_DOMAIN
        + hashlib.sha256(SECRET_DOMAIN + secret).digest()
        + owner_public_key
        + reference_digest
        + len(scheme_name).to_bytes(4, "little")
        + scheme_name
        + version.to_bytes(4, "little")
        + level_bits.to_bytes(4, "little")
        + hashlib.sha256(parameters).digest()
    ).digest()


class KeyedStream:
    """A deterministic stream of draws for one (secret, commitment, label).

    Draws consume the stream in order; two streams with different labels are independent.

    Args:
        secret: 32 secret bytes.
        commitment: The commitment that fixes what the draw is for, 32 bytes.
        label: What is drawn, such as "edges/layer1.0.conv1.weight".

    Raises:
        ValueError: The secret or the commitment has the wrong length.
    """

    def __init__(self, *, secret: bytes, commitment: bytes, label: str) -> None:
        _check_32_bytes(secret=secret, commitment=commitment)
        # HKDF of one block (RFC 5869 §2.2, 2.3): extract, then expand. A credential may open 200 000 streams.
        extracted = hmac.digest(commitment, secret, "sha256")
        key = hmac.digest(extracted, DRAW_DOMAIN + label.encode() + b"\1", "sha256")
        # The 16 zero bytes are ChaCha20's block counter and nonce: the key is used for this one stream only.
        self._keystream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def bytes(self, count: int) -> bytes:
        """Return the next *count* bytes of the keystream."""
        return self._keystream.update(bytes(count))

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return the next *count* little-endian 64-bit words."""
        return np.frombuffer(self.bytes(8 * count), dtype="<u8").astype(np.uint64, copy=False)

    def integers(self, bound: int, count: int) -> npt.NDArray[np.int64]:
        """Draw *count* independent integers, each exactly uniform over ``range(bound)``.

        A word w counts if w < ⌊2^64/bound⌋·bound and gives w mod bound; other words are skipped.

        Raises:
            ValueError: *bound* is not between 1 and 2^63.
        """
        if not 1 <= bound <= 2**63:
            raise ValueError(f"bound is {bound}, expected 1 to 2^63")
        limit = 2**64 // bound * bound
        pieces: list[npt.NDArray[np.int64]] = []
        missing = count
        while missing or not pieces:
            words = self.words(missing)
            accepted = words if limit == 2**64 else words[words < np.uint64(limit)]
            pieces.append((accepted % np.uint64(bound)).astype(np.int64))
            missing -= len(accepted)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def distinct(self, bound: int, count: int) -> npt.NDArray[np.int64]:
        """Draw a uniformly random set of *count* distinct integers below *bound*; returns them ascending.

        Integers are drawn one after the other until *count* different ones were seen. At most half of them can be
        drawn: near the bound nearly every draw would be skipped, and the writer of a claim could hang its reader.

        Raises:
            ValueError: *count* is not between 0 and half of *bound*, rounded up.
        """
        if not 0 <= count <= (bound + 1) // 2:
            raise ValueError(f"cannot draw {count} distinct integers below {bound}, expected at most half of them")
        if count * DENSE_BOUND > bound:
            return self._distinct_of_many(bound, count)
        kept = np.empty(0, dtype=np.int64)
        while len(kept) < count:
            drawn = np.sort(np.concatenate([kept, self.integers(bound, count - len(kept))]))
            kept = drawn[np.diff(drawn, prepend=-1) > 0]
        return kept

    def _distinct_of_many(self, bound: int, count: int) -> npt.NDArray[np.int64]:
        """Draw what `distinct` draws, with a byte for each integer below *bound*: no round sorts what is there."""
        seen = np.zeros(bound, dtype=np.bool_)
        missing = count
        while missing:
            seen[self.integers(bound, missing)] = True
            missing = count - int(np.count_nonzero(seen))
        return np.asarray(np.flatnonzero(seen), dtype=np.int64)


def _check_32_bytes(**fields: bytes) -> None:
    for field, value in fields.items():
        if len(value) != 32:
            raise ValueError(f"{field} has {len(value)} bytes, expected 32")
