"""Merkle trees as in RFC 6962 §2.1 (RFC 9162 §2.1): commit to many leaves, later reveal a few.

Leaves and inner nodes are hashed under different prefixes, so neither can stand in for the other. Leaves that
must stay secret until they are revealed need a salt of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

LEAF_PREFIX = b"\0"
NODE_PREFIX = b"\1"
DIGEST_BYTES = 32


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over *leaves*, 32 bytes (RFC 6962 §2.1, MTH).

    Raises:
        ValueError: There are no leaves.
    """
    if not leaves:
        raise ValueError("cannot build a Merkle tree without leaves")
    return _root([_leaf_hash(leaf) for leaf in leaves])


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the siblings on the way from leaf *index* up to the root, lowest first (RFC 6962 §2.1.1, PATH).

    Raises:
        ValueError: *index* is not that of a leaf.
    """
    if not 0 <= index < len(leaves):
        raise ValueError(f"leaf index is {index}, expected 0 to {len(leaves) - 1}")
    hashes = [_leaf_hash(leaf) for leaf in leaves]
    siblings: list[bytes] = []
    while len(hashes) > 1:
        split = _split(len(hashes))
        left, right = hashes[:split], hashes[split:]
        hashes, other, index = (left, right, index) if index < split else (right, left, index - split)
        siblings.append(_root(other))
    return tuple(reversed(siblings))


def verify_inclusion(*, root: bytes, leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bool:
    """Say whether *proof* shows that *leaf* is number *index* of the *size* leaves under *root* (RFC 9162 §2.1.3.2).

    Args:
        root: The root, 32 bytes.
        leaf: The leaf itself, not its hash.
        index: Its position, from 0.
        size: Number of leaves in the tree.
        proof: The siblings, lowest first.
    """
    if not 0 <= index < size or any(len(sibling) != DIGEST_BYTES for sibling in proof):
        return False
    position, last, digest = index, size - 1, _leaf_hash(leaf)
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            digest = _node_hash(sibling, digest)
            while position and not position & 1:  # a lone node at the right edge moves up unhashed
                position, last = position >> 1, last >> 1
        else:
            digest = _node_hash(digest, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and digest == root


def _root(hashes: Sequence[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    split = _split(len(hashes))
    return _node_hash(_root(hashes[:split]), _root(hashes[split:]))


def _split(size: int) -> int:
    """Return the largest power of two below *size*."""
    return 1 << ((size - 1).bit_length() - 1)


def _leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(LEAF_PREFIX + leaf).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(NODE_PREFIX + left + right).digest()
