"""The set tree: a commitment to the distinct records of a dataset that can show what is *not* in it.

Spec: `specs/commitments.md`, "Set tree"; why this shape: `specs/decisions/0003-set-tree.md`. Keys are sorted into
2^depth buckets by their top bits; a bucket's leaf is a keyed hash of its sorted keys; the root binds depth and count.
`pot.commitments.setree_plain` is the same in a few lines; `pot.commitments.setree_spill` is for more keys than memory.

A *group* is 2^`KEPT_FROM` buckets. Nodes below its top are not kept: a proof recomputes those of the groups it opens.

Memory: 8 bytes per distinct key, and 1 to 2 for the nodes; while it is built another 8 per key that is handed over
unsorted or repeated. Proving takes a constant beside the proof.

Shows / does not show: see `pot.commitments.setree_verify`, which holds the checks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pot.commitments.setree_arrays import (
    Keys,
    bucket_hashes,
    check_keys,
    distinct,
    from_bytes,
    node_hashes,
    parents_of,
    to_bytes,
    top_bits,
)
from pot.commitments.setree_verify import (
    KEY_BYTES,
    MAX_BUCKET_KEYS,
    MAX_COUNT,
    MAX_QUERY_KEYS,
    PROOF_MAGIC,
    depth_for,
    key_of,
    root_hash,
)
from pot.errors import LimitExceeded, Refused, UsageError

__all__ = ["KEPT_FROM", "BucketTree", "SetTree", "group_tops", "key_of"]

KEPT_FROM: Final = 3  # levels; each one more halves the kept nodes and doubles what a proof recomputes
_GROUPS: Final = 1 << 13  # at a time, when building and proving: about 400,000 keys, a few megabytes


def group_tops(keys: Keys, depth: int, first: int, groups: int) -> NDArray[np.uint8]:
    """Top nodes of `groups` consecutive groups from `first` on, shape (groups, 32).

    `keys`: all the set's keys of these groups, ascending and distinct.
    """
    low = min(KEPT_FROM, depth)
    inside = top_bits(keys, depth).astype(np.int64) - (first << low)
    level = bucket_hashes(keys, np.bincount(inside, minlength=groups << low))
    for _ in range(low):
        level = node_hashes(level)
    return level


class BucketTree(ABC):
    """A set tree with its upper levels in memory; where its keys lie is up to the subclass."""

    def __init__(self, count: int, tops: NDArray[np.uint8]) -> None:
        """`tops`: the top nodes of all groups, uint8 of shape (groups, 32)."""
        self.count = count
        self.depth = depth_for(count)
        self._low = min(KEPT_FROM, self.depth)
        self._levels = [tops]
        while len(self._levels[-1]) > 1:
            self._levels.append(node_hashes(self._levels[-1]))
        self.root = root_hash(self.depth, count, self._levels[-1][0].tobytes())

    @abstractmethod
    def _gather(self, groups: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64]]:
        """The keys of some groups (ascending, distinct), joined, and how many each group has."""

    def __contains__(self, key: bytes) -> bool:
        return len(key) == KEY_BYTES and bool(self.contains(from_bytes(key))[0])

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of `keys` (any order) are in the set."""
        asked = distinct(check_keys(keys, "set tree"))
        found = [_among(part, self._gather(groups)[0]) for groups, part in self._parts(asked)]
        inside = np.concatenate([*found, np.zeros(0, np.bool_)])
        return inside if asked is keys else inside[np.searchsorted(asked, keys)]

    def prove_absent(self, keys: Iterable[bytes]) -> bytes:
        """One non-membership proof for all of `keys` (8 bytes each).

        Raises `Refused` where a key is in the set, `UsageError` for none or a key that is not 8 bytes,
        `LimitExceeded` for too many.
        """
        asked = set(keys)
        if any(len(key) != KEY_BYTES for key in asked):
            raise UsageError(f"non-membership proof: ask for at least one key of {KEY_BYTES} bytes")
        return self.prove_absent_keys(from_bytes(b"".join(asked)))

    def prove_absent_keys(self, keys: Keys) -> bytes:
        """As `prove_absent`, for keys as integers in any order."""
        asked = distinct(check_keys(keys, "non-membership proof"))
        if not len(asked):
            raise UsageError(f"non-membership proof: ask for at least one key of {KEY_BYTES} bytes")
        if len(asked) > MAX_QUERY_KEYS:
            raise LimitExceeded(f"non-membership proof: more than {MAX_QUERY_KEYS} keys asked")
        present = 0
        fat: list[tuple[int, int]] = []
        opened: list[bytes] = [PROOF_MAGIC]
        siblings: list[list[bytes]] = [[] for _ in range(self.depth)]
        touched: list[NDArray[np.int64]] = []
        for groups, part in self._parts(asked):
            touched.append(groups)
            held, sizes = self._gather(groups)
            present += int(np.count_nonzero(_among(part, held)))
            if not present and not fat:
                fat = self._open(groups, part, held, sizes, opened, siblings)
        if present:
            raise Refused(f"non-membership proof: {present} of the {len(asked)} asked keys are in the set")
        for bucket, size in fat:
            raise LimitExceeded(f"non-membership proof: bucket {bucket} holds {size} keys, over {MAX_BUCKET_KEYS}")
        nodes = np.concatenate(touched)
        for number, level in enumerate(self._levels[:-1], self._low):
            parents, alone = parents_of(nodes)
            siblings[number].append(level[nodes[alone] ^ 1].tobytes())
            nodes = parents
        return b"".join(opened + [part for level_parts in siblings for part in level_parts])

    def _parts(self, asked: Keys) -> Iterator[tuple[NDArray[np.int64], Keys]]:
        """Cut ascending keys so that each part concerns few groups; yields those groups and the part."""
        groups = top_bits(asked, self.depth - self._low).astype(np.int64)
        firsts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]])) if len(groups) else groups
        for start in range(0, len(firsts), _GROUPS):
            stop = firsts[start + _GROUPS] if start + _GROUPS < len(firsts) else len(asked)
            yield groups[firsts[start : start + _GROUPS]], asked[firsts[start] : stop]

    def _open(
        self,
        groups: NDArray[np.int64],
        asked: Keys,
        held: Keys,
        held_by: NDArray[np.int64],
        opened: list[bytes],
        siblings: list[list[bytes]],
    ) -> list[tuple[int, int]]:
        """Append the asked keys' buckets to `opened` and the hashes beside them, below the kept levels, to `siblings`.

        Buckets are numbered as if the groups were all there are. Returns a bucket that no proof can open, if any.
        """
        low, mask = self._low, (1 << self._low) - 1
        place = np.repeat(np.arange(len(groups)) << low, held_by)
        sizes = np.bincount(place + (top_bits(held, self.depth).astype(np.int64) & mask), minlength=len(groups) << low)
        buckets = distinct(top_bits(asked, self.depth)).astype(np.int64)
        nodes = (np.searchsorted(groups, buckets >> low) << low) + (buckets & mask)
        over = np.flatnonzero(sizes[nodes] > MAX_BUCKET_KEYS)
        if len(over):
            return [(int(buckets[over[0]]), int(sizes[nodes[over[0]]]))]
        opened.append(_buckets_as_bytes(held, np.cumsum(sizes)[nodes] - sizes[nodes], sizes[nodes]))
        level = bucket_hashes(held, sizes) if low else np.zeros((1, 32), np.uint8)
        for number in range(low):
            parents, alone = parents_of(nodes)
            siblings[number].append(level[nodes[alone] ^ 1].tobytes())
            nodes, level = parents, node_hashes(level) if number + 1 < low else level
        return []


