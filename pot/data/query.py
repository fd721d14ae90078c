"""Querying: is this one record in the committed data? An inclusion proof, or a non-membership proof.

Spec: `specs/commitments.md`, "Membership answer".

Shows: either that a record with this digest stands at an index of the ordered tree, or that no record with this key is
in the set. Does not show: near duplicates.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from pydantic import Field

from pot.canonical import Count, Document, Hex32
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.hashing import BLAKE3, DIGEST_BYTES
from pot.commitments.hiding import HidingKey
from pot.commitments.merkle import LeafTree
from pot.commitments.merkle_verify import ProofRefused, verify_inclusion
from pot.commitments.setree import SetTree
from pot.commitments.setree_verify import KEY_BYTES, key_of, verify_absent
from pot.commitments.spans import Spans
from pot.data.digest import digest_batches
from pot.data.readers import Record
from pot.data.views import view_named
from pot.errors import UsageError

if TYPE_CHECKING:
    from pot.data.commit import Committed

__all__ = ["MAX_ABSENCE_CHARACTERS", "MembershipAnswer", "answer", "check_answer", "digest_of", "keys_for"]

MAX_ABSENCE_CHARACTERS: Final = 1 << 20  # one bucket has at most 65,535 keys: 700 k characters


class MembershipAnswer(Document):
    """Version "pot/membership/v1": what `pot data query` answers about one record.

    `member` with `index`, `copies` and `path` (hex, leaf to root), or not `member` with `absence_base64`.
    """

    version: Literal["pot/membership/v1"]
    commitment_sha256: Hex32
    record_blake3: Hex32
    member: bool
    index: Count | None = None
    copies: Count | None = None
    path: list[Hex32] | None = Field(default=None, max_length=64)
    absence_base64: str | None = Field(default=None, max_length=MAX_ABSENCE_CHARACTERS)


def digest_of(record: Record, view: str, key: HidingKey | None = None) -> bytes:
    """The digest (32 bytes) of a record seen through a plain view, under a hiding key if one is given.

    Raises `UsageError` (also for a gram view, whose records have many keys), `Malformed`.
    """
    chosen = view_named(view)
    if chosen.gram:
        raise UsageError(f"view {view} has many keys a record; ask a commitment under text/1 or text-norm/1 instead")
    ((_, _, _, digest),) = digest_batches(iter([Spans.of([chosen.content(record)])]), chosen, "training", key)
    return digest


def keys_for(record: Record, view: str, key: HidingKey | None = None) -> list[bytes]:
    """All set keys (8 bytes each) of a record seen through a view: one for a plain view. Raises as `digest_of`."""
    chosen = view_named(view)
    batches = iter([Spans.of([chosen.content(record)])])
    ((_, _, _, joined),) = digest_batches(batches, chosen, "exclusion", key)
    step = KEY_BYTES if chosen.gram else DIGEST_BYTES
    return [joined[at : at + KEY_BYTES] for at in range(0, len(joined), step)]


def answer(committed: Committed, digest: bytes) -> MembershipAnswer:
    """Answer for the record with this digest (32 bytes). `index` is its first place, `copies` how often it stands.

    Raises `Refused` where a different record shares its 8-byte key, so that absence cannot be shown.
    """
    digests, commitment = committed.digests, committed.commitment
    fields = {
        "version": "pot/membership/v1",
        "commitment_sha256": commitment.sha256(),
        "record_blake3": digest.hex(),
    }
    places = np.flatnonzero((digests == np.frombuffer(digest, np.uint8)).all(axis=1))
    if len(places):
        index = int(places[0])
        path = [sibling.hex() for sibling in LeafTree(digests).inclusion_path(index)]
        found = {"member": True, "index": str(index), "copies": str(len(places)), "path": path}
        return MembershipAnswer.from_value({**fields, **found}, what="membership answer")
    proof = SetTree.of_keys(committed.keys).prove_absent([key_of(digest)])
    absent = {"member": False, "absence_base64": base64.b64encode(proof).decode()}
    return MembershipAnswer.from_value({**fields, **absent}, what="membership answer")


def check_answer(commitment: DatasetCommitment, given: MembershipAnswer) -> None:
    """Refuse unless the answer holds for this commitment. `copies` is not shown by it. Raises `ProofRefused`."""
    if given.commitment_sha256 != commitment.sha256():
        raise ProofRefused(
            "answer-commitment", f"membership answer: is about {given.commitment_sha256}, another commitment"
        )
    digest = bytes.fromhex(given.record_blake3)
    if given.member:
        if given.index is None or given.path is None or given.absence_base64 is not None:
            raise ProofRefused("answer-form", "membership answer: a member needs index and path, and no absence proof")
        root, size = bytes.fromhex(commitment.records.root_blake3), int(commitment.records.count)
        path = [bytes.fromhex(sibling) for sibling in given.path]
        verify_inclusion(BLAKE3.leaf(digest), int(given.index), size, path, root, BLAKE3)
        return
    if given.absence_base64 is None or (given.index, given.copies, given.path) != (None, None, None):
        raise ProofRefused("answer-form", "membership answer: a non-member needs an absence proof, and nothing else")
    try:
        proof = base64.b64decode(given.absence_base64, validate=True)
    except binascii.Error:
        raise ProofRefused("answer-form", "membership answer: absence_base64 is not base64") from None
    root = bytes.fromhex(commitment.set.root_blake3)
    verify_absent(root, int(commitment.set.depth), int(commitment.set.count), [key_of(digest)], proof)
