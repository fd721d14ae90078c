"""Forged sums: trees whose parts do not add up to what their root says, and bent paths.

In the weak trees here a node binds only the total of its children, as in the summation trees that Chalkias,
Chatzigiannis and Ji broke in 2022; the same forgeries hold there and are refused by ours.
"""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.sumtree_verify import (
    LEAF_KEY,
    MAX_SUM,
    NODE_KEY,
    Sums,
    leaf_hash,
    node_hash,
    root_hash,
    root_of,
    verify_sums,
)

LEAVES = st.lists(
    st.tuples(st.binary(min_size=32, max_size=32), st.builds(Sums, *[st.integers(0, 2**64 - 1)] * 3)),
    min_size=2, max_size=20,
)  # fmt: skip


def paths(leaves: list[tuple[bytes, Sums]]) -> list[list[tuple[bytes, Sums]]]:
    """Every leaf's path, from a tree that is built in the plainest way."""
    level = [(leaf_hash(*leaf), leaf[1]) for leaf in leaves]
    found: list[list[tuple[bytes, Sums]]] = [[] for _ in leaves]
    places = list(range(len(leaves)))
    while len(level) > 1:
        for number, place in enumerate(places):
            if place ^ 1 < len(level):
                found[number].append(level[place ^ 1])
            places[number] = place >> 1
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [(node_hash(*left, *right), left[1] + right[1]) for left, right in pairs]
        level = above + level[len(above) * 2 :]
    return found


def weak_node(left: bytes, right: bytes, total: int) -> bytes:
    """The flaw: the total is bound, how it splits is not."""
    return blake3(left + right + total.to_bytes(16, "little")).digest()


def weak_check(leaf: bytes, amount: int, sibling: bytes, beside: int, right: bool, root: bytes, total: int) -> bool:
    """What the owner of one leaf of a weak tree of two checks: no amount is negative, the sum is right, the root is."""
    node = weak_node(sibling, leaf, total) if right else weak_node(leaf, sibling, total)
    return beside >= 0 and amount + beside == total and node == root


def refusal(identity: bytes, mine: Sums, index: int, path: list[tuple[bytes, Sums]], root: bytes, total: Sums) -> str:
    """The code that the owner of a leaf of two refuses with; empty where it is content."""
    try:
        verify_sums(identity, mine, index, 2, path, root, total)
    except ProofRefused as error:
        return error.code
    return ""


def test_a_total_that_is_the_largest_and_not_the_sum() -> None:
    """Both owners are content with a total of 100, although their amounts sum up to 180."""
    (one, two), total = (leaf_hash(b"1" * 32, Sums(1, 100, 0)), leaf_hash(b"2" * 32, Sums(1, 80, 0))), 100
    weak_root = weak_node(one, two, total)
    assert weak_check(one, 100, two, 0, False, weak_root, total)
    assert weak_check(two, 80, one, 20, True, weak_root, total)

    # ours: what the sibling has is in the node's hash, so at most one of the two can be content
    sums = Sums(2, 100, 0)
    for shown in (Sums(1, 0, 0), Sums(1, 20, 0)):
        first, second = (Sums(1, 100, 0), shown) if shown.bytes == 0 else (shown, Sums(1, 80, 0))
        root = root_hash(2, node_hash(one, first, two, second), sums)
        answers = [
            refusal(b"1" * 32, Sums(1, 100, 0), 0, [(two, Sums(1, 0, 0))], root, sums),
            refusal(b"2" * 32, Sums(1, 80, 0), 1, [(one, Sums(1, 20, 0))], root, sums),
        ]
        assert sorted(answers) == ["", "sum-root"]


def unchecked(value: int) -> bytes:
    return (value % 2**128).to_bytes(16, "little")


def modular_root(left: bytes, left_bytes: int, right: bytes, right_bytes: int) -> tuple[bytes, int]:
    """Our hashes without the range check: sums of 128 bits that wrap."""
    parts = [left, unchecked(1), unchecked(left_bytes), unchecked(0), right, unchecked(1), unchecked(right_bytes)]
    return blake3(b"".join([*parts, unchecked(0)]), key=NODE_KEY).digest(), (left_bytes + right_bytes) % 2**128


