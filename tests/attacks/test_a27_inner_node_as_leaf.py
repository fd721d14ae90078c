"""A27: an inner node shown as a leaf, so that a "record" exists which nobody committed."""

from __future__ import annotations

import pytest

from pot.commitments.hashing import BLAKE3, SHA256, Hasher
from pot.commitments.merkle import MerkleTree
from pot.commitments.merkle_verify import ProofRefused, root_from_inclusion, verify_inclusion

HASHERS = pytest.mark.parametrize("hasher", [SHA256, BLAKE3], ids=["sha256", "blake3"])


@HASHERS
@pytest.mark.parametrize("size", [2, 3, 4, 8, 13])
def test_the_children_of_a_node_are_no_leaf(size: int, hasher: Hasher) -> None:
    tree = MerkleTree([b"%d" % number for number in range(size)], hasher)
    forged = hasher.leaf(tree.leaf_hash(0) + tree.leaf_hash(1))  # the node's input, hashed as a leaf's input
    path = tree.inclusion_path(0)
    for claimed in range(1, size + 1):
        with pytest.raises(ProofRefused):
            verify_inclusion(forged, 0, claimed, path[1:], tree.root, hasher)


@HASHERS
def test_the_inner_node_itself_needs_another_tree_size(hasher: Hasher) -> None:
    """With the node's hash as "leaf hash" the sums work out for half the size; the committed count refuses that."""
    tree = MerkleTree([b"%d" % number for number in range(8)], hasher)
    inner = hasher.node(tree.leaf_hash(0), tree.leaf_hash(1))
    path = tree.inclusion_path(0)[1:]
    assert root_from_inclusion(inner, 0, 4, path, hasher) == tree.root
    with pytest.raises(ProofRefused) as caught:
        verify_inclusion(inner, 0, 8, path, tree.root, hasher)
    assert caught.value.code == "merkle-length"


def test_leaf_and_node_hashes_live_in_different_domains() -> None:
    data = bytes(64)
    for hasher in (SHA256, BLAKE3):
        assert hasher.leaf(data) != hasher.node(data[:32], data[32:])
    assert SHA256.leaf(b"\x01" + data) != SHA256.node(data[:32], data[32:])
