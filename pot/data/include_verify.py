"""Inclusion verification: that every record of Y stands in the order that a training commitment binds.

Spec: `specs/commitments.md`, "Inclusion". Needs both commitments, Y's digest list and the inclusion file; no data, and
of libraries `blake3` alone.

Shows: each distinct record of Y, seen through the named view, stands at an index of the training commitment's order.
Does not show: that training read it (an order that was followed, replayed or proved steps show that); how often it
stands there; that the training data holds nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from pot.canonical import Document, Hex32
from pot.commitments.dataset import DatasetCommitment, check_digests
from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.presence_verify import verify_present
from pot.errors import LimitExceeded, Malformed

__all__ = ["MAX_INCLUSION_BYTES", "PLACE_BYTES", "Inclusion", "InclusionHeader", "check_inclusion", "read_inclusion"]

MAX_INCLUSION_BYTES: Final = 1 << 30  # all of a release bundle may have 1 GiB
MAX_INCLUSION_HEADER_BYTES: Final = 1024
PLACE_BYTES: Final = 4


class InclusionHeader(Document):
    """First line of an inclusion file: which training commitment, which inclusion commitment (their `sha256()`)."""

    version: Literal["pot/inclusion/v1"]
    training_sha256: Hex32
    inclusion_sha256: Hex32


@dataclass(frozen=True, slots=True)
class Inclusion:
    """An inclusion file taken apart: its header, and its body of places and presence proof."""

    header: InclusionHeader
    body: bytes

    def to_bytes(self) -> bytes:
        """The file's bytes: header line, newline, body."""
        return self.header.to_bytes() + b"\n" + self.body


def read_inclusion(data: bytes, *, what: str = "inclusion file") -> Inclusion:
    """Take an inclusion file apart. Raises `Malformed` or `LimitExceeded`."""
    if len(data) > MAX_INCLUSION_BYTES:
        raise LimitExceeded(f"{what}: {len(data)} bytes, more than the limit of {MAX_INCLUSION_BYTES}")
    end = data.find(b"\n", 0, MAX_INCLUSION_HEADER_BYTES + 1)
    if end < 0:
        raise Malformed(f"{what}: has no header line of at most {MAX_INCLUSION_HEADER_BYTES} bytes")
    header = InclusionHeader.from_bytes(data[:end], what=f"{what} header", limit=MAX_INCLUSION_HEADER_BYTES)
    return Inclusion(header, data[end + 1 :])


def check_inclusion(
    training: DatasetCommitment, inclusion: DatasetCommitment, inclusion_digests: Any, file: bytes
) -> list[int]:
    """The training indices of Y's distinct records, in the order in which Y has them first; refuse if any is missing.

    `file` is the whole inclusion file, `inclusion_digests` Y's listing (bytes or a uint8 array). Raises `ProofRefused`
    with the code "role-mismatch", "view-mismatch", "hiding-mismatch", "empty-y", "y-digests" or "proof"; `Malformed`
    where the file has no header.
    """
    # 1 the right kind of commitment on each side, seen through the same view, which has one digest a record
    if training.role != "training" or inclusion.role != "inclusion":
        raise ProofRefused(
            "role-mismatch",
            f"inclusion: roles are {training.role} and {inclusion.role}, expected training and inclusion",
        )
    if training.view != inclusion.view:
        raise ProofRefused(
            "view-mismatch",
            f"inclusion: Y is committed as {inclusion.view}, the training data as {training.view}; "
            "digests of different views never match",
        )
    if training.gram:
        raise ProofRefused(
            "view-mismatch", f"inclusion: view {training.view} sees a record as many keys, which show no presence"
        )
    if training.hiding != inclusion.hiding:
        raise ProofRefused(
            "hiding-mismatch", "inclusion: Y and the training data are not hidden under the same key; nothing matches"
        )
    # 2 Y says something
    if int(inclusion.records.count) == 0:
        raise ProofRefused("empty-y", "inclusion: Y has no record; an empty inclusion shows nothing")
    # 3 the digests are Y's: all of them, and no others
    try:
        check_digests(inclusion, inclusion_digests)
    except ProofRefused as error:
        raise ProofRefused("y-digests", f"inclusion: the digest list is not Y's: {error}") from None
    # 4 the file is about these two commitments
    parts = read_inclusion(file)
    for name, expected in (("training_sha256", training.sha256()), ("inclusion_sha256", inclusion.sha256())):
        found = getattr(parts.header, name)
        if found != expected:
            raise ProofRefused("proof", f"inclusion: {name} is {found}, expected {expected}")
    # 5 each of Y's distinct digests stands somewhere in the training commitment's order
    return _indices(training, bytes(inclusion_digests), parts.body)


def _indices(training: DatasetCommitment, listing: bytes, body: bytes) -> list[int]:
    cuts = range(0, len(listing), DIGEST_BYTES)
    distinct = list(dict.fromkeys(listing[start : start + DIGEST_BYTES] for start in cuts))
    end = PLACE_BYTES * len(distinct)
    places = [int.from_bytes(body[at : at + PLACE_BYTES], "little") for at in range(0, end, PLACE_BYTES)]
    if len(body) < end or sorted(places) != list(range(len(distinct))):
        raise ProofRefused("proof", f"inclusion: does not name each of Y's {len(distinct)} distinct records once")
    root, size = bytes.fromhex(training.records.root_blake3), int(training.records.count)
    try:
        found = verify_present(root, size, [distinct[place] for place in places], body[end:])
    except ProofRefused as error:
        raise ProofRefused("proof", f"inclusion: {error}") from None
    indices = [0] * len(distinct)
    for place, index in zip(places, found, strict=True):
        indices[place] = index
    return indices
