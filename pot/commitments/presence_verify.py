"""Presence verification: that given digests stand at given indices of an ordered tree, many in one proof.

Spec: `specs/commitments.md`, "Presence proof"; the tree's shape is that of RFC 9162 2.1. The proof names the indices
and holds the hashes that cannot be calculated, so each inner node is hashed once. Needs `blake3` alone. The number of
digests, the indices and the proof's exact length are checked before anything is hashed.

Shows: each digest stands at its index in the tree of that size and root.
Does not show: that it stands there only once; what the digest is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pot.commitments.hashing import BLAKE3, DIGEST_BYTES
from pot.commitments.merkle_verify import MAX_TREE_SIZE, ProofRefused
from pot.errors import LimitExceeded

__all__ = ["INDEX_BYTES", "MAX_QUERY_LEAVES", "PROOF_MAGIC", "read_indices", "sibling_count", "verify_present"]

INDEX_BYTES: Final = 8
MAX_QUERY_LEAVES: Final = 1 << 21  # plain code: 17 s and 1.3 GB; more are proven in parts
PROOF_MAGIC: Final = b"pot/presence/v1\n"
_HEAD: Final = len(PROOF_MAGIC) + INDEX_BYTES

_Level = list[tuple[int, bytes]]


def verify_present(root: bytes, size: int, digests: Sequence[bytes], proof: bytes) -> list[int]:
    """The indices at which `digests` (32 bytes each, by ascending index) stand in the tree of that `size` and `root`.

    Raises `ProofRefused` with the code "presence-query", "presence-length", "presence-index" or "presence-root";
    `LimitExceeded` for more digests than `MAX_QUERY_LEAVES`.
    """
    # 1 a question
    if len(digests) > MAX_QUERY_LEAVES:
        raise LimitExceeded(f"presence proof: more than {MAX_QUERY_LEAVES} digests asked")
    if not digests or any(len(digest) != DIGEST_BYTES for digest in digests):
        raise ProofRefused("presence-query", f"presence proof: ask for at least one digest of {DIGEST_BYTES} bytes")
    # 2 indices
    indices = read_indices(size, len(digests), proof)
    # 3 as many hashes as cannot be calculated, and nothing else
    start = _HEAD + INDEX_BYTES * len(indices)
    expected = start + DIGEST_BYTES * sibling_count(indices, size)
    if len(proof) != expected:
        raise ProofRefused("presence-length", f"presence proof: {len(proof)} bytes, expected {expected}")
    # 4 the root
    leaves = [(index, BLAKE3.leaf(digest)) for index, digest in zip(indices, digests, strict=True)]
    siblings = (proof[at : at + DIGEST_BYTES] for at in range(start, len(proof), DIGEST_BYTES))
    calculated = _top(leaves, size, siblings)
    if calculated != root:
        raise ProofRefused(
            "presence-root", f"presence proof: gives the root {calculated.hex()}, expected {root.hex() or '(empty)'}"
        )
    return indices


def read_indices(size: int, count: int, proof: bytes) -> list[int]:
    """The proof's indices, ascending; `count` of them, all below `size`. Raises `ProofRefused`."""
    if not 0 < size <= MAX_TREE_SIZE:
        raise ProofRefused("presence-index", f"presence proof: tree size {size} is out of range")
    if len(proof) < _HEAD or not proof.startswith(PROOF_MAGIC):
        raise ProofRefused("presence-length", "presence proof: does not begin with its version line and a number")
    found = int.from_bytes(proof[len(PROOF_MAGIC) : _HEAD], "little")
    if found != count:
        raise ProofRefused("presence-length", f"presence proof: is about {found} leaves, expected {count}")
    if len(proof) < _HEAD + INDEX_BYTES * count:
        raise ProofRefused("presence-length", "presence proof: ends among its indices")
    cuts = range(_HEAD, _HEAD + INDEX_BYTES * count, INDEX_BYTES)
    indices = [int.from_bytes(proof[at : at + INDEX_BYTES], "little") for at in cuts]
    previous = -1
    for index in indices:
        if not previous < index < size:
            raise ProofRefused(
                "presence-index", f"presence proof: index {index} after {previous} in a tree of {size} leaves"
            )
        previous = index
    return indices


def sibling_count(indices: Sequence[int], size: int) -> int:
    """How many hashes a proof for these leaves needs; `indices` must be ascending, distinct and below `size`."""
    level, total = list(indices), 0
    while size > 1:
        parents: list[int] = []
        for node in level:
            if parents and parents[-1] == node >> 1:
                total -= 1  # the left neighbour was counted as lacking this one
                continue
            parents.append(node >> 1)
            total += node ^ 1 < size  # an odd last node has no sibling
        level, size = parents, (size + 1) >> 1
    return total


def _top(level: _Level, size: int, siblings: Iterator[bytes]) -> bytes:
    """The root from leaf hashes by index and the hashes of the proof, level by level upwards, left to right."""
    while size > 1:
        above: _Level = []
        place = 0
        while place < len(level):
            node, digest = level[place]
            place += 1
            if node & 1:
                digest = BLAKE3.node(next(siblings), digest)
            elif place < len(level) and level[place][0] == node + 1:
                digest = BLAKE3.node(digest, level[place][1])
                place += 1
            elif node + 1 < size:
                digest = BLAKE3.node(digest, next(siblings))
            above.append((node >> 1, digest))
        level, size = above, (size + 1) >> 1
    return level[0][1]