@pytest.mark.parametrize("negative", [-80, 2**128 - 80])
def test_a_negative_or_wrapping_sibling_hides_an_amount(negative: int) -> None:
    """A made-up leaf takes 80 bytes away from the sum. Without the range check the sum comes out as 20, and holds."""
    mine, other = leaf_hash(b"1" * 32, Sums(1, 100, 0)), leaf_hash(b"2" * 32, Sums(1, 0, 0))
    top, wrapped = modular_root(mine, 100, other, negative)
    assert wrapped == 20
    assert modular_root(mine, 100, other, negative % 2**128)[0] == top  # a verifier without the check agrees
    root = root_hash(2, top, Sums(2, 20, 0))
    with pytest.raises(ProofRefused) as caught:
        verify_sums(b"1" * 32, Sums(1, 100, 0), 0, 2, [(other, Sums(1, negative, 0))], root, Sums(2, 20, 0))
    assert caught.value.code == "sum-range"


def test_sums_that_leave_the_range_on_the_way_are_refused() -> None:
    half = Sums(1, MAX_SUM, 0)
    with pytest.raises(ProofRefused) as caught:
        root_of([(bytes(32), half), (bytes(32), Sums(1, 1, 0))])
    assert caught.value.code == "sum-range"
    with pytest.raises(ProofRefused) as caught:
        verify_sums(bytes(32), half, 0, 2, [(bytes(32), Sums(1, 1, 0))], bytes(32), Sums(2, MAX_SUM + 1, 0))
    assert caught.value.code == "sum-range"


def test_a_node_is_no_leaf() -> None:
    """A leaf has 80 bytes and another key; an inner node's 160 bytes cannot be read as one."""
    leaves = [(bytes([n]) * 32, Sums(1, n, n)) for n in range(2)]
    top = node_hash(leaf_hash(*leaves[0]), leaves[0][1], leaf_hash(*leaves[1]), leaves[1][1])
    assert LEAF_KEY != NODE_KEY
    assert leaf_hash(top, Sums(2, 1, 1)) != top
    with pytest.raises(ProofRefused):
        verify_sums(top, Sums(2, 1, 1), 0, 1, [], *root_of(leaves))


@given(LEAVES, st.data())
def test_every_bent_part_is_refused(leaves: list[tuple[bytes, Sums]], data: st.DataObject) -> None:
    root, total = root_of(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    identity, sums = leaves[index]
    path = paths(leaves)[index]
    verify_sums(identity, sums, index, len(leaves), path, root, total)
    at = data.draw(st.integers(0, len(path) - 1))
    by = data.draw(st.integers(-(2**130), 2**130).filter(bool))
    kind = data.draw(st.sampled_from(["records", "bytes", "tokens"]))
    beside, amounts = path[at][1], {"records": 0, "bytes": 0, "tokens": 0} | {kind: by}
    bent_sums = [*path[:at], (path[at][0], beside + Sums(**amounts)), *path[at + 1 :]]
    flipped = bytes([path[at][0][0] ^ 1]) + path[at][0][1:]
    bent_hash = [*path[:at], (flipped, beside), *path[at + 1 :]]
    change = Sums(**amounts)
    for forged in (
        (identity, sums, index, len(leaves), bent_sums, root, total),
        (identity, sums, index, len(leaves), bent_sums, root, total + change),
        (identity, sums + change, index, len(leaves), path, root, total),
        (identity, sums + change, index, len(leaves), path, root, total + change),
        (identity, sums + change, index, len(leaves), bent_sums, root, total + change + change),
        (identity, sums, index, len(leaves), bent_hash, root, total),
        (identity, sums, index, len(leaves), path[:-1], root, total),
        (identity, sums, index, len(leaves), [*path, path[-1]], root, total),
        (identity, sums, index, len(leaves), path, root, total + change),
        (identity, sums, index, len(leaves) + 1, path, root, total),
    ):
        with pytest.raises(ProofRefused) as caught:
            verify_sums(*forged)
        assert caught.value.code in ("sum-range", "sum-total", "sum-root", "sum-length")


@given(LEAVES, st.integers(1, 2**64))
def test_amounts_moved_from_one_leaf_to_another_are_refused(leaves: list[tuple[bytes, Sums]], moved: int) -> None:
    """The total stays the same: only the binding of each child's own sum refuses it."""
    root, total = root_of(leaves)
    path = paths(leaves)[0]
    identity, sums = leaves[0]
    taken = Sums(sums.records, sums.bytes + moved, sums.tokens)
    first = (path[0][0], Sums(path[0][1].records, path[0][1].bytes - moved, path[0][1].tokens))
    with pytest.raises(ProofRefused) as caught:
        verify_sums(identity, taken, 0, len(leaves), [first, *path[1:]], root, total)
    assert caught.value.code in ("sum-root", "sum-range")