class SetTree(BucketTree):
    """A set tree with its keys in memory."""

    def __init__(self, keys: Keys) -> None:
        """`keys` must be ascending and distinct; `of_keys` and `build` see to that."""
        self._keys = keys
        depth = depth_for(len(keys))
        groups = 1 << (depth - min(KEPT_FROM, depth))
        tops = np.empty((groups, 32), np.uint8)
        for first in range(0, groups, _GROUPS):
            some = min(_GROUPS, groups - first)
            edges = np.array([first, first + some], np.int64)
            start, stop = _edges(keys, edges, groups)
            tops[first : first + some] = group_tops(keys[start:stop], depth, first, some)
        super().__init__(len(keys), tops)

    @classmethod
    def build(cls, digests: Iterable[bytes]) -> SetTree:
        """The tree over record digests (32 bytes each, any order, repeats allowed). Raises `UsageError`."""
        keys = [key_of(digest) for digest in digests]
        joined = b"".join(keys)
        if len(joined) != KEY_BYTES * len(keys):
            raise UsageError(f"set tree: a digest has fewer than {KEY_BYTES} bytes")
        return cls.of_keys(from_bytes(joined))

    @classmethod
    def of_keys(cls, keys: Keys) -> SetTree:
        """The tree over keys as integers (any order, repeats allowed). An ascending array is kept, not copied.

        Raises `UsageError` for none, `LimitExceeded`.
        """
        held = distinct(check_keys(keys, "set tree"))
        if not len(held):
            raise UsageError("set tree: there is no record to commit to")
        if len(held) > MAX_COUNT:
            raise LimitExceeded(f"set tree: more than {MAX_COUNT} records")
        return cls(held)

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of `keys` (any order) are in the set."""
        return _among(check_keys(keys, "set tree"), self._keys)

    def _gather(self, groups: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64]]:
        number = len(self._levels[0])
        starts, stops = _edges(self._keys, groups, number), _edges(self._keys, groups + 1, number)
        sizes = stops - starts
        return self._keys[_ranges(starts, sizes)], sizes


def _edges(keys: Keys, groups: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Where in ascending `keys` each group begins; group `number`, one past the last, begins at the end."""
    edges = np.full(len(groups), len(keys), np.int64)
    inside = groups < number
    bits = number.bit_length() - 1
    firsts = (
        groups[inside].astype(np.uint64) << np.uint64(64 - bits) if bits else np.zeros(int(inside.sum()), np.uint64)
    )
    edges[inside] = np.searchsorted(keys, firsts)
    return edges


def _ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers start, start + 1, …, start + size - 1 of every range, joined."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))


def _among(asked: Keys, held: Keys) -> NDArray[np.bool_]:
    """Which of `asked` are in the ascending `held`."""
    if not len(held):
        return np.zeros(len(asked), np.bool_)
    places = np.minimum(np.searchsorted(held, asked), len(held) - 1)
    found: NDArray[np.bool_] = held[places] == asked
    return found


def _buckets_as_bytes(held: Keys, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
    """Opened buckets as a proof has them: u16 size, then the keys; both are whole 16-bit words."""
    words = np.cumsum(1 + 4 * sizes)
    firsts = words - 4 * sizes
    out = np.empty(int(words[-1]), "<u2")
    out[firsts - 1] = sizes
    keys = to_bytes(held[_ranges(starts, sizes)]).view("<u2").reshape(-1, 4)
    out[_ranges(firsts, 4 * sizes)] = keys.reshape(-1)
    return out.tobytes()
