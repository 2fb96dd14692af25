"""Merkle trees against Certificate Transparency's own test vectors and against every tampering with a proof."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.credentials.merkle import inclusion_proof, merkle_root, verify_inclusion

VECTORS = json.loads((Path(__file__).parents[2] / "signatures" / "vectors" / "merkle.json").read_text())
LEAVES = tuple(bytes.fromhex(leaf) for leaf in VECTORS["leaves"])
trees = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


@pytest.mark.parametrize("vector", VECTORS["roots"], ids=lambda vector: f"{vector['size']} leaves")
def test_roots_are_the_published_ones(vector: dict[str, object]) -> None:
    assert merkle_root(LEAVES[: int(str(vector["size"]))]).hex() == vector["root"]


@pytest.mark.parametrize("vector", VECTORS["proofs"], ids=lambda vector: f"{vector['index']} of {vector['size']}")
def test_inclusion_proofs_are_the_published_ones(vector: dict[str, object]) -> None:
    leaves = LEAVES[: int(str(vector["size"]))]
    assert [sibling.hex() for sibling in inclusion_proof(leaves, int(str(vector["index"])))] == vector["proof"]


@given(trees, st.data())
def test_every_leaf_is_proved_and_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, proof, size = merkle_root(leaves), inclusion_proof(leaves, index), len(leaves)
    assert verify_inclusion(root=root, leaf=leaves[index], index=index, size=size, proof=proof)
    assert not verify_inclusion(root=root, leaf=leaves[index] + b"x", index=index, size=size, proof=proof)
    assert not verify_inclusion(root=bytes(32), leaf=leaves[index], index=index, size=size, proof=proof)
    assert not verify_inclusion(root=root, leaf=leaves[index], index=index, size=size, proof=(*proof, bytes(32)))
    for position, sibling in enumerate(proof):
        flipped = (*proof[:position], bytes([sibling[0] ^ 1, *sibling[1:]]), *proof[position + 1 :])
        assert not verify_inclusion(root=root, leaf=leaves[index], index=index, size=size, proof=flipped)
        missing = (*proof[:position], *proof[position + 1 :])
        assert not verify_inclusion(root=root, leaf=leaves[index], index=index, size=size, proof=missing)


@given(st.integers(2, 40), st.data())
def test_proof_does_not_hold_at_another_index(size: int, data: st.DataObject) -> None:
    leaves = [bytes([number]) for number in range(size)]
    index, other = data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True))
    proof = inclusion_proof(leaves, index)
    assert not verify_inclusion(root=merkle_root(leaves), leaf=leaves[index], index=other, size=size, proof=proof)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_indices_outside_the_tree_are_never_proved(index: int, size: int) -> None:
    assert not verify_inclusion(root=merkle_root(LEAVES[:3]), leaf=LEAVES[0], index=index, size=size, proof=())


@pytest.mark.parametrize("length", [31, 33])
def test_siblings_of_another_length_are_refused(length: int) -> None:
    """Also where the root is made to fit: a longer sibling would let an inner node's bytes be split elsewhere."""
    sibling = bytes(length)
    root = hashlib.sha256(b"\1" + hashlib.sha256(b"\0" + LEAVES[0]).digest() + sibling).digest()
    assert not verify_inclusion(root=root, leaf=LEAVES[0], index=0, size=2, proof=(sibling,))


def test_a_proof_longer_than_the_way_to_the_root_is_refused() -> None:
    root = hashlib.sha256(b"\1" + bytes(32) + hashlib.sha256(b"\0" + LEAVES[0]).digest()).digest()
    assert verify_inclusion(root=root, leaf=LEAVES[0], index=1, size=2, proof=(bytes(32),))
    assert not verify_inclusion(root=root, leaf=LEAVES[0], index=0, size=1, proof=(bytes(32),))


def test_inner_node_cannot_pass_for_a_leaf() -> None:
    left, right = (hashlib.sha256(b"\0" + leaf).digest() for leaf in LEAVES[:2])
    assert merkle_root([left + right]) != merkle_root(LEAVES[:2])


def test_trees_without_leaves_are_refused() -> None:
    with pytest.raises(ValueError, match="without leaves"):
        merkle_root([])


@pytest.mark.parametrize("index", [-1, 4, 5])
def test_proofs_of_leaves_that_are_not_there_are_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"leaf index is {index}, expected 0 to 3"):
        inclusion_proof(LEAVES[:4], index)
