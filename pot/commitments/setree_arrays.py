"""Arithmetic on arrays of set-tree keys, shared by building, proving and batch verification.

A key array holds uint64 in native order: a key's 8 bytes read big endian, so that integers sort as the bytes do. Shifts
by all 64 bits, which neither C nor NumPy defines, happen nowhere: a prefix of no bits is 0.

Spec: `specs/commitments.md`, "Set tree".
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pot.commitments.batch import accelerated, hash_pairs, hash_spans, load_kernel
from pot.commitments.setree_verify import BUCKET_KEY, KEY_BYTES, NODE_KEY
from pot.commitments.spans import Spans
from pot.errors import UsageError

__all__ = [
    "bucket_hashes",
    "check_keys",
    "dealt",
    "distinct",
    "from_bytes",
    "node_hashes",
    "parents_of",
    "to_bytes",
    "top_bits",
]

Keys = NDArray[np.uint64]

_RADIX: Final = "pot.commitments.radix"
_RADIX_COLD: Final = 1 << 20  # keys; below, loading compiled code takes as long as sorting them
_RADIX_LOADED: Final = 1 << 15


def check_keys(keys: Keys, what: str) -> Keys:
    """`keys`, if it is a row of uint64 in native order. Raises `UsageError`."""
    if not isinstance(keys, np.ndarray) or keys.ndim != 1 or keys.dtype != np.uint64 or not keys.dtype.isnative:
        raise UsageError(f"{what}: keys must be one row of uint64 in native order")
    return keys


def from_bytes(joined: bytes) -> Keys:
    """Keys of 8 bytes each, joined, as an array of shape (len / 8,)."""
    return np.frombuffer(joined, ">u8").astype(np.uint64)


def to_bytes(keys: Keys) -> NDArray[np.uint8]:
    """The big-endian bytes of keys, joined: uint8 of shape (8 n,)."""
    return keys.astype(">u8").view(np.uint8)


def distinct(keys: Keys) -> Keys:
    """The distinct keys, ascending; the array itself where it is that already (do not write to it)."""
    if len(keys) < 2 or bool(np.all(keys[1:] > keys[:-1])):
        return keys
    ordered = keys if bool(np.all(keys[1:] >= keys[:-1])) else _sorted(keys)
    fresh = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    return ordered if bool(fresh.all()) else ordered[fresh]


def _sorted(keys: Keys) -> Keys:
    if _use_radix(len(keys)):
        from pot.commitments.radix import radix_sort

        ordered = radix_sort(keys)
        if ordered is not None:
            return ordered
    return np.sort(keys)


def _use_radix(count: int) -> bool:
    if _RADIX in sys.modules:
        return count >= _RADIX_LOADED
    return count >= _RADIX_COLD and accelerated() and load_kernel()


def dealt(keys: Keys, bits: int, width: int) -> tuple[Keys, NDArray[np.int64]]:
    """Keys ordered by the last `width` (at most 8) of their top `bits` bits, and where each value's keys end."""
    if _use_radix(len(keys)):
        from pot.commitments.radix import deal

        return deal(keys, 64 - bits, width)
    values = (top_bits(keys, bits) & np.uint64((1 << width) - 1)).astype(np.uint8)
    ends = np.cumsum(np.bincount(values, minlength=1 << width))
    return keys[np.argsort(values, kind="stable")], ends


def top_bits(keys: Keys, bits: int) -> Keys:
    """The top `bits` (0 to 64) bits of each key, as a number."""
    return keys >> np.uint64(64 - bits) if bits else np.zeros(len(keys), np.uint64)


def bucket_hashes(keys: Keys, sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Leaves of consecutive buckets: bucket i holds the next `sizes[i]` of the ascending keys; shape (buckets, 32)."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return hash_spans(Spans(to_bytes(keys), offsets * KEY_BYTES), BUCKET_KEY)


def node_hashes(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The nodes over a level of shape (2 m, 32): shape (m, 32)."""
    return hash_pairs(level, NODE_KEY)


def parents_of(nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of ascending, distinct nodes: their distinct parents, and which nodes have no sibling among them."""
    parents = nodes >> 1
    fresh = np.ones(len(nodes), np.bool_)
    np.not_equal(parents[1:], parents[:-1], out=fresh[1:])
    alone = fresh.copy()
    alone[:-1] &= fresh[1:]
    return parents[fresh], alone
