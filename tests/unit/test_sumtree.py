"""The sum tree over arrays beside the plain one; paths; refusals in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.sumtree import SumTree
from pot.commitments.sumtree_verify import MAX_SUM, Sums, encoded, leaf_hash, root_of, verify_sums
from pot.errors import UsageError

AMOUNT = st.integers(0, 2**64 - 1)


def tree_of(leaves: list[tuple[bytes, Sums]]) -> SumTree:
    identities = np.frombuffer(b"".join(identity for identity, _ in leaves), np.uint8).reshape(-1, 32)
    return SumTree(identities, np.array([[s.records, s.bytes, s.tokens] for _, s in leaves], np.uint64))


def some(size: int) -> list[tuple[bytes, Sums]]:
    return [(bytes([number]) * 32, Sums(1, 100 + number, 7 * number)) for number in range(size)]


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.builds(Sums, AMOUNT, AMOUNT, AMOUNT)), min_size=1))
def test_as_the_plain_one(leaves: list[tuple[bytes, Sums]]) -> None:
    tree = tree_of(leaves)
    root, total = root_of(leaves)
    assert (tree.root, tree.total) == (root, total)
    assert total.bytes == sum(sums.bytes for _, sums in leaves)
    for index, (identity, sums) in enumerate(leaves):
        verify_sums(identity, sums, index, len(leaves), tree.path(index), root, total)


def test_sums_beyond_64_bits_carry() -> None:
    most = 2**64 - 1
    tree = tree_of([(bytes(32), Sums(most, most, most))] * 9)
    assert tree.total == Sums(9 * most, 9 * most, 9 * most)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13])
def test_every_other_place_is_refused(size: int) -> None:
    leaves, tree = some(size), tree_of(some(size))
    for index, (identity, sums) in enumerate(leaves):
        path = tree.path(index)
        for other in set(range(size)) - {index}:
            with pytest.raises(ProofRefused) as caught:
                verify_sums(identity, sums, other, size, path, tree.root, tree.total)
            assert caught.value.code in ("sum-length", "sum-root")


def test_refusals_are_coded() -> None:
    leaves, tree = some(5), tree_of(some(5))
    (identity, sums), path = leaves[2], tree.path(2)
    for code, arguments in {
        "sum-size": (identity, sums, 2, 0, path, tree.root, tree.total),
        "sum-index": (identity, sums, 5, 5, path, tree.root, tree.total),
        "sum-length": (identity, sums, 2, 5, path[:-1], tree.root, tree.total),
        "sum-hash": (identity[:-1], sums, 2, 5, path, tree.root, tree.total),
        "sum-range": (identity, Sums(1, -1, 0), 2, 5, path, tree.root, tree.total),
        "sum-total": (identity, sums, 2, 5, path, tree.root, Sums(5, 0, 0)),
        "sum-root": (identity, sums, 2, 5, path, bytes(32), tree.total),
    }.items():
        with pytest.raises(ProofRefused) as caught:
            verify_sums(*arguments)
        assert caught.value.code == code


def test_amounts_are_128_bits_little_endian() -> None:
    assert encoded(Sums(1, 2**64, MAX_SUM)) == (
        b"\x01" + bytes(15) + bytes(8) + b"\x01" + bytes(7) + b"\xff" * 15 + b"\x7f"
    )
    assert len({leaf_hash(bytes(32), sums) for sums in (Sums(1, 0, 0), Sums(0, 1, 0), Sums(0, 0, 1))}) == 3


def test_arrays_of_another_shape_are_refused() -> None:
    for identities, amounts in (
        (np.zeros((0, 32), np.uint8), np.zeros((0, 3), np.uint64)),
        (np.zeros((2, 31), np.uint8), np.zeros((2, 3), np.uint64)),
        (np.zeros((2, 32), np.uint8), np.zeros((1, 3), np.uint64)),
        (np.zeros((2, 32), np.uint8), np.zeros((2, 3), np.int64)),
    ):
        with pytest.raises(UsageError, match="sum tree"):
            SumTree(identities, amounts)
    with pytest.raises(UsageError, match="outside a tree of 3 leaves"):
        tree_of(some(3)).path(3)
    with pytest.raises(ProofRefused):
        root_of([])
