"""No bent inclusion or consistency proof is ever accepted, and the order stays a permutation."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from pot.commitments.hashing import BLAKE3, SHA256, Hasher
from pot.commitments.merkle import MerkleTree, merkle_root
from pot.commitments.merkle_verify import ProofRefused, verify_consistency, verify_inclusion
from pot.commitments.order import Permutation

HASHERS = st.sampled_from([SHA256, BLAKE3])


def leaves(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


def bent(draw: st.DataObject, path: list[bytes]) -> list[bytes]:
    """`path` with one hash dropped, added, doubled, moved or changed in one bit."""
    kind = draw.draw(st.sampled_from(["drop", "add", "double", "swap", "flip"] if path else ["add"]))
    place = draw.draw(st.integers(0, max(0, len(path) - 1)))
    if kind == "drop":
        return path[:place] + path[place + 1 :]
    if kind == "add":
        return [*path[:place], draw.draw(st.binary(max_size=64)), *path[place:]]
    if kind == "double":
        return [*path[:place], path[place], *path[place:]]
    if kind == "swap":
        return [path[-1], *path[1:-1], path[0]] if len(path) > 1 else []
    bit = draw.draw(st.integers(0, 255))
    changed = bytearray(path[place])
    changed[bit // 8] ^= 1 << bit % 8
    return [*path[:place], bytes(changed), *path[place + 1 :]]


def included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes, hasher: Hasher) -> bool:
    try:
        verify_inclusion(leaf, index, size, path, root, hasher)
    except ProofRefused:
        return False
    return True


def consistent(old: int, new: int, path: list[bytes], first: bytes, second: bytes, hasher: Hasher) -> bool:
    try:
        verify_consistency(old, new, path, first, second, hasher)
    except ProofRefused:
        return False
    return True


@given(st.integers(1, 70), st.data(), HASHERS)
def test_bent_inclusion_paths_are_refused(size: int, data: st.DataObject, hasher: Hasher) -> None:
    tree = MerkleTree(leaves(size), hasher)
    index = data.draw(st.integers(0, size - 1))
    path = tree.inclusion_path(index)
    assert included(tree.leaf_hash(index), index, size, path, tree.root, hasher)
    forged = bent(data, path)
    assume(forged != path)
    assert not included(tree.leaf_hash(index), index, size, forged, tree.root, hasher)


@given(st.integers(1, 70), st.data(), st.integers(-5, 200), HASHERS)
def test_no_leaf_is_shown_at_another_index(size: int, data: st.DataObject, other: int, hasher: Hasher) -> None:
    tree = MerkleTree(leaves(size), hasher)
    index = data.draw(st.integers(0, size - 1))
    assume(other != index)
    assert not included(tree.leaf_hash(index), other, size, tree.inclusion_path(index), tree.root, hasher)


@given(st.integers(2, 70), st.data(), HASHERS)
def test_bent_consistency_paths_are_refused(size: int, data: st.DataObject, hasher: Hasher) -> None:
    tree = MerkleTree(leaves(size), hasher)
    old = data.draw(st.integers(1, size))
    first, path = merkle_root(leaves(old), hasher), tree.consistency_path(old)
    assert consistent(old, size, path, first, tree.root, hasher)
    forged = bent(data, path)
    assume(forged != path)
    assert not consistent(old, size, forged, first, tree.root, hasher)


@given(st.integers(2, 70), st.data(), HASHERS)
def test_a_rewritten_past_is_refused(size: int, data: st.DataObject, hasher: Hasher) -> None:
    tree = MerkleTree(leaves(size), hasher)
    old = data.draw(st.integers(1, size))
    past = leaves(old)
    past[data.draw(st.integers(0, old - 1))] = b"another leaf"
    assert not consistent(old, size, tree.consistency_path(old), merkle_root(past, hasher), tree.root, hasher)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**40), st.data())
def test_order_is_inverted_exactly(key: bytes, size: int, data: st.DataObject) -> None:
    order = Permutation(key, size)
    position = data.draw(st.integers(0, size - 1))
    record = order.at(position)
    assert 0 <= record < size
    assert order.find(record) == position
    assert order.at(order.find(position)) == position
