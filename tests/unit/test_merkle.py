"""The RFC 9162 tree against the RFC's own recursive definition, over all small sizes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pot.commitments.hashing import BLAKE3, SHA256, Hasher, record_digest
from pot.commitments.merkle import (
    LeafTree,
    MerkleTree,
    OrderedRoot,
    consistency_path,
    inclusion_path,
    merkle_root,
    ordered_root,
)
from pot.commitments.merkle_verify import (
    MAX_TREE_SIZE,
    ProofRefused,
    path_length,
    root_from_inclusion,
    verify_consistency,
    verify_inclusion,
)
from pot.errors import Refused, UsageError

SIZES = range(1, 34)
HASHERS = pytest.mark.parametrize("hasher", [SHA256, BLAKE3], ids=["sha256", "blake3"])


def leaves(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


def split(size: int) -> int:
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def naive_root(items: list[bytes], hasher: Hasher) -> bytes:
    if not items:
        return hasher.empty
    if len(items) == 1:
        return hasher.leaf(items[0])
    k = split(len(items))
    return hasher.node(naive_root(items[:k], hasher), naive_root(items[k:], hasher))


def naive_path(index: int, items: list[bytes], hasher: Hasher) -> list[bytes]:
    if len(items) == 1:
        return []
    k = split(len(items))
    if index < k:
        return [*naive_path(index, items[:k], hasher), naive_root(items[k:], hasher)]
    return [*naive_path(index - k, items[k:], hasher), naive_root(items[:k], hasher)]


def naive_subproof(old: int, items: list[bytes], whole: bool, hasher: Hasher) -> list[bytes]:
    if old == len(items):
        return [] if whole else [naive_root(items, hasher)]
    k = split(len(items))
    if old <= k:
        return [*naive_subproof(old, items[:k], whole, hasher), naive_root(items[k:], hasher)]
    return [*naive_subproof(old - k, items[k:], False, hasher), naive_root(items[:k], hasher)]


@HASHERS
def test_root_and_paths_equal_the_recursive_definition(hasher: Hasher) -> None:
    for size in SIZES:
        items = leaves(size)
        tree = MerkleTree(items, hasher)
        assert tree.root == merkle_root(items, hasher) == naive_root(items, hasher)
        for index in range(size):
            assert tree.inclusion_path(index) == naive_path(index, items, hasher)
            assert len(tree.inclusion_path(index)) == path_length(index, size)
        for old in range(1, size + 1):
            assert tree.consistency_path(old) == naive_subproof(old, items, True, hasher)


@HASHERS
def test_every_honest_proof_of_small_trees_is_accepted(hasher: Hasher) -> None:
    for size in SIZES:
        items = leaves(size)
        tree = MerkleTree(items, hasher)
        for index in range(size):
            path = inclusion_path(items, index, hasher)
            assert root_from_inclusion(tree.leaf_hash(index), index, size, path, hasher) == tree.root
        for old in range(1, size + 1):
            path = consistency_path(items, old, hasher)
            verify_consistency(old, size, path, merkle_root(items[:old], hasher), tree.root, hasher)


def test_no_proof_is_accepted_at_another_index_or_size() -> None:
    for size in range(1, 18):
        tree = MerkleTree(leaves(size), SHA256)
        for index in range(size):
            path = tree.inclusion_path(index)
            for other in range(-1, 2 * size + 1):
                if other != index:
                    with pytest.raises(ProofRefused):
                        verify_inclusion(tree.leaf_hash(index), other, size, path, tree.root, SHA256)


def test_no_consistency_proof_is_accepted_for_another_old_size() -> None:
    for size in range(2, 18):
        tree = MerkleTree(leaves(size), SHA256)
        for old in range(1, size + 1):
            root = merkle_root(leaves(old), SHA256)
            for other in range(size + 2):
                if other != old:
                    with pytest.raises(ProofRefused):
                        verify_consistency(other, size, tree.consistency_path(old), root, tree.root, SHA256)


def test_sha256_hashing_is_that_of_rfc_9162() -> None:
    assert SHA256.empty == hashlib.sha256(b"").digest()
    assert SHA256.leaf(b"x") == hashlib.sha256(b"\x00x").digest()
    assert SHA256.node(b"l" * 32, b"r" * 32) == hashlib.sha256(b"\x01" + b"l" * 32 + b"r" * 32).digest()


@HASHERS
def test_the_empty_tree_has_a_root_and_no_path(hasher: Hasher) -> None:
    assert merkle_root([], hasher) == MerkleTree([], hasher).root == hasher.empty
    with pytest.raises(UsageError, match="outside a tree of 0 leaves"):
        inclusion_path([], 0, hasher)
    with pytest.raises(UsageError, match="not between 1 and 0"):
        consistency_path([], 0, hasher)


@pytest.mark.parametrize("index", [-1, 3, 2**70])
def test_no_path_outside_the_tree(index: int) -> None:
    with pytest.raises(UsageError):
        inclusion_path(leaves(3), index, SHA256)


@pytest.mark.parametrize("old", [-1, 0, 4])
def test_no_consistency_path_for_impossible_sizes(old: int) -> None:
    with pytest.raises(UsageError):
        consistency_path(leaves(3), old, SHA256)


def test_refusals_carry_their_code() -> None:
    tree = MerkleTree(leaves(5), SHA256)
    leaf, path = tree.leaf_hash(2), tree.inclusion_path(2)
    cases = {
        "merkle-size": (leaf, 0, MAX_TREE_SIZE + 1, path),
        "merkle-index": (leaf, 5, 5, path),
        "merkle-length": (leaf, 2, 5, path[:-1]),
        "merkle-hash": (leaf, 2, 5, [path[0][:-1], *path[1:]]),
        "merkle-root": (tree.leaf_hash(3), 2, 5, path),
    }
    for code, (hashed, index, size, given) in cases.items():
        with pytest.raises(ProofRefused) as caught:
            verify_inclusion(hashed, index, size, given, tree.root, SHA256)
        assert caught.value.code == code
        assert isinstance(caught.value, Refused)


def test_a_short_leaf_hash_is_refused_before_hashing() -> None:
    with pytest.raises(ProofRefused) as caught:
        verify_inclusion(b"", 0, 1, [], b"", SHA256)
    assert caught.value.code == "merkle-hash"


def test_a_consistency_proof_from_nothing_is_refused() -> None:
    with pytest.raises(ProofRefused) as caught:
        verify_consistency(0, 3, [], SHA256.empty, merkle_root(leaves(3), SHA256), SHA256)
    assert caught.value.code == "merkle-size"


def rows(items: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(items), np.uint8).reshape(-1, 32)


def test_trees_over_arrays_equal_the_plain_ones_for_all_small_sizes() -> None:
    digests = [record_digest(b"%d" % number) for number in range(301)]
    growing = OrderedRoot()
    for size in range(301):
        plain, fast = MerkleTree(digests[:size], BLAKE3), LeafTree(rows(digests[:size]))
        assert plain.root == fast.root == ordered_root(rows(digests[:size])) == growing.root()
        assert fast.size == growing.count == size
        assert [fast.inclusion_path(index) for index in range(size)] == [*map(plain.inclusion_path, range(size))]
        growing.update(rows(digests[size : size + 1]))


def test_an_ordered_root_over_many_blocks_equals_the_plain_one() -> None:
    digests = [record_digest(b"%d" % number) for number in range(3 * 2**14 + 5)]
    for size in (2**14 - 1, 2**14, 2**14 + 1, 2**15, 3 * 2**14, len(digests)):
        assert ordered_root(rows(digests[:size])) == merkle_root(digests[:size], BLAKE3)


def test_an_ordered_root_keeps_no_more_than_one_block() -> None:
    growing, block = OrderedRoot(), np.zeros((1000, 32), np.uint8)
    for _ in range(100):
        growing.update(block)
    assert sum(len(kept) for kept in growing._rest) < 2**14
    assert len(growing._full) <= 7


def test_an_ordered_root_copies_what_it_keeps() -> None:
    growing, block = OrderedRoot(), np.zeros((5, 32), np.uint8)
    growing.update(block)
    block[:] = 1
    assert growing.root() == ordered_root(np.zeros((5, 32), np.uint8))


@pytest.mark.parametrize("index", [-1, 3])
def test_no_path_outside_an_array_tree(index: int) -> None:
    with pytest.raises(UsageError, match="outside a tree of 3 leaves"):
        LeafTree(np.zeros((3, 32), np.uint8)).inclusion_path(index)


@pytest.mark.parametrize("shape", [(3, 31), (32,), (1, 2, 32)])
def test_digests_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    for build in (LeafTree, ordered_root):
        with pytest.raises(UsageError, match="rows of 32 bytes"):
            build(np.zeros(shape, np.uint8))
