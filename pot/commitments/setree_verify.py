"""Set tree verification: that none of the asked keys is in a committed set, checked from root, depth and count.

Spec: `specs/commitments.md`, "Set tree" and "Non-membership proof". A key is the first 8 bytes of a record digest,
its top `depth` bits name the one bucket that could hold it, and the proof opens that bucket whole. So nothing rests
on the prover's sorting. Every bucket's order, prefix and size, and the proof's exact length, are checked before
anything is hashed.

This module needs `blake3` and nothing else, and is the definition. Large questions go to
`pot.commitments.setree_verify_batch`, the same checks in the same order over arrays, where NumPy and numba are there.

Shows: no record whose digest begins with an asked key is among those that the root binds.
Does not show: that the root was built from the data that was trained on (see `pot.commitments.dataset`); that a
changed record (a space, another encoding) is absent.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from blake3 import blake3

from pot.canonical import derive
from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.merkle_verify import ProofRefused
from pot.errors import LimitExceeded

__all__ = [
    "BUCKET_KEY",
    "KEY_BYTES",
    "MAX_BUCKET_KEYS",
    "MAX_COUNT",
    "MAX_DEPTH",
    "MAX_QUERY_KEYS",
    "NODE_KEY",
    "PROOF_MAGIC",
    "bucket_hash",
    "bucket_of",
    "check_header",
    "depth_for",
    "key_of",
    "node_hash",
    "open_buckets",
    "root_hash",
    "sibling_count",
    "verify_absent",
]

KEY_BYTES: Final = 8
MAX_COUNT: Final = 2**48
MAX_DEPTH: Final = 46  # depth_for(MAX_COUNT)
MAX_BUCKET_KEYS: Final = 2**16 - 1  # a mean bucket holds 4 to 8; only ground prefixes come near
MAX_QUERY_KEYS: Final = 1 << 23  # as many records as an X from outside may have
PROOF_MAGIC: Final = b"pot/absence/v1\n"

BUCKET_KEY: Final = derive("pot/set-bucket/v1")
NODE_KEY: Final = derive("pot/set-node/v1")
_ROOT_CONTEXT: Final = "pot/set-root/v1"

_BATCH_LOADED: Final = 2_000  # keys, 0.03 s in plain Python; a tenth of it over arrays
_BATCH_COLD: Final = 1 << 16  # loading compiled code takes as long as this many keys in plain Python


def depth_for(count: int) -> int:
    """Depth of the tree over `count` distinct keys: floor(log2(count / 4)), 0 below 8."""
    return max(0, count.bit_length() - 3)


def key_of(digest: bytes) -> bytes:
    """The set tree's key of a 32-byte record digest: its first 8 bytes."""
    return digest[:KEY_BYTES]


def bucket_of(key: bytes, depth: int) -> int:
    """The one bucket that can hold `key` (8 bytes): its top `depth` bits."""
    return int.from_bytes(key, "big") >> (8 * KEY_BYTES - depth)


