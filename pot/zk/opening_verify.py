"""Openings: what stands behind the points of a run's first and last state, and of a proven step's batch.

Implements `specs/openings.md`. An opening gives a point's blinds away, and names or holds what
the point commits to, so that anybody can make the point again and compare. A batch's opening holds its records: whoever
has the opening has them.

What a state's files hold is read by `pot.zk.opened_state`.

Shows: which integers a point opens to; which records a batch's integers were made from, and where these stand in the
committed data. Does not show: that a step used the batch (its step proof does); anything about points left closed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from pot.canonical import Count, Document, Hex32, parse_canonical
from pot.commitments.dataset import NEEDS, DatasetCommitment
from pot.commitments.hashing import BLAKE3
from pot.commitments.merkle_verify import ProofRefused, verify_inclusion
from pot.errors import Malformed, UsageError
from pot.zk.circuits.field import ELEMENT_BYTES, MODULUS, Vector
from pot.zk.family import Step, family_of

__all__ = [
    "MAX_OPENING_BYTES",
    "BatchOpening",
    "OpenedRecord",
    "StateOpening",
    "check_fields",
    "given_blinds",
    "read_batch_opening",
    "read_state_opening",
    "record_digests",
    "records_of",
    "seen_through",
    "unseen_fields",
]

MAX_OPENING_BYTES: Final = 16 << 20
MAX_VECTORS: Final = 256

Blinds = Annotated[str, StringConstraints(pattern=r"\A([0-9a-f]{64})+\z", max_length=64 * 64)]
"""The blinding elements at the end of one vector: 32 little-endian bytes each, in hex."""


class StateOpening(Document):
    """Opens the point of the state after step `step` (0: the state that the run begins with).

    `model_sha256`: the safetensors file of the weights, F32 or I64; `rest_sha256`: that of the state's other tensors,
    I64, where the program has any.
    """

    version: Literal["pot/state-opening/v1"]
    precommit_sha256: Hex32
    circuit_sha256: Hex32
    step: Count
    model_sha256: Hex32
    rest_sha256: Hex32 | None = None
    blinds: Annotated[list[Blinds], Field(min_length=1, max_length=MAX_VECTORS)]


class OpenedRecord(Document):
    """One record of an opened batch: its JSON object in canonical form, and its path in the ordered tree of its data.

    The object may leave fields out that neither the view nor the step reads.
    """

    record_base64: Annotated[str, StringConstraints(max_length=MAX_OPENING_BYTES)]
    path: Annotated[list[Hex32], Field(max_length=64)]


class BatchOpening(Document):
    """Opens the point of the batch of step `step` (from 1): its records in the order of the batch, and the blinds."""

    version: Literal["pot/batch-opening/v1"]
    precommit_sha256: Hex32
    circuit_sha256: Hex32
    step: Count
    records: Annotated[list[OpenedRecord], Field(min_length=1, max_length=4096)]
    blinds: Annotated[list[Blinds], Field(min_length=1, max_length=MAX_VECTORS)]


def read_state_opening(data: bytes, *, what: str = "state opening") -> StateOpening:
    """Parse a state opening. Raises `Malformed`, `LimitExceeded`."""
    return StateOpening.from_bytes(data, what=what, limit=MAX_OPENING_BYTES)


def read_batch_opening(data: bytes, *, what: str = "batch opening") -> BatchOpening:
    """Parse a batch opening. Raises `Malformed`, `LimitExceeded`."""
    return BatchOpening.from_bytes(data, what=what, limit=MAX_OPENING_BYTES)


def given_blinds(opening: StateOpening | BatchOpening) -> list[Vector]:
    """The blinds of each vector of the opened point. Raises `Malformed`; how many there must be, packing checks."""
    found: list[Vector] = []
    for text in opening.blinds:
        data = bytes.fromhex(text)
        parts = [data[at : at + ELEMENT_BYTES] for at in range(0, len(data), ELEMENT_BYTES)]
        found.append([int.from_bytes(part, "little") for part in parts])
    if any(element >= MODULUS for vector in found for element in vector):
        raise Malformed(f"opening of step {opening.step}: a blind is no element of the field")
    return found


def records_of(opening: BatchOpening) -> list[dict[str, Any]]:
    """The records of an opened batch. Raises `Malformed`."""
    found = []
    for at, item in enumerate(opening.records):
        what = f"record {at} of the opened batch of step {opening.step}"
        try:
            data = base64.b64decode(item.record_base64, validate=True)
        except (binascii.Error, ValueError):
            raise Malformed(f"{what}: record_base64 is not base64") from None
        value = parse_canonical(data, what=what, limit=MAX_OPENING_BYTES)
        if not isinstance(value, dict):
            raise Malformed(f"{what}: is not a JSON object")
        found.append(value)
    return found


def check_fields(program: Step, commitments: Sequence[DatasetCommitment], records: Sequence[dict[str, Any]]) -> None:
    """Refuse fields that neither a view nor the step reads: nothing binds them, so they could say anything.

    Raises `Malformed`.
    """
    known = set(family_of(program).field_names)
    whole = 0
    for commitment in commitments:
        if NEEDS.get(commitment.view) == "object":
            whole += 1
            continue
        renamed = (commitment.reading.fields or {}) if commitment.reading is not None else {}
        known |= {commitment.source_field, *renamed.values()}
    if whole == len(commitments):  # a view of whole records binds every field
        return
    for record in records:
        loose = sorted(record.keys() - known)
        if loose:
            raise Malformed(f"opened record: holds the field {loose[0][:64]!r}, which nothing binds")


def unseen_fields(program: Step, commitment: DatasetCommitment, exclusion: DatasetCommitment) -> list[str]:
    """Fields that a step reads of the commitment's records, and that the exclusion set's view does not see.

    Raises `ProofRefused` where its view says nothing of what the step reads: it is another than the commitment's, which
    does not hold whole records; it sees many keys, or keyed ones; it sees a field that the step does not read.
    """
    if exclusion.gram or exclusion.hiding is not None:
        raise ProofRefused("view", "the exclusion set has keys or keyed digests, with which no record can be compared")
    if exclusion.view != commitment.view and NEEDS.get(commitment.view) != "object":
        raise ProofRefused("view", f"the records are committed as {commitment.view}, X as {exclusion.view}")
    need = NEEDS.get(exclusion.view, "object")
    if need == "object":
        return []
    read = sorted(family_of(program).field_names)
    seen = commitment.source_field if exclusion.view == commitment.view else need
    if seen not in read:
        raise ProofRefused(
            "fields", f"the step reads {', '.join(read)} of a record, view {exclusion.view} sees {seen[:64]!r}"
        )
    return [name for name in read if name != seen]


def seen_through(
    commitment: DatasetCommitment, exclusion: DatasetCommitment, digest: bytes, value: dict[str, Any]
) -> bytes:
    """The digest of an opened record through the exclusion set's view; `digest` is that through the commitment's.

    A commitment to whole records binds every field, so that any other view of them can be taken. Raises `Malformed`.
    """
    if exclusion.view == commitment.view:
        return digest
    need = NEEDS.get(exclusion.view, "object")
    return _seen(value, exclusion.view, {} if need == "object" else {need: need}, "opened record")


def record_digests(
    commitments: Sequence[DatasetCommitment], indices: Sequence[int], records: Sequence[dict[str, Any]],
    opening: BatchOpening,
) -> list[tuple[int, bytes]]:  # fmt: skip
    """For every record: the number of its dataset, and its digest, which stands in that dataset where it must.

    `commitments`: all datasets of the run in order; `indices`: the record numbers that seed and order give for the
    step, which run through them. Raises `ProofRefused` where a record is not the committed one, or cannot be compared.
    """
    if len(records) != len(indices):
        raise ProofRefused("records", f"the opening holds {len(records)} records, the step took {len(indices)}")
    found = []
    for item, value, index in zip(opening.records, records, indices, strict=True):
        number, place = _dataset_of(commitments, index)
        commitment = commitments[number]
        digest = _digest(commitment, value, f"record {index}")
        root, size = bytes.fromhex(commitment.records.root_blake3), int(commitment.records.count)
        path = [bytes.fromhex(sibling) for sibling in item.path]
        try:
            verify_inclusion(BLAKE3.leaf(digest), place, size, path, root, BLAKE3)
        except ProofRefused as error:
            raise ProofRefused("records", f"record {index} is not the committed one: {error}") from None
        found.append((number, digest))
    return found


def _dataset_of(commitments: Sequence[DatasetCommitment], index: int) -> tuple[int, int]:
    first = 0
    for number, commitment in enumerate(commitments):
        count = int(commitment.records.count)
        if index < first + count:
            return number, index - first
        first += count
    raise ProofRefused("records", f"record {index} is beyond the {first} that the run committed to")


def _digest(commitment: DatasetCommitment, value: dict[str, Any], where: str) -> bytes:
    if commitment.hiding is not None:
        raise ProofRefused("hidden", "the data's digests are hidden under a key, so opened records cannot be compared")
    if commitment.gram:
        raise ProofRefused("view", f"view {commitment.view} sees a record as many keys; opened records have one digest")
    fields = {str(k): v for k, v in (commitment.reading.fields or {}).items()} if commitment.reading else {}
    return _seen(value, commitment.view, fields, where)


def _seen(value: dict[str, Any], view: str, fields: dict[str, str], where: str) -> bytes:
    from pot.data.query import digest_of
    from pot.data.readers.record import Record, seen_by, wanted_names

    try:
        seen = seen_by(wanted_names(NEEDS.get(view, "object"), fields), value, where)
        return digest_of(Record(where, b"", seen), view)
    except UsageError as error:  # the documents are somebody else's, not the caller's mistake
        raise Malformed(str(error)) from None
