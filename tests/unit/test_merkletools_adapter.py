"""The merkletools interface: same calls and proof shape, sound hashing; the package itself is the comparator."""

from __future__ import annotations

import hashlib

import pytest

from pot.commitments.hashing import SHA256
from pot.commitments.merkle import merkle_root
from pot.commitments.merkletools_adapter import MerkleTools
from pot.errors import Malformed, UsageError


def made(count: int) -> MerkleTools:
    tools = MerkleTools()
    tools.add_leaf([f"leaf {number}" for number in range(count)], do_hash=True)
    tools.make_tree()
    return tools


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 8, 11, 13, 17, 33])
def test_every_leaf_is_proved_below_the_rfc_9162_root(count: int) -> None:
    tools = made(count)
    root = tools.get_merkle_root()
    leaves = [hashlib.sha256(f"leaf {number}".encode()).digest() for number in range(count)]
    assert root == merkle_root(leaves, SHA256).hex()
    for index in range(count):
        proof = tools.get_proof(index)
        assert proof is not None
        assert tools.validate_proof(proof, tools.get_leaf(index), root)
        assert not tools.validate_proof(proof, "00" * 32, root)
        if count > 1:
            assert not tools.validate_proof(proof[:-1], tools.get_leaf(index), root)


def test_an_inner_node_does_not_pass_as_a_leaf() -> None:
    tools = made(4)
    root = tools.get_merkle_root()
    proof = tools.get_proof(0)
    assert proof is not None
    assert root is not None
    inner = SHA256.node(SHA256.leaf(tools.leaves[0]), SHA256.leaf(tools.leaves[1])).hex()
    assert not tools.validate_proof(proof[1:], inner, root)
    assert not tools.validate_proof([], root, root)


def test_proofs_have_the_shape_of_the_package() -> None:
    comparator = pytest.importorskip("merkletools", reason="comparator, installed without its dependencies")
    theirs, ours = comparator.MerkleTools(), made(7)
    theirs.add_leaf([f"leaf {number}" for number in range(7)], True)
    theirs.make_tree()
    for index in range(7):
        assert [list(step) for step in ours.get_proof(index) or []] == [list(step) for step in theirs.get_proof(index)]
        assert ours.get_leaf(index) == theirs.get_leaf(index)
    assert theirs.get_merkle_root() != ours.get_merkle_root()


def test_before_the_tree_is_made_there_is_nothing_to_get() -> None:
    tools = MerkleTools()
    tools.add_leaf("ab" * 32)
    assert (tools.get_merkle_root(), tools.get_proof(0), tools.get_tree_ready_state()) == (None, None, False)
    tools.make_tree()
    assert tools.get_proof(0) == []
    assert tools.get_proof(1) is None
    tools.add_leaf("cd" * 32)
    assert tools.get_merkle_root() is None
    tools.reset_tree()
    tools.make_tree()
    assert (tools.get_merkle_root(), tools.get_leaf_count()) == (None, 0)


def test_bad_input_gives_our_errors() -> None:
    tools = made(2)
    root = tools.get_merkle_root() or ""
    with pytest.raises(UsageError):
        MerkleTools("md5")
    with pytest.raises(UsageError):
        tools.get_leaf(2)
    with pytest.raises(Malformed):
        tools.add_leaf("not hex")
    with pytest.raises(Malformed):
        tools.validate_proof([{"up": "00"}], tools.get_leaf(0), root)
    with pytest.raises(Malformed):
        tools.validate_proof([{"left": "zz"}], tools.get_leaf(0), root)
    assert not tools.validate_proof([{"left": "00"}], tools.get_leaf(0), root)
    assert not tools.validate_proof([{"left": "00" * 32}] * 65, tools.get_leaf(0), root)
