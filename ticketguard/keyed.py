"""Every secret-derived draw: domain-separated HKDF, a ChaCha20 keystream, positions and labels from it.

The construction is public and fixed (``signatures/keyed-draws.md`` writes it down for a second
implementation, ``signatures/vectors/keyed.json`` pins it). A draw is a function of (secret, commitment,
label) alone, so nobody can choose one after seeing what it will be tested on.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from ticketguard.errors import ConfigurationError

COMMITMENT_DOMAIN = b"ticketguard/commitment/v1\0"
DRAW_DOMAIN = b"ticketguard/draw/v1\0"
SECRET_DOMAIN = b"ticketguard/secret/v1\0"
SECRET_BYTES = 32
# Words drawn in one go: they, and what is made of them, stay in a core's own cache.
WORDS_AT_ONCE = 2**14
_NO_MESSAGE = memoryview(bytes(8 * WORDS_AT_ONCE))
# From one in so many on, distinct integers are marked in a map of all rather than sorted; so are those below a bound
# whose map costs nothing. A map is counted again after a round of one in so many or more. (Measured: decision 0076.)
MAPPED_SHARE, SMALL_MAP, COUNTED_SHARE = 16, 2**16, 256
# So few are drawn one by one: an array operation costs what thirty draws do.
FEW = 32

Integers: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
# Integers of four bytes where four are enough, which sort in half the time, or else of eight.
Drawn: TypeAlias = npt.NDArray[Any]


def checked_secret(secret: object) -> bytes:
    """Return a secret that a user gives; without one, a fresh one.

    Raises:
        ConfigurationError: It is not `SECRET_BYTES` bytes. The message does not show it.
    """
    if secret is None:
        return os.urandom(SECRET_BYTES)
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        found = f"{len(secret)} bytes" if isinstance(secret, bytes) else f"of type {type(secret).__name__}"
        raise ConfigurationError(
            f"the secret is {found}, expected {SECRET_BYTES} bytes, such as those of an earlier plan or start "
            "(.secret): leave it out for a fresh one"
        )
    return secret


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

    def integers(self, bound: int, count: int) -> Integers:
        """Draw *count* independent integers, each exactly uniform over ``range(bound)``.

        A 64-bit little-endian word w counts if w < ⌊2^64/bound⌋·bound and gives w mod bound; other words are skipped.

        Raises:
            ValueError: *bound* is not between 1 and 2^63.
        """
        return self._drawn(bound, count, np.empty(count, dtype=np.int64))

    def distinct(self, bound: int, count: int) -> Integers:
        """Draw a uniformly random set of *count* distinct integers below *bound*; returns them ascending.

        Integers are drawn one after the other until *count* different ones were seen. At most half of them can be
        drawn: near the bound nearly every draw would be skipped, and the writer of a claim could hang its reader.

        Raises:
            ValueError: *count* is not between 0 and half of *bound*, rounded up.
        """
        _check_share(bound, count)
        if count <= FEW:
            return np.array(sorted(self._few_distinct(bound, count)), dtype=np.int64)
        if bound <= SMALL_MAP or count * MAPPED_SHARE > bound:
            return np.flatnonzero(self._mapped(bound, count))
        return self._sorted(bound, count).astype(np.int64, copy=False)

    def distinct_map(self, bound: int, count: int) -> BoolArray:
        """Draw the set that `distinct` draws; returns for each integer below *bound* whether it is in the set.

        Takes *bound* bytes of memory; of three in a hundred or more, no more time than their list.

        Raises:
            ValueError: *count* is not between 0 and half of *bound*, rounded up.
        """
        _check_share(bound, count)
        return self._mapped(bound, count)

    def _few_distinct(self, bound: int, count: int) -> set[int]:
        seen = set[int]()
        while missing := count - len(seen):
            seen.update(self._few(bound, missing))
        return seen

    def _mapped(self, bound: int, count: int) -> BoolArray:
        """Mark what is drawn in a map: no draw costs more for those before it."""
        seen = np.zeros(bound, dtype=np.bool_)
        missing = count
        while missing > FEW and (bound <= SMALL_MAP or missing * COUNTED_SHARE > bound):
            for piece in self._pieces(bound, missing):
                seen[piece] = True
            missing = count - int(np.count_nonzero(seen))
        while missing > FEW:
            drawn = self._round(bound, missing)
            drawn = drawn[~seen[drawn]]
            seen[drawn] = True
            missing -= len(drawn)
        while missing:
            for one in self._few(bound, missing):
                missing -= not seen[one]
                seen[one] = True
        return seen

    def _sorted(self, bound: int, count: int) -> Drawn:
        """Sort what is drawn, and apart from it the few draws that make up for repetitions."""
        first = self._round(bound, count)
        late = first[:0]
        while missing := count - len(first) - len(late):
            drawn = self._round(bound, missing)
            places = np.searchsorted(first, drawn)
            is_new = first.take(places, mode="clip") != drawn
            late = _ascending(np.concatenate([late, drawn[is_new]]))
        return np.insert(first, np.searchsorted(first, late), late) if len(late) else first

    def _few(self, bound: int, count: int) -> list[int]:
        """Draw integers from *count* words, fewer where a word is skipped."""
        limit = _limit(bound)
        words = struct.unpack(f"<{count}Q", self.bytes(8 * count))
        return [word % bound for word in words if word < limit]

    def _round(self, bound: int, count: int) -> Drawn:
        """Draw *count* integers and return the different ones among them, ascending."""
        drawn = np.empty(count, dtype=np.uint32 if bound <= 2**32 else np.int64)
        return _ascending(self._drawn(bound, count, drawn))

    def _drawn(self, bound: int, count: int, drawn: Drawn) -> Drawn:
        """Fill *drawn* with *count* integers."""
        start = 0
        for piece in self._pieces(bound, count):
            drawn[start : start + len(piece)] = piece
            start += len(piece)
        return drawn

    def _pieces(self, bound: int, count: int) -> Iterator[Integers]:
        """Draw *count* integers, some at a time; each piece takes the place of the one before it."""
        highest = _limit(bound) - 1
        buffer = np.empty(min(count, WORDS_AT_ONCE), dtype="<u8")
        while count:
            words = buffer[:count]
            self._keystream.update_into(_NO_MESSAGE[: words.nbytes], words.data.cast("B"))
            words = words.astype(np.uint64, copy=False)
            if words.max() > highest:
                words = words[words <= highest]
            words %= np.uint64(bound)
            yield words.view(np.int64)
            count -= len(words)


def _limit(bound: int) -> int:
    """Return the largest multiple of *bound* that words are below or at: words from there on are skipped."""
    if not 1 <= bound <= 2**63:
        raise ValueError(f"bound is {bound}, expected 1 to 2^63")
    return 2**64 // bound * bound


def _ascending(values: Drawn) -> Drawn:
    """Sort *values* in place and return the different ones among them."""
    values.sort()
    is_first = np.empty(len(values), dtype=np.bool_)
    is_first[:1] = True
    np.not_equal(values[1:], values[:-1], out=is_first[1:])
    return values[is_first]


def _check_share(bound: int, count: int) -> None:
    if not 0 <= count <= (bound + 1) // 2:
        raise ValueError(f"cannot draw {count} distinct integers below {bound}, expected at most half of them")


def _check_32_bytes(**fields: bytes) -> None:
    for field, value in fields.items():
        if len(value) != 32:
            raise ValueError(f"{field} has {len(value)} bytes, expected 32")
