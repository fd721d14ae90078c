"""Set tree verification over arrays: the checks of `pot.commitments.setree_verify`, in its order, for large questions.

Spec: `specs/commitments.md`, "Non-membership proof". Both verifiers refuse the same proofs with the same codes; the
plain one is the definition. Integers taken from a proof are sizes of at most 65,535, added in Python's integers while
the proof is walked; arrays are made only once their lengths follow from bytes that are there.

Memory: a few times the proof and the question.

Shows / does not show: as `pot.commitments.setree_verify`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree_arrays import (
    Keys,
    bucket_hashes,
    check_keys,
    distinct,
    from_bytes,
    node_hashes,
    parents_of,
    top_bits,
)
from pot.commitments.setree_verify import (
    KEY_BYTES,
    MAX_QUERY_KEYS,
    PROOF_MAGIC,
    check_header,
    root_hash,
)
from pot.errors import LimitExceeded

__all__ = ["verify_absent_batch", "verify_asked"]

_SIZE_BYTES = 2


def verify_absent_batch(root: bytes, depth: int, count: int, keys: Keys | bytes, proof: bytes) -> None:
    """Refuse unless `proof` shows that none of `keys` is in the set with this root, depth and count.

    `keys`: uint64 in native order, or 8 bytes each, joined; any order, repeats allowed. Raises as
    `pot.commitments.setree_verify.verify_absent`; `UsageError` for an array that is no row of uint64.
    """
    check_header(root, depth, count)
    if isinstance(keys, bytes):
        if len(keys) % KEY_BYTES:
            raise ProofRefused("set-query", f"non-membership proof: {len(keys)} bytes of keys of {KEY_BYTES} bytes")
        keys = from_bytes(keys)
    asked = distinct(check_keys(keys, "non-membership proof"))
    if len(asked) > MAX_QUERY_KEYS:
        raise LimitExceeded(f"non-membership proof: more than {MAX_QUERY_KEYS} keys asked")
    if not len(asked):
        raise ProofRefused("set-query", "non-membership proof: no key asked; an empty question shows nothing")
    _verify(root, depth, count, asked, proof)


def verify_asked(root: bytes, depth: int, count: int, joined: bytes, proof: bytes) -> None:
    """The part of `verify_absent` after header and question were checked. `joined`: the asked keys, 8 bytes each."""
    _verify(root, depth, count, distinct(from_bytes(joined)), proof)


def _verify(root: bytes, depth: int, count: int, asked: Keys, proof: bytes) -> None:
    buckets = distinct(top_bits(asked, depth)).astype(np.int64)
    starts, sizes, end = _walk(proof, buckets, depth, count)
    expected = end + DIGEST_BYTES * _sibling_count(buckets, depth)
    if len(proof) != expected:
        raise ProofRefused("set-length", f"non-membership proof: {len(proof)} bytes, expected {expected}")
    opened = _opened_keys(proof, starts, sizes, end)
    _check_order(opened, buckets, sizes, depth)
    present = _count_present(asked, opened)
    if present:
        raise ProofRefused(
            "set-member", f"non-membership proof: {present} of the {len(asked)} asked keys are in the set"
        )
    siblings = np.frombuffer(proof, np.uint8, offset=end).reshape(-1, DIGEST_BYTES)
    calculated = root_hash(depth, count, _top(buckets, bucket_hashes(opened, sizes), siblings, depth))
    if calculated != root:
        raise ProofRefused("set-root", f"non-membership proof: gives root {calculated.hex()}, expected {root.hex()}")


def _walk(
    proof: bytes, buckets: NDArray[np.int64], depth: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where each opened bucket's keys begin, how many there are, and where the first sibling hash begins."""
    if not proof.startswith(PROOF_MAGIC):
        raise ProofRefused("set-length", "non-membership proof: does not begin with its version line")
    offset, length, total = len(PROOF_MAGIC), len(proof), 0
    starts, sizes = [], []
    for place in range(len(buckets)):  # each size says where the next one stands
        size = int.from_bytes(proof[offset : offset + _SIZE_BYTES], "little")
        offset += _SIZE_BYTES
        starts.append(offset)
        sizes.append(size)
        offset += KEY_BYTES * size
        if offset > length:
            raise ProofRefused("set-length", f"non-membership proof: ends inside bucket {int(buckets[place])}")
        total += size
    if total > count:
        raise ProofRefused("set-count", f"non-membership proof: opens {total} keys of a set of {count}")
    if total != count and len(buckets) == 1 << depth:
        raise ProofRefused("set-count", f"non-membership proof: opens every bucket, {total} keys of a set of {count}")
    return np.array(starts, np.int64), np.array(sizes, np.int64), offset


def _sibling_count(buckets: NDArray[np.int64], depth: int) -> int:
    total, nodes = 0, buckets
    for _ in range(depth):
        nodes, alone = parents_of(nodes)
        total += int(np.count_nonzero(alone))
    return total


def _opened_keys(proof: bytes, starts: NDArray[np.int64], sizes: NDArray[np.int64], end: int) -> Keys:
    """The keys of all opened buckets, joined: the proof's 16-bit words up to `end` without those that are sizes."""
    words = np.frombuffer(proof, "<u2", count=(end - len(PROOF_MAGIC)) // 2, offset=len(PROOF_MAGIC))
    keep = np.ones(len(words), np.bool_)
    keep[(starts - len(PROOF_MAGIC)) // 2 - 1] = False
    return words[keep].view(np.uint8).view(">u8").astype(np.uint64)


def _check_order(opened: Keys, buckets: NDArray[np.int64], sizes: NDArray[np.int64], depth: int) -> None:
    """Each key lies in its bucket and is greater than the one before it there."""
    owners = np.repeat(buckets, sizes)
    foreign = top_bits(opened, depth).astype(np.int64) != owners
    # between buckets the prefix ascends, so one comparison serves all of them
    unsorted = np.zeros(len(opened), np.bool_)
    np.less_equal(opened[1:], opened[:-1], out=unsorted[1:])
    unsorted[1:] &= owners[1:] == owners[:-1]
    wrong = np.flatnonzero(foreign | unsorted)
    if len(wrong):
        what = "holds a foreign key" if foreign[wrong[0]] else "is not sorted"
        raise ProofRefused("set-bucket", f"non-membership proof: bucket {int(owners[wrong[0]])} {what}")


def _count_present(asked: Keys, opened: Keys) -> int:
    """How many of `asked` are in `opened`; both ascend."""
    if not len(opened):
        return 0
    places = np.minimum(np.searchsorted(opened, asked), len(opened) - 1)
    return int(np.count_nonzero(opened[places] == asked))


def _top(nodes: NDArray[np.int64], hashes: NDArray[np.uint8], siblings: NDArray[np.uint8], depth: int) -> bytes:
    """The top node from the opened buckets' leaves and the sibling hashes (level by level, left to right)."""
    used = 0
    for _ in range(depth):
        parents, alone = parents_of(nodes)
        missing = int(np.count_nonzero(alone))
        places = 2 * np.searchsorted(parents, nodes >> 1) + (nodes & 1)
        level = np.empty((2 * len(parents), DIGEST_BYTES), np.uint8)
        level[places] = hashes
        level[places[alone] ^ 1] = siblings[used : used + missing]
        used += missing
        nodes, hashes = parents, node_hashes(level)
    top: bytes = hashes[0].tobytes()
    return top
