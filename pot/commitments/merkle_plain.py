"""Merkle trees of the RFC 9162 shape over any leaves and hasher: root, inclusion paths, consistency paths.

Spec: RFC 9162 2.1; `specs/commitments.md`, "Ordered tree". A tree of n leaves splits at the largest power of two
below n; an odd last node moves up unhashed, and no node is ever doubled. Written to be read, without NumPy; it is the
reference that the trees over arrays in `pot.commitments.merkle` are compared with.

Shows / does not show: see `pot.commitments.merkle_verify`, which holds the checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pot.commitments.hashing import Hasher
from pot.errors import UsageError

__all__ = ["MerkleTree", "consistency_path", "inclusion_path", "merkle_root"]


class MerkleTree:
    """All levels of one tree, leaf hashes first: about 64 bytes of hash per leaf in memory."""

    def __init__(self, leaves: Iterable[bytes], hasher: Hasher) -> None:
        """Hash `leaves` (their inputs, any bytes, in order) with `hasher`."""
        self._hasher = hasher
        level = [hasher.leaf(leaf) for leaf in leaves]
        self._levels = [level]
        while len(level) > 1:
            level = _parents(level, hasher)
            self._levels.append(level)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """The root, 32 bytes."""
        return self._levels[-1][0] if self.size else self._hasher.empty

    def leaf_hash(self, index: int) -> bytes:
        """The hash of leaf `index`, 32 bytes. Raises `UsageError`."""
        self._check(index)
        return self._levels[0][index]

    def inclusion_path(self, index: int) -> list[bytes]:
        """Sibling hashes of leaf `index`, from the leaf to the root (RFC 9162 2.1.3.1). Raises `UsageError`."""
        self._check(index)
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index >>= 1
        return path

    def consistency_path(self, old_size: int) -> list[bytes]:
        """Hashes that show this tree extends its first `old_size` leaves (RFC 9162 2.1.4.1). Raises `UsageError`."""
        if not 0 < old_size <= self.size:
            raise UsageError(f"consistency path: old size {old_size} is not between 1 and {self.size}")
        if old_size == self.size:
            return []
        path: list[bytes] = []
        start, stop = 0, self.size
        while old_size != stop:  # RFC 9162 SUBPROOF, from the root down
            middle = start + _split(stop - start)
            if old_size <= middle:
                path.append(self._subtree(middle, stop))
                stop = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        if start:
            path.append(self._subtree(start, stop))
        return path[::-1]

    def _subtree(self, start: int, stop: int) -> bytes:
        """Hash of a node of this tree by its leaf range; `start` is a multiple of the node's full width."""
        height = (stop - start - 1).bit_length()
        return self._levels[height][start >> height]

    def _check(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise UsageError(f"inclusion path: index {index} is outside a tree of {self.size} leaves")


def merkle_root(leaves: Sequence[bytes], hasher: Hasher) -> bytes:
    """Root of the tree over `leaves` (inputs, in order), 32 bytes; keeps one level in memory."""
    level = [hasher.leaf(leaf) for leaf in leaves]
    while len(level) > 1:
        level = _parents(level, hasher)
    return level[0] if level else hasher.empty


def inclusion_path(leaves: Sequence[bytes], index: int, hasher: Hasher) -> list[bytes]:
    """Inclusion path of leaf `index`. For many paths of one tree, keep a `MerkleTree`. Raises `UsageError`."""
    return MerkleTree(leaves, hasher).inclusion_path(index)


def consistency_path(leaves: Sequence[bytes], old: int, hasher: Hasher) -> list[bytes]:
    """Consistency path from the first `old` leaves to all of them. Raises `UsageError`."""
    return MerkleTree(leaves, hasher).consistency_path(old)


def _parents(level: list[bytes], hasher: Hasher) -> list[bytes]:
    above = [hasher.node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) & 1:
        above.append(level[-1])
    return above


def _split(size: int) -> int:
    """Largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)
