"""Merkle trees of the RFC 9162 shape: the plain ones for any hasher, and ordered trees over arrays of record digests.

Spec: RFC 9162 2.1; `specs/commitments.md`, "Ordered tree". The array trees use the BLAKE3 hasher only and hash a level
at a time (`pot.commitments.batch`); `pot.commitments.merkle_plain` is the reference that gives the same bytes.

Shows / does not show: see `pot.commitments.merkle_verify`, which holds the checks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pot.canonical import derive
from pot.commitments.batch import hash_pairs, hash_rows
from pot.commitments.hashing import BLAKE3, DIGEST_BYTES, LEAF_CONTEXT, NODE_CONTEXT
from pot.commitments.merkle_plain import MerkleTree, consistency_path, inclusion_path, merkle_root
from pot.errors import UsageError

__all__ = [
    "LeafTree",
    "MerkleTree",
    "OrderedRoot",
    "consistency_path",
    "inclusion_path",
    "merkle_root",
    "ordered_root",
]

_LEAF_KEY: Final = derive(LEAF_CONTEXT)
_NODE_KEY: Final = derive(NODE_CONTEXT)
_BLOCK: Final = 1 << 14  # leaves that are folded to one node at a time: 512 KiB of digests stay in the cache


class OrderedRoot:
    """The ordered root of a stream of record digests, in under 2 MiB whatever their number."""

    def __init__(self) -> None:
        self._count = 0
        self._full: list[tuple[int, bytes]] = []  # (leaves, node) of full subtrees, left to right, ever smaller
        self._rest: list[NDArray[np.uint8]] = []
        self._resting = 0

    @property
    def count(self) -> int:
        """Number of leaves so far."""
        return self._count

    def update(self, digests: NDArray[np.uint8]) -> None:
        """Add leaves: uint8 of shape (n, 32), in record order. Raises `UsageError`."""
        _check(digests)
        self._count += len(digests)
        start = 0
        if self._resting:
            start = min(len(digests), _BLOCK - self._resting)
            self._keep(digests[:start])
            if self._resting < _BLOCK:
                return
            whole, self._rest, self._resting = np.concatenate(self._rest), [], 0
            self._push(_fold(whole))
        while len(digests) - start >= _BLOCK:
            self._push(_fold(digests[start : start + _BLOCK]))
            start += _BLOCK
        self._keep(digests[start:])

    def root(self) -> bytes:
        """The root over all leaves so far, 32 bytes; more may follow."""
        nodes = [node for _, node in self._full]
        if self._resting:
            nodes.append(_fold(np.concatenate(self._rest)))
        if not nodes:
            return BLAKE3.empty
        root = nodes.pop()
        while nodes:  # a tree splits at the largest power of two below its size
            root = BLAKE3.node(nodes.pop(), root)
        return root

    def _keep(self, digests: NDArray[np.uint8]) -> None:
        if len(digests):
            self._rest.append(digests.copy())
            self._resting += len(digests)
        if len(self._rest) > 64:  # many small updates: a list of tiny arrays would outgrow their digests
            self._rest = [np.concatenate(self._rest)]

    def _push(self, node: bytes) -> None:
        leaves = _BLOCK
        while self._full and self._full[-1][0] == leaves:
            node = BLAKE3.node(self._full.pop()[1], node)
            leaves *= 2
        self._full.append((leaves, node))


class LeafTree:
    """All levels of one ordered tree as arrays: 64 bytes per leaf in memory."""

    def __init__(self, digests: NDArray[np.uint8]) -> None:
        """`digests`: uint8 of shape (n, 32), in record order. Raises `UsageError`."""
        _check(digests)
        self._levels = [hash_rows(digests, _LEAF_KEY)]
        while len(self._levels[-1]) > 1:
            self._levels.append(_parents(self._levels[-1]))

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    @property
    def levels(self) -> list[NDArray[np.uint8]]:
        """Node hashes, uint8 of shape (nodes, 32), the leaves' level first; not to be changed."""
        return self._levels

    @property
    def root(self) -> bytes:
        """The root, 32 bytes."""
        return bytes(self._levels[-1][0]) if self.size else BLAKE3.empty

    def inclusion_path(self, index: int) -> list[bytes]:
        """Sibling hashes of leaf `index`, from the leaf to the root (RFC 9162 2.1.3.1). Raises `UsageError`."""
        if not 0 <= index < self.size:
            raise UsageError(f"inclusion path: index {index} is outside a tree of {self.size} leaves")
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling].tobytes())
            index >>= 1
        return path


def ordered_root(digests: NDArray[np.uint8]) -> bytes:
    """Root of the ordered tree over record digests, uint8 of shape (n, 32); 32 bytes. Raises `UsageError`."""
    ordered = OrderedRoot()
    ordered.update(digests)
    return ordered.root()


def _fold(digests: NDArray[np.uint8]) -> bytes:
    level = hash_rows(digests, _LEAF_KEY)
    while len(level) > 1:
        level = _parents(level)
    return bytes(level[0])


def _parents(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if not len(level) & 1:
        return hash_pairs(level, _NODE_KEY)
    return np.concatenate([hash_pairs(level[:-1], _NODE_KEY), level[-1:]])


def _check(digests: NDArray[np.uint8]) -> None:
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != DIGEST_BYTES:
        raise UsageError(f"ordered tree: digests must be rows of {DIGEST_BYTES} bytes, not {digests.shape}")
