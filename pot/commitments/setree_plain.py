"""The set tree in plain Python: the definition read aloud, for a few thousand keys or where NumPy is not installed.

Spec: `specs/commitments.md`, "Set tree"; why this shape: `specs/decisions/0003-set-tree.md`. Keys are sorted into
2^depth buckets by their top bits; a bucket's leaf is a keyed hash of its sorted keys; the root binds depth and count.
`pot.commitments.setree` gives the same bytes from arrays, and is tested against this.

Shows / does not show: see `pot.commitments.setree_verify`, which holds the checks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from pot.commitments.setree_verify import (
    KEY_BYTES,
    MAX_BUCKET_KEYS,
    MAX_COUNT,
    MAX_QUERY_KEYS,
    PROOF_MAGIC,
    bucket_hash,
    bucket_of,
    depth_for,
    key_of,
    node_hash,
    root_hash,
)
from pot.errors import LimitExceeded, Refused, UsageError

__all__ = ["SetTree"]


class SetTree:
    """A built tree with all levels in memory: about 100 bytes per distinct key."""

    def __init__(self, keys: list[bytes]) -> None:
        """`keys` must be sorted and distinct, 8 bytes each; `build` sees to that."""
        self._keys = keys
        self.count = len(keys)
        self.depth = depth_for(self.count)
        width = 8 * KEY_BYTES - self.depth
        bounds = [bisect_left(keys, (b << width).to_bytes(KEY_BYTES, "big")) for b in range(1 << self.depth)]
        self._bounds = [*bounds, self.count]
        level = [bucket_hash(self._bucket(b)) for b in range(1 << self.depth)]
        self._levels = [level]
        while len(level) > 1:
            level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
            self._levels.append(level)

    @classmethod
    def build(cls, digests: Iterable[bytes]) -> SetTree:
        """The tree over record digests (32 bytes each, any order, repeats allowed). Raises `UsageError`."""
        keys = sorted({key_of(digest) for digest in digests})
        if not keys:
            raise UsageError("set tree: there is no record to commit to")
        if len(keys) > MAX_COUNT:
            raise LimitExceeded(f"set tree: more than {MAX_COUNT} records")
        return cls(keys)

    @property
    def root(self) -> bytes:
        """The root over depth, count and all buckets, 32 bytes."""
        return root_hash(self.depth, self.count, self._levels[-1][0])

    def __contains__(self, key: bytes) -> bool:
        place = bisect_left(self._keys, key)
        return place < self.count and self._keys[place] == key

    def prove_absent(self, keys: Iterable[bytes]) -> bytes:
        """One non-membership proof for all of `keys` (8 bytes each).

        Raises `Refused` where a key is in the set, `UsageError` for none or a key that is not 8 bytes,
        `LimitExceeded` for too many.
        """
        asked = set(keys)
        if not asked or any(len(key) != KEY_BYTES for key in asked):
            raise UsageError(f"non-membership proof: ask for at least one key of {KEY_BYTES} bytes")
        if len(asked) > MAX_QUERY_KEYS:
            raise LimitExceeded(f"non-membership proof: more than {MAX_QUERY_KEYS} keys asked")
        present = sum(key in self for key in asked)
        if present:
            raise Refused(f"non-membership proof: {present} of the {len(asked)} asked keys are in the set")
        buckets = sorted({bucket_of(key, self.depth) for key in asked})
        parts = [PROOF_MAGIC]
        for bucket in buckets:
            data = self._bucket(bucket)
            size = len(data) // KEY_BYTES
            if size > MAX_BUCKET_KEYS:
                raise LimitExceeded(f"non-membership proof: bucket {bucket} holds {size} keys, over {MAX_BUCKET_KEYS}")
            parts += [size.to_bytes(2, "little"), data]
        return b"".join(parts + self._siblings(buckets))

    def _bucket(self, bucket: int) -> bytes:
        return b"".join(self._keys[self._bounds[bucket] : self._bounds[bucket + 1]])

    def _siblings(self, nodes: list[int]) -> list[bytes]:
        """Hashes a verifier cannot calculate, level by level upwards, left to right."""
        found = []
        for level in self._levels[:-1]:
            inside = set(nodes)
            found += [level[node ^ 1] for node in nodes if node ^ 1 not in inside]
            nodes = sorted({node >> 1 for node in nodes})
        return found
