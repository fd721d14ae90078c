"""Exclusion verification: that no record of X is among the training records that a commitment binds.

Spec: `specs/commitments.md`, "Exclusion". Needs both commitments, X's digest list and the exclusion file; no data.

Shows: no record of X, seen through the named view, has a record of the training commitment's set with the same bytes.
For a gram view (tiles, winnowing, minhash): no record of X shares a key with any; the view's specification says what
that rules out.
Does not show: near duplicates beyond that; that the set commitment holds what was trained on (an auditor's
recomputation ties it to the ordered one); that training read only committed records (replayed or proved steps do).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from pot.canonical import Document, Hex32
from pot.commitments.dataset import DatasetCommitment, check_digests
from pot.commitments.listing import plain_keys_of
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree_verify import verify_absent
from pot.errors import LimitExceeded, Malformed

__all__ = ["MAX_EXCLUSION_BYTES", "Exclusion", "ExclusionHeader", "check_exclusion", "read_exclusion"]

MAX_EXCLUSION_BYTES: Final = 1 << 30  # all of a release bundle may have 1 GiB
MAX_EXCLUSION_HEADER_BYTES: Final = 1024


class ExclusionHeader(Document):
    """First line of an exclusion file: which training commitment, which exclusion commitment (their `sha256()`)."""

    version: Literal["pot/exclusion/v1"]
    training_sha256: Hex32
    exclusion_sha256: Hex32


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An exclusion file taken apart: its header and the binary non-membership proof."""

    header: ExclusionHeader
    proof: bytes

    def to_bytes(self) -> bytes:
        """The file's bytes: header line, newline, binary non-membership proof."""
        return self.header.to_bytes() + b"\n" + self.proof


def read_exclusion(data: bytes, *, what: str = "exclusion file") -> Exclusion:
    """Take an exclusion file apart. Raises `Malformed` or `LimitExceeded`."""
    if len(data) > MAX_EXCLUSION_BYTES:
        raise LimitExceeded(f"{what}: {len(data)} bytes, more than the limit of {MAX_EXCLUSION_BYTES}")
    end = data.find(b"\n", 0, MAX_EXCLUSION_HEADER_BYTES + 1)
    if end < 0:
        raise Malformed(f"{what}: has no header line of at most {MAX_EXCLUSION_HEADER_BYTES} bytes")
    header = ExclusionHeader.from_bytes(data[:end], what=f"{what} header", limit=MAX_EXCLUSION_HEADER_BYTES)
    return Exclusion(header, data[end + 1 :])


def check_exclusion(
    training: DatasetCommitment, exclusion: DatasetCommitment, exclusion_digests: Any, file: bytes
) -> None:
    """Refuse unless the exclusion file shows that none of X's records is in the training set.

    `file` is the whole exclusion file, `exclusion_digests` X's listing (bytes or a uint8 array). Raises `ProofRefused`
    with the code "role-mismatch", "view-mismatch", "hiding-mismatch", "empty-x", "x-digests" or "proof"; `Malformed`
    where the file has no header.
    """
    # 1 the right kind of commitment on each side, seen through the same view
    if training.role != "training" or exclusion.role != "exclusion":
        raise ProofRefused(
            "role-mismatch",
            f"exclusion: roles are {training.role} and {exclusion.role}, expected training and exclusion",
        )
    if training.view != exclusion.view:
        raise ProofRefused(
            "view-mismatch",
            f"exclusion: X is committed as {exclusion.view}, the training data as {training.view}; "
            "digests of different views never match",
        )
    if training.hiding != exclusion.hiding:
        raise ProofRefused(
            "hiding-mismatch", "exclusion: X and the training data are not hidden under the same key; nothing matches"
        )
    # 2 X says something
    if int(exclusion.records.count) == 0:
        raise ProofRefused("empty-x", "exclusion: X has no record; leaving nothing out shows nothing")
    # 3 the digests are X's: all of them, and no others
    try:
        check_digests(exclusion, exclusion_digests)
    except ProofRefused as error:
        raise ProofRefused("x-digests", f"exclusion: the digest list is not X's: {error}") from None
    # 4 the file is about these two commitments
    parts = read_exclusion(file)
    for name, expected in (("training_sha256", training.sha256()), ("exclusion_sha256", exclusion.sha256())):
        found = getattr(parts.header, name)
        if found != expected:
            raise ProofRefused("proof", f"exclusion: {name} is {found}, expected {expected}")
    # 5 none of X's keys is in the training set
    try:
        verify_absent(
            bytes.fromhex(training.set.root_blake3),
            int(training.set.depth),
            int(training.set.count),
            plain_keys_of(int(exclusion.records.count), exclusion.gram, exclusion_digests),
            parts.proof,
        )
    except ProofRefused as error:
        raise ProofRefused("proof", f"exclusion: {error}") from None
