"""Composition verification: that a list of sums per label adds up to what a dataset commitment says, under one root.

Spec: `specs/composition.md`. Needs the commitment and the composition; no data.

Shows: the groups' records and bytes are all of the commitment's, none twice and none left out of the sums; each group's
sums are bound by the root of a sum tree over its records.
Does not show: that labels, lengths and token counts are those of the records (an auditor makes the composition again
from the data); that a label is true: it stands here as committed, whatever the licence or source really was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, StringConstraints

from pot.canonical import Count, Document, Hex32, canonical_bytes, derive
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.sumtree_verify import Sums, root_of, verify_sums

__all__ = [
    "MAX_FIELDS",
    "MAX_GROUPS",
    "MAX_LABEL",
    "NO_LABEL",
    "Composition",
    "Group",
    "Totals",
    "check_composition",
    "check_in_group",
    "group_identity",
    "ordered_labels",
]

MAX_GROUPS: Final = 4096  # a report must stay readable; labels with more values than this are no categories
MAX_LABEL: Final = 256  # characters
MAX_FIELDS: Final = 8
NO_LABEL: Final = "(none)"
_GROUP_CONTEXT: Final = "pot/composition-group/v1"

FieldName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Label = Annotated[str, StringConstraints(max_length=MAX_LABEL)]


class Totals(BaseModel):
    """Sums over records. `tokens` is there if the composition counts tokens."""

    model_config = Document.model_config

    records: Count
    bytes: Count
    tokens: Count | None = None


class Group(Totals):
    """All records with these labels. `root_blake3`: sum tree over them, in the commitment's order."""

    labels: Annotated[dict[FieldName, Label], Field(min_length=1, max_length=MAX_FIELDS)]
    root_blake3: Hex32


class Composition(Document):
    """Version "pot/composition/v1": sums per combination of labels, and the sum tree's root over the groups.

    `by`: the fields that the labels are from. `tokens_of`: the field that holds each record's number of tokens.
    """

    version: Literal["pot/composition/v1"]
    commitment_sha256: Hex32
    by: Annotated[list[FieldName], Field(min_length=1, max_length=MAX_FIELDS)]
    tokens_of: FieldName | None = None
    groups: Annotated[list[Group], Field(min_length=1, max_length=MAX_GROUPS)]
    totals: Totals
    root_blake3: Hex32


def check_composition(commitment: DatasetCommitment, composition: Composition) -> None:
    """Refuse unless the composition is about this commitment and adds up.

    Raises `ProofRefused` with the code "composition-commitment", "composition-groups", "composition-sums" or
    "composition-root".
    """
    # 1 it is about this commitment, under a view that gives each record one digest
    if composition.commitment_sha256 != commitment.sha256():
        raise ProofRefused(
            "composition-commitment",
            f"composition: is about commitment {composition.commitment_sha256}, expected {commitment.sha256()}",
        )
    if commitment.gram:
        raise ProofRefused("composition-commitment", f"composition: view {commitment.view} has many keys a record")
    # 2 every group has the same fields, none is empty, all are different and in order
    _check_groups(composition)
    # 3 the sums are the totals, and the totals the commitment's
    _check_sums(commitment, composition)
    # 4 the root is the one over these groups
    leaves = [(group_identity(group.labels, group.root_blake3), _amounts(group)) for group in composition.groups]
    root, _ = root_of(leaves)
    if root.hex() != composition.root_blake3:
        raise ProofRefused(
            "composition-root",
            f"composition: the groups give the root {root.hex()}, expected {composition.root_blake3}",
        )


def check_in_group(
    composition: Composition, group: int, digest: bytes, amounts: Sums, index: int, path: Sequence[tuple[bytes, Sums]]
) -> None:
    """Refuse unless the record with this digest (32 bytes) is number `index` of the composition's group `group`.

    `amounts`: 1 record, its bytes, its tokens (0 where none are counted). `path`: siblings in the group's sum tree.
    The composition must have passed `check_composition`. Raises `ProofRefused` ("composition-record", "sum-…").
    """
    if not 0 <= group < len(composition.groups):
        raise ProofRefused("composition-record", f"composition: has no group {group}")
    if amounts.records != 1:
        raise ProofRefused("composition-record", f"composition: a record counts as 1 record, not {amounts.records}")
    found = composition.groups[group]
    root = bytes.fromhex(found.root_blake3)
    verify_sums(digest, amounts, index, int(found.records), path, root, _amounts(found))


def group_identity(labels: dict[str, str], root_blake3: str) -> bytes:
    """What a group's leaf stands for: its labels and the root over its records; 32 bytes."""
    return derive(_GROUP_CONTEXT, canonical_bytes(labels), bytes.fromhex(root_blake3))


def ordered_labels(by: Sequence[str], labels: dict[str, str]) -> tuple[str, ...]:
    """A group's labels in the order of `by`: what groups are sorted by, by code point."""
    return tuple(labels[name] for name in by)


def _check_groups(composition: Composition) -> None:
    by, counted = composition.by, composition.tokens_of is not None
    if len(set(by)) != len(by):
        raise ProofRefused("composition-groups", "composition: a field is named twice")
    previous: tuple[str, ...] | None = None
    for number, group in enumerate(composition.groups):
        if group.labels.keys() != set(by):
            raise ProofRefused("composition-groups", f"composition: group {number} has other fields than `by` names")
        if group.records == "0":
            raise ProofRefused("composition-groups", f"composition: group {number} has no record")
        labels = ordered_labels(by, group.labels)
        if previous is not None and labels <= previous:
            raise ProofRefused("composition-groups", f"composition: group {number} is not after the one before it")
        previous = labels
    if any((part.tokens is not None) != counted for part in (*composition.groups, composition.totals)):
        raise ProofRefused("composition-groups", "composition: tokens are counted in some places and not in others")


def _check_sums(commitment: DatasetCommitment, composition: Composition) -> None:
    sums, totals = Sums(0, 0, 0), _amounts(composition.totals)
    for group in composition.groups:
        sums = (sums + _amounts(group)).check()
    for name, found, expected in (
        ("records of the groups", sums.records, totals.records),
        ("bytes of the groups", sums.bytes, totals.bytes),
        ("tokens of the groups", sums.tokens, totals.tokens),
        ("records", totals.records, int(commitment.records.count)),
        ("bytes", totals.bytes, int(commitment.records.bytes)),
    ):
        if found != expected:
            raise ProofRefused("composition-sums", f"composition: {name} sum up to {found}, expected {expected}")


def _amounts(part: Totals) -> Sums:
    return Sums(int(part.records), int(part.bytes), int(part.tokens or "0"))