def bucket_hash(keys: bytes) -> bytes:
    """Leaf over a bucket's sorted keys, concatenated (8 bytes each, none for an empty bucket); 32 bytes."""
    return blake3(keys, key=BUCKET_KEY).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Inner node over two children; 32 bytes."""
    return blake3(left + right, key=NODE_KEY).digest()


def root_hash(depth: int, count: int, top: bytes) -> bytes:
    """The root binds depth and count of distinct keys to the top node; 32 bytes."""
    return derive(_ROOT_CONTEXT, depth.to_bytes(8, "little"), count.to_bytes(8, "little"), top)


@dataclass(frozen=True, slots=True)
class _Opened:
    """One opened bucket: its number, where its keys begin in the proof, how many there are."""

    bucket: int
    start: int
    count: int


def verify_absent(root: bytes, depth: int, count: int, keys: Iterable[bytes], proof: bytes) -> None:
    """Refuse unless `proof` shows that none of `keys` (8 bytes each) is in the set with this root, depth and count.

    Raises `ProofRefused` with the code "set-header", "set-query", "set-length", "set-bucket", "set-count",
    "set-member" or "set-root"; `LimitExceeded` for more keys than `MAX_QUERY_KEYS`.
    """
    check_header(root, depth, count)
    asked = _asked(keys)
    if len(asked) >= _BATCH_LOADED and len(asked) >= _batch_from():
        from pot.commitments.setree_verify_batch import verify_asked

        verify_asked(root, depth, count, b"".join(asked), proof)
    else:
        _verify(root, depth, count, asked, proof)


def open_buckets(root: bytes, depth: int, count: int, keys: Iterable[bytes], proof: bytes) -> dict[int, bytes]:
    """Verify as `verify_absent` does and return what the proof opens: bucket -> its keys, ascending, joined.

    These are all the set's keys with that prefix. Raises as `verify_absent`.
    """
    check_header(root, depth, count)
    opened = _verify(root, depth, count, _asked(keys), proof)
    return {item.bucket: proof[item.start : item.start + KEY_BYTES * item.count] for item in opened}


def check_header(root: bytes, depth: int, count: int) -> None:
    """Refuse a depth that does not belong to the count, or a root that has not 32 bytes ("set-header")."""
    if not 1 <= count <= MAX_COUNT or depth != depth_for(count) or len(root) != DIGEST_BYTES:
        raise ProofRefused("set-header", f"set tree: depth {depth} does not belong to a set of {count} keys")


def _batch_from() -> int:
    """From how many keys on arrays are worth it; beyond any question where they cannot be had."""
    try:
        present = find_spec("numpy") is not None and find_spec("numba") is not None
    except (ImportError, ValueError):  # something stands in its place that cannot be loaded
        present = False
    if not present:
        return MAX_QUERY_KEYS + 1
    return _BATCH_LOADED if "pot.commitments.blake3_lanes" in sys.modules else _BATCH_COLD


def _verify(root: bytes, depth: int, count: int, asked: frozenset[bytes], proof: bytes) -> list[_Opened]:
    buckets = sorted({bucket_of(key, depth) for key in asked})
    opened, end = _read_buckets(proof, buckets, depth, count)
    expected = end + DIGEST_BYTES * sibling_count(buckets, depth)
    if len(proof) != expected:
        raise ProofRefused("set-length", f"non-membership proof: {len(proof)} bytes, expected {expected}")
    present = _present(proof, opened, asked, depth)
    if present:
        raise ProofRefused(
            "set-member", f"non-membership proof: {present} of the {len(asked)} asked keys are in the set"
        )
    calculated = root_hash(depth, count, _top(proof, opened, end, depth))
    if calculated != root:
        raise ProofRefused("set-root", f"non-membership proof: gives root {calculated.hex()}, expected {root.hex()}")
    return opened


def sibling_count(buckets: Sequence[int], depth: int) -> int:
    """How many hashes complete the tree over the opened `buckets` (ascending, distinct)."""
    total, level = 0, list(buckets)
    for _ in range(depth):
        parents = sorted({node >> 1 for node in level})
        total += 2 * len(parents) - len(level)
        level = parents
    return total


def _asked(keys: Iterable[bytes]) -> frozenset[bytes]:
    asked = set()
    for key in keys:
        if len(key) != KEY_BYTES:
            raise ProofRefused("set-query", f"non-membership proof: an asked key has {len(key)} bytes, not {KEY_BYTES}")
        asked.add(key)
        if len(asked) > MAX_QUERY_KEYS:
            raise LimitExceeded(f"non-membership proof: more than {MAX_QUERY_KEYS} keys asked")
    if not asked:
        raise ProofRefused("set-query", "non-membership proof: no key asked; an empty question shows nothing")
    return frozenset(asked)


def _read_buckets(proof: bytes, buckets: Sequence[int], depth: int, count: int) -> tuple[list[_Opened], int]:
    """Split the proof into its opened buckets; returns them and the offset of the first sibling hash."""
    if not proof.startswith(PROOF_MAGIC):
        raise ProofRefused("set-length", "non-membership proof: does not begin with its version line")
    offset, opened, total = len(PROOF_MAGIC), [], 0
    for bucket in buckets:
        size = int.from_bytes(proof[offset : offset + 2], "little")
        start = offset + 2
        offset = start + KEY_BYTES * size
        if offset > len(proof):
            raise ProofRefused("set-length", f"non-membership proof: ends inside bucket {bucket}")
        opened.append(_Opened(bucket, start, size))
        total += size
    if total > count:
        raise ProofRefused("set-count", f"non-membership proof: opens {total} keys of a set of {count}")
    if total != count and len(buckets) == 1 << depth:
        raise ProofRefused("set-count", f"non-membership proof: opens every bucket, {total} keys of a set of {count}")
    return opened, offset


def _present(proof: bytes, opened: Iterable[_Opened], asked: frozenset[bytes], depth: int) -> int:
    """How many asked keys stand in the opened buckets, after checking each key's bucket and place."""
    present = 0
    for item in opened:
        previous = b""
        for start in range(item.start, item.start + KEY_BYTES * item.count, KEY_BYTES):
            key = proof[start : start + KEY_BYTES]
            if bucket_of(key, depth) != item.bucket:
                raise ProofRefused("set-bucket", f"non-membership proof: bucket {item.bucket} holds a foreign key")
            if key <= previous and previous:
                raise ProofRefused("set-bucket", f"non-membership proof: bucket {item.bucket} is not sorted")
            previous = key
            present += key in asked
    return present


def _top(proof: bytes, opened: Iterable[_Opened], offset: int, depth: int) -> bytes:
    """The top node from the opened buckets and the sibling hashes (level by level upwards, left to right)."""
    level = [(item.bucket, bucket_hash(proof[item.start : item.start + KEY_BYTES * item.count])) for item in opened]
    for _ in range(depth):
        above = []
        position = 0
        while position < len(level):
            node, digest = level[position]
            position += 1
            if not node & 1 and position < len(level) and level[position][0] == node + 1:
                above.append((node >> 1, node_hash(digest, level[position][1])))
                position += 1
                continue
            sibling = proof[offset : offset + DIGEST_BYTES]
            offset += DIGEST_BYTES
            above.append((node >> 1, node_hash(sibling, digest) if node & 1 else node_hash(digest, sibling)))
        level = above
    return level[0][1]
