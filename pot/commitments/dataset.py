"""The dataset commitment: one small document that fixes a dataset's records in order and as a set.

Spec: `specs/commitments.md`, "Dataset commitment". Two roots over the same record digests: the ordered tree (which
record stands at which index; what the data order and batches refer to) and the set tree (what is not in it).

Shows: whoever holds the digests can recompute both roots and counts; nobody can change a record unnoticed.
Does not show: to somebody without the digests, that the two roots cover the same records. `check_digests` is that tie,
run by everybody for an exclusion set and by auditors for training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pot.canonical import Count, Document, Hex32
from pot.commitments.hashing import BLAKE3, DIGEST_BYTES
from pot.commitments.merkle import merkle_root
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_verify import MAX_COUNT, depth_for
from pot.errors import LimitExceeded, UsageError

__all__ = [
    "MAX_DIGESTS_BYTES",
    "DatasetCommitment",
    "RecordsRoot",
    "Role",
    "SetRoot",
    "Shard",
    "check_digests",
    "commit_digests",
    "split_digests",
]

MAX_DIGESTS_BYTES: Final = 1 << 28  # 8.4 million records of an X from outside: about 1 GB of memory while hashing

Role = Literal["training", "exclusion"]
ViewName = Field(pattern=r"\A[a-z0-9-]{1,32}/[1-9][0-9]{0,3}\z")


class RecordsRoot(BaseModel):
    """The ordered tree: records, the bytes of their views together, the root over their digests in order."""

    model_config = Document.model_config

    count: Count
    bytes: Count
    root_blake3: Hex32


class SetRoot(BaseModel):
    """The set tree: distinct keys, depth, root."""

    model_config = Document.model_config

    count: Count
    depth: Count
    root_blake3: Hex32


class Shard(BaseModel):
    """One file that records were read from, in reading order."""

    model_config = Document.model_config

    name: str = Field(min_length=1, max_length=512)
    bytes: Count
    records: Count
    sha256: Hex32
    blake3: Hex32


class DatasetCommitment(Document):
    """Version "pot/dataset-commitment/v1". Its id is `sha256()`, over its canonical bytes."""

    version: Literal["pot/dataset-commitment/v1"]
    role: Role
    view: str = ViewName
    records: RecordsRoot
    set: SetRoot
    shards: list[Shard]

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        count, distinct = int(self.records.count), int(self.set.count)
        if count > MAX_COUNT:
            raise ValueError(f"more than {MAX_COUNT} records")
        if distinct > count or (distinct == 0) != (count == 0):
            raise ValueError(f"{distinct} distinct keys do not fit {count} records")
        if int(self.set.depth) != depth_for(distinct):
            raise ValueError(f"set depth {self.set.depth} does not belong to {distinct} distinct keys")
        if sum(int(shard.records) for shard in self.shards) != count:
            raise ValueError(f"the shards' records do not add up to {count}")
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise ValueError("two shards have the same name")
        return self


def split_digests(digests: bytes) -> list[bytes]:
    """Cut a digest list (32 bytes each, in record order) into digests. The length must be a multiple of 32."""
    return [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]


def commit_digests(
    role: Role, view: str, digests: bytes, view_bytes: int, shards: Sequence[Shard]
) -> DatasetCommitment:
    """Commit to records by their digests (32 bytes each, in order). `view_bytes`: length of all views together.

    Raises `UsageError` for no records, a partial digest, or shards that do not add up.
    """
    if not digests:
        raise UsageError("dataset commitment: there is no record to commit to")
    if len(digests) % DIGEST_BYTES:
        raise UsageError(f"dataset commitment: {len(digests)} bytes of digests are not a multiple of {DIGEST_BYTES}")
    count = len(digests) // DIGEST_BYTES
    leaves = split_digests(digests)
    tree = SetTree.build(leaves)
    value = {
        "version": "pot/dataset-commitment/v1",
        "role": role,
        "view": view,
        "records": {"count": str(count), "bytes": str(view_bytes), "root_blake3": merkle_root(leaves, BLAKE3).hex()},
        "set": {"count": str(tree.count), "depth": str(tree.depth), "root_blake3": tree.root.hex()},
        "shards": [shard.model_dump() for shard in shards],
    }
    return DatasetCommitment.from_value(value, what="dataset commitment")


def check_digests(commitment: DatasetCommitment, digests: bytes, limit: int = MAX_DIGESTS_BYTES) -> None:
    """Refuse unless `digests` (32 bytes each, in order) give both of the commitment's roots and both counts.

    `limit` in bytes guards against lists from outside; raise it only for one's own data. Raises `ProofRefused` with
    the code "digests-length", "digests-records" or "digests-set"; `LimitExceeded` above `limit`.
    """
    expected = DIGEST_BYTES * int(commitment.records.count)
    if len(digests) != expected or not expected:
        raise ProofRefused(
            "digests-length",
            f"digest list: {len(digests)} bytes, expected {expected} for {commitment.records.count} records",
        )
    if expected > limit:
        raise LimitExceeded(f"digest list: {expected} bytes, more than the limit of {limit}")
    leaves = split_digests(digests)
    root = merkle_root(leaves, BLAKE3).hex()
    if root != commitment.records.root_blake3:
        raise ProofRefused(
            "digests-records", f"digest list: records root {root}, expected {commitment.records.root_blake3}"
        )
    tree = SetTree.build(leaves)
    found = (str(tree.count), str(tree.depth), tree.root.hex())
    if found != (commitment.set.count, commitment.set.depth, commitment.set.root_blake3):
        raise ProofRefused(
            "digests-set",
            f"digest list: set of {tree.count} with root {tree.root.hex()}, "
            f"expected {commitment.set.count} with root {commitment.set.root_blake3}",
        )
