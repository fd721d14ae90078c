"""Merkle-sum verification: that a leaf with its amounts stands in a tree whose root binds the sums of all leaves.

Spec: `specs/composition.md`, "Sum tree". The tree has the RFC 9162 shape; a node's hash is over both children's hashes
*and* both children's sums. Where only the total is bound, a prover shows each child another sum for its sibling
(Chalkias, Chatzigiannis, Ji: "Broken Proofs of Solvency in Blockchain Custodial Wallets and Exchanges", 2022).

Shows: the leaf is one of the tree's, and the root's sums are sums of amounts none of which is negative or wrapped.
Does not show: that the amounts are true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from pot.canonical import derive
from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.merkle_verify import MAX_TREE_SIZE, ProofRefused, path_length

__all__ = [
    "LEAF_KEY",
    "MAX_SUM",
    "NODE_KEY",
    "SUM_BYTES",
    "Sums",
    "encoded",
    "leaf_hash",
    "node_hash",
    "root_from_path",
    "root_hash",
    "root_of",
    "verify_sums",
]

MAX_SUM: Final = 2**127 - 1  # two of them fit into 128 bits, so an addition that passes the check never wrapped
SUM_BYTES: Final = 16
LEAF_KEY: Final = derive("pot/sum-leaf/v1")
NODE_KEY: Final = derive("pot/sum-node/v1")
_ROOT_CONTEXT: Final = "pot/sum-root/v1"


@dataclass(frozen=True, slots=True)
class Sums:
    """Amounts of a leaf, or sums over a subtree; each 0 to `MAX_SUM`."""

    records: int
    bytes: int
    tokens: int

    def check(self) -> Sums:
        """These sums. Raises `ProofRefused` ("sum-range") where one is negative or over `MAX_SUM`."""
        for name, value in (("records", self.records), ("bytes", self.bytes), ("tokens", self.tokens)):
            if not 0 <= value <= MAX_SUM:
                raise ProofRefused("sum-range", f"sum tree: {name} is {value}, outside 0 to 2^127 - 1")
        return self

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.records + other.records, self.bytes + other.bytes, self.tokens + other.tokens)


def encoded(sums: Sums) -> bytes:
    """Three u128, little endian: records, bytes, tokens; 48 bytes. Raises `ProofRefused` ("sum-range")."""
    sums.check()
    return b"".join(value.to_bytes(SUM_BYTES, "little") for value in (sums.records, sums.bytes, sums.tokens))


def leaf_hash(identity: bytes, sums: Sums) -> bytes:
    """Leaf over what it stands for (32 bytes) and its amounts; 32 bytes."""
    return blake3(identity + encoded(sums), key=LEAF_KEY).digest()


def node_hash(left: bytes, left_sums: Sums, right: bytes, right_sums: Sums) -> bytes:
    """Inner node over two children, each with its own sums; 32 bytes."""
    return blake3(left + encoded(left_sums) + right + encoded(right_sums), key=NODE_KEY).digest()


def root_hash(size: int, top: bytes, sums: Sums) -> bytes:
    """The root binds the number of leaves and the sums to the top node; 32 bytes."""
    return derive(_ROOT_CONTEXT, size.to_bytes(8, "little"), top, encoded(sums))


def root_of(leaves: Sequence[tuple[bytes, Sums]]) -> tuple[bytes, Sums]:
    """The root over all leaves (what each stands for, its amounts; at least one), and the total.

    Plain Python: for short lists, and what `pot.commitments.sumtree` is compared with. Raises `ProofRefused`
    ("sum-size", "sum-range").
    """
    if not leaves:
        raise ProofRefused("sum-size", "sum tree: there is no leaf")
    level = [(leaf_hash(identity, sums), sums) for identity, sums in leaves]
    while len(level) > 1:
        above = [
            (node_hash(*level[at], *level[at + 1]), (level[at][1] + level[at + 1][1]).check())
            for at in range(0, len(level) - 1, 2)
        ]
        level = above + level[len(above) * 2 :]
    return root_hash(len(leaves), *level[0]), level[0][1]


def root_from_path(
    identity: bytes, sums: Sums, index: int, size: int, path: Sequence[tuple[bytes, Sums]]
) -> tuple[bytes, Sums]:
    """The root and the total sums that `path` gives for a leaf. `path`: siblings, hash and sums, leaf to root.

    Raises `ProofRefused` with the code "sum-size", "sum-index", "sum-length", "sum-hash" or "sum-range".
    """
    if not 0 < size < MAX_TREE_SIZE:
        raise ProofRefused("sum-size", f"sum tree: size {size} is out of range")
    if not 0 <= index < size:
        raise ProofRefused("sum-index", f"sum tree: index {index} is outside a tree of {size} leaves")
    expected = path_length(index, size)
    if len(path) != expected:
        raise ProofRefused("sum-length", f"sum tree: {len(path)} siblings, expected {expected}")
    for item in (identity, *(digest for digest, _ in path)):
        if len(item) != DIGEST_BYTES:
            raise ProofRefused("sum-hash", f"sum tree: a hash has {len(item)} bytes, expected {DIGEST_BYTES}")
    node, total, last = leaf_hash(identity, sums), sums, size - 1
    for sibling, beside in path:  # RFC 9162 2.1.3.2 step 4, with sums
        if index & 1 or index == last:
            node = node_hash(sibling, beside, node, total)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, total, sibling, beside)
        total = (total + beside).check()
        index, last = index >> 1, last >> 1
    return root_hash(size, node, total), total


def verify_sums(
    identity: bytes,
    sums: Sums,
    index: int,
    size: int,
    path: Sequence[tuple[bytes, Sums]],
    root: bytes,
    total: Sums,
) -> None:
    """Refuse unless the leaf stands at `index` of the tree with `root`, whose leaves sum up to `total`.

    Raises `ProofRefused` as `root_from_path`, or with the code "sum-total" or "sum-root".
    """
    found, found_total = root_from_path(identity, sums, index, size, path)
    if found_total != total:
        raise ProofRefused("sum-total", f"sum tree: the path sums up to {found_total}, expected {total}")
    if found != root:
        raise ProofRefused("sum-root", f"sum tree: gives the root {found.hex()}, expected {root.hex()}")
