"""Merkle-sum trees over arrays: a level at a time, with 128-bit sums in two 64-bit halves.

Spec: `specs/composition.md`, "Sum tree".

Shows / does not show: see `pot.commitments.sumtree_verify`, which holds the checks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pot.commitments.batch import hash_rows
from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.sumtree_verify import LEAF_KEY, NODE_KEY, Sums, root_hash
from pot.errors import LimitExceeded, UsageError

__all__ = ["SumTree"]

_KINDS: Final = 3  # records, bytes, tokens
_MAX_LEAVES: Final = 2**48  # each amount is below 2^64, so every sum is below 2^112 and no addition wraps

Hashes = NDArray[np.uint8]
Limbs = NDArray[np.uint64]
"""Sums of many nodes: shape (n, 3, 2), for records, bytes and tokens the low and the high 64 bits."""


class SumTree:
    """A sum tree with all its levels in memory: about 160 bytes a leaf."""

    def __init__(self, identities: Hashes, amounts: Limbs) -> None:
        """`identities`: uint8 of shape (n, 32). `amounts`: uint64 of shape (n, 3): records, bytes, tokens of each leaf.

        Raises `UsageError`, `LimitExceeded`.
        """
        count = len(identities)
        if identities.dtype != np.uint8 or identities.shape != (count, DIGEST_BYTES) or not count:
            raise UsageError(f"sum tree: identities must be rows of {DIGEST_BYTES} bytes, not {identities.shape}")
        if amounts.dtype != np.uint64 or amounts.shape != (count, _KINDS):
            raise UsageError(f"sum tree: amounts must be {count} rows of records, bytes, tokens, not {amounts.shape}")
        if count > _MAX_LEAVES:
            raise LimitExceeded(f"sum tree: more than {_MAX_LEAVES} leaves")
        sums = np.zeros((count, _KINDS, 2), np.uint64)
        sums[:, :, 0] = amounts
        hashes = hash_rows(np.concatenate([identities, _as_bytes(sums)], axis=1), LEAF_KEY)
        self._levels = [(hashes, sums)]
        while len(self._levels[-1][0]) > 1:
            self._levels.append(_parents(*self._levels[-1]))

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0][0])

    @property
    def total(self) -> Sums:
        """The sums over all leaves."""
        return _sums(self._levels[-1][1][0])

    @property
    def root(self) -> bytes:
        """The root, 32 bytes."""
        return root_hash(self.size, self._levels[-1][0][0].tobytes(), self.total)

    def path(self, index: int) -> list[tuple[bytes, Sums]]:
        """The siblings of leaf `index`, hash and sums, from the leaf to the root. Raises `UsageError`."""
        if not 0 <= index < self.size:
            raise UsageError(f"sum tree: index {index} is outside a tree of {self.size} leaves")
        found = []
        for hashes, sums in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(hashes):
                found.append((hashes[sibling].tobytes(), _sums(sums[sibling])))
            index >>= 1
        return found


def _parents(hashes: Hashes, sums: Limbs) -> tuple[Hashes, Limbs]:
    """The next level; the last of an odd number of nodes moves up as it is."""
    pairs = len(hashes) & ~1
    rows = np.concatenate([hashes[:pairs], _as_bytes(sums[:pairs])], axis=1).reshape(pairs // 2, -1)
    above, added = hash_rows(rows, NODE_KEY), _add(sums[0:pairs:2], sums[1:pairs:2])
    if pairs == len(hashes):
        return above, added
    return np.concatenate([above, hashes[-1:]]), np.concatenate([added, sums[-1:]])


def _add(left: Limbs, right: Limbs) -> Limbs:
    added = left + right
    added[:, :, 1] += added[:, :, 0] < left[:, :, 0]  # the low half wrapped
    return added


def _as_bytes(sums: Limbs) -> Hashes:
    """Little endian, 16 bytes for each of the three: shape (n, 48)."""
    return np.ascontiguousarray(sums.astype("<u8")).view(np.uint8).reshape(len(sums), -1)


def _sums(limbs: Limbs) -> Sums:
    return Sums(*(int(low) | int(high) << 64 for low, high in limbs))
