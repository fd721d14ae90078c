"""Merkle verification: inclusion and consistency proofs of the RFC 9162 tree, checked from hashes alone.

Spec: RFC 9162 2.1.3.2 (inclusion) and 2.1.4.2 (consistency); `specs/commitments.md`, "Ordered tree". Lengths and
bounds are checked before anything is hashed. The core returns the calculated root; thin wrappers compare.

Shows: a leaf hash stands at that index of a tree of that size and root; a tree extends an older one.
Does not show: what the leaf's input means, or that the tree holds no further copies of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pot.commitments.hashing import DIGEST_BYTES, Hasher
from pot.errors import Refused

__all__ = [
    "MAX_TREE_SIZE",
    "ProofRefused",
    "path_length",
    "root_from_inclusion",
    "verify_consistency",
    "verify_inclusion",
]

MAX_TREE_SIZE: Final = 2**63  # leaves; keeps every path below 64 hashes


class ProofRefused(Refused):
    """A Merkle or set proof does not show what it was shown for. `code` names the check that said no."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    def __reduce__(self) -> tuple[type[ProofRefused], tuple[str, str]]:
        return type(self), (self.code, str(self))  # crosses a process boundary with its code


def path_length(index: int, size: int) -> int:
    """Number of hashes in the inclusion path of leaf `index` in a tree of `size` leaves."""
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


def root_from_inclusion(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes], hasher: Hasher) -> bytes:
    """The root that `path` (siblings, leaf to root, 32 bytes each) gives for a leaf. Raises `ProofRefused`."""
    if not 0 < size <= MAX_TREE_SIZE:
        raise ProofRefused("merkle-size", f"inclusion proof: tree size {size} is out of range")
    if not 0 <= index < size:
        raise ProofRefused("merkle-index", f"inclusion proof: index {index} is outside a tree of {size} leaves")
    expected = path_length(index, size)
    if len(path) != expected:
        raise ProofRefused("merkle-length", f"inclusion proof: {len(path)} hashes, expected {expected}")
    _check_hashes([leaf_hash, *path])
    node, last = leaf_hash, size - 1
    for sibling in path:  # RFC 9162 2.1.3.2 step 4
        if index & 1 or index == last:
            node = hasher.node(sibling, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = hasher.node(node, sibling)
        index, last = index >> 1, last >> 1
    return node


def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, path: Sequence[bytes], root: bytes, hasher: Hasher
) -> None:
    """Refuse unless `leaf_hash` stands at `index` in the tree of `size` leaves with `root`. Raises `ProofRefused`."""
    calculated = root_from_inclusion(leaf_hash, index, size, path, hasher)
    if calculated != root:
        raise ProofRefused(
            "merkle-root", f"inclusion proof: gives the root {calculated.hex()}, expected {root.hex() or '(empty)'}"
        )


def verify_consistency(
    old_size: int, new_size: int, path: Sequence[bytes], old_root: bytes, new_root: bytes, hasher: Hasher
) -> None:
    """Refuse unless the tree (`new_size`, `new_root`) extends (`old_size`, `old_root`). Raises `ProofRefused`.

    The empty old tree is refused: every tree extends it, so such a proof shows nothing.
    """
    if not 0 < old_size <= new_size <= MAX_TREE_SIZE:
        raise ProofRefused("merkle-size", f"consistency proof: sizes {old_size} and {new_size} are out of range")
    if old_size == new_size:  # nothing is hashed, so the roots may be any bytes as long as they are the same
        if path:
            raise ProofRefused("merkle-length", f"consistency proof: {len(path)} hashes, expected 0 for equal sizes")
        if old_root != new_root:
            raise ProofRefused("merkle-root", "consistency proof: equal sizes with different roots")
        return
    _check_hashes([old_root, new_root, *path])
    expected = _consistency_length(old_size, new_size)
    if len(path) != expected:
        raise ProofRefused("merkle-length", f"consistency proof: {len(path)} hashes, expected {expected}")
    from_old, from_new = _consistency_roots(old_size, new_size, path, old_root, hasher)
    if from_old != old_root:
        raise ProofRefused("merkle-root", f"consistency proof: old root is {from_old.hex()}, expected {old_root.hex()}")
    if from_new != new_root:
        raise ProofRefused("merkle-root", f"consistency proof: new root is {from_new.hex()}, expected {new_root.hex()}")


def _consistency_length(old_size: int, new_size: int) -> int:
    """The path walks from the last full subtree of the old tree; a power of two needs no node for that subtree."""
    shift = (old_size & -old_size).bit_length() - 1
    index, size = (old_size - 1) >> shift, ((new_size - 1) >> shift) + 1
    return path_length(index, size) + (0 if index == 0 else 1)


def _consistency_roots(
    old_size: int, new_size: int, path: Sequence[bytes], old_root: bytes, hasher: Hasher
) -> tuple[bytes, bytes]:
    # RFC 9162 2.1.4.2
    nodes = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    first, second = old_size - 1, new_size - 1
    while first & 1:
        first, second = first >> 1, second >> 1
    from_old = from_new = nodes[0]
    for node in nodes[1:]:
        if first & 1 or first == second:
            from_old, from_new = hasher.node(node, from_old), hasher.node(node, from_new)
            while not first & 1 and first:
                first, second = first >> 1, second >> 1
        else:
            from_new = hasher.node(from_new, node)
        first, second = first >> 1, second >> 1
    return from_old, from_new


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for item in hashes:
        if len(item) != DIGEST_BYTES:
            raise ProofRefused("merkle-hash", f"Merkle proof: a hash has {len(item)} bytes, expected {DIGEST_BYTES}")
