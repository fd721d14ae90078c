"""Composing: records, bytes and tokens of committed data, summed per label in Merkle-sum trees.

Spec: `specs/composition.md`. Each combination of labels is a group with a sum tree over its records; a second sum tree
is over the groups.

Shows / does not show: see `pot.data.composition_verify`, which holds the checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pot.canonical import MAX_DOCUMENT_BYTES, canonical_bytes
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.merkle import ordered_root
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.sumtree import SumTree
from pot.commitments.sumtree_verify import Sums, root_of
from pot.data.composition_verify import (
    MAX_FIELDS,
    MAX_GROUPS,
    MAX_LABEL,
    NO_LABEL,
    Composition,
    check_composition,
    group_identity,
    ordered_labels,
)
from pot.errors import LimitExceeded, Malformed, Refused, UsageError

__all__ = ["compose", "group_tree", "label_of", "recompute"]

_MAX_AMOUNT: Final = 2**53  # of one record: a JSON number, or the length of something in memory
_MAX_SUM: Final = 10**19 - 1  # what a document's quantity can say

Groups = dict[tuple[str, ...], list[int]]


def label_of(value: Any) -> str:
    """The label for a field's value: strings as they are, other scalars as JSON, an absent or null field "(none)".

    Raises `Malformed` for lists and objects, which are no categories.
    """
    if value is None:
        return NO_LABEL
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return canonical_bytes(value).decode()
    raise Malformed(f"a label must be a string, a number, true or false, not {type(value).__name__}")


def compose(
    commitment: DatasetCommitment,
    digests: NDArray[np.uint8],
    lengths: Sequence[int] | NDArray[np.int64],
    by: Sequence[str],
    labels: Sequence[Mapping[str, str]],
    tokens_of: str | None = None,
    tokens: Sequence[int] | NDArray[np.int64] | None = None,
) -> Composition:
    """The composition of committed records, in their order.

    `digests`: uint8 of shape (n, 32), those that were committed. `lengths`: bytes of each record's view. `labels`: for
    each record field -> label; a field of `by` that is not there counts as "(none)". `tokens`: of each record, if
    `tokens_of` names their field. Raises `UsageError`, `LimitExceeded` (number of groups, length of labels), `Refused`
    (not the committed records).
    """
    _check_inputs(commitment, digests, by, [lengths, labels, *([tokens] if tokens is not None else [])])
    if (tokens_of is None) != (tokens is None):
        raise UsageError("composition: tokens and the field that they are from come together")
    if ordered_root(digests).hex() != commitment.records.root_blake3:
        raise Refused("composition: not the records that were committed; their ordered root is another")
    amounts = _amounts(lengths, tokens)
    found = _groups(by, labels)
    leaves: list[tuple[bytes, Sums]] = []
    groups: list[dict[str, Any]] = []
    for names in sorted(found):
        rows = np.array(found.pop(names), np.int64)
        tree = SumTree(digests[rows], amounts[rows])
        group = dict(zip(by, names, strict=True))
        leaves.append((group_identity(group, tree.root.hex()), tree.total))
        groups.append({"labels": group, "root_blake3": tree.root.hex(), **_told(tree.total, tokens_of)})
    root, total = root_of(leaves)
    value: dict[str, Any] = {
        "version": "pot/composition/v1",
        "commitment_sha256": commitment.sha256(),
        "by": list(by),
        "groups": groups,
        "totals": _told(total, tokens_of),
        "root_blake3": root.hex(),
    }
    if tokens_of is not None:
        value["tokens_of"] = tokens_of
    made = Composition.from_value(value, what="composition")
    if len(made.to_bytes()) > MAX_DOCUMENT_BYTES:
        raise LimitExceeded(f"composition: its labels need more than the limit of {MAX_DOCUMENT_BYTES} bytes")
    try:
        check_composition(commitment, made)
    except ProofRefused as error:  # lengths that are not those of the committed views
        raise Refused(f"{error}; the lengths are not those of the committed records") from None
    return made


def recompute(
    commitment: DatasetCommitment,
    composition: Composition,
    digests: NDArray[np.uint8],
    lengths: Sequence[int] | NDArray[np.int64],
    labels: Sequence[Mapping[str, str]],
    tokens: Sequence[int] | NDArray[np.int64] | None = None,
) -> None:
    """Refuse unless the records, with their lengths, labels and tokens, give this composition: an auditor's check.

    Raises `ProofRefused` with the code "composition-records"; otherwise as `check_composition` and `compose`.
    """
    check_composition(commitment, composition)
    made = compose(commitment, digests, lengths, composition.by, labels, composition.tokens_of, tokens)
    if made.to_bytes() != composition.to_bytes():
        differ = next(
            (n for n, pair in enumerate(zip(made.groups, composition.groups, strict=False)) if pair[0] != pair[1]),
            min(len(made.groups), len(composition.groups)),
        )
        raise ProofRefused(
            "composition-records", f"composition: the records give other sums or roots, first in group {differ}"
        )


def group_tree(
    composition: Composition,
    group: int,
    digests: NDArray[np.uint8],
    lengths: Sequence[int] | NDArray[np.int64],
    labels: Sequence[Mapping[str, str]],
    tokens: Sequence[int] | NDArray[np.int64] | None = None,
) -> tuple[SumTree, list[int]]:
    """The sum tree over one group's records, for paths that `check_in_group` takes, and these records' indices.

    Raises `UsageError` where there is no such group.
    """
    if not 0 <= group < len(composition.groups):
        raise UsageError(f"composition: has no group {group}")
    names = ordered_labels(composition.by, composition.groups[group].labels)
    rows = _groups(composition.by, labels).get(names, [])
    return SumTree(digests[rows], _amounts(lengths, tokens)[rows]), rows


def _check_inputs(
    commitment: DatasetCommitment, digests: NDArray[np.uint8], by: Sequence[str], lists: Sequence[Any]
) -> None:
    if commitment.gram:
        raise UsageError(f"composition: view {commitment.view} has many keys a record; compose the records' own view")
    if not 1 <= len(by) <= MAX_FIELDS or len(set(by)) != len(by):
        raise UsageError(f"composition: sum by 1 to {MAX_FIELDS} different fields")
    count = int(commitment.records.count)
    if any(len(items) != count for items in (digests, *lists)):
        raise UsageError(f"composition: digests, lengths, labels and tokens must be of all {count} committed records")


def _groups(by: Sequence[str], labels: Sequence[Mapping[str, str]]) -> Groups:
    """The records' indices for each combination of labels."""
    found: Groups = {}
    for index, row in enumerate(labels):
        names = tuple(row.get(name, NO_LABEL) for name in by)
        rows = found.get(names)
        if rows is not None:
            rows.append(index)
            continue
        long = next((name for name, label in zip(by, names, strict=True) if len(label) > MAX_LABEL), None)
        if long is not None:
            raise LimitExceeded(f"composition: record {index}: label {long!r} has more than {MAX_LABEL} characters")
        if len(found) == MAX_GROUPS:
            raise LimitExceeded(
                f"composition: more than {MAX_GROUPS} different labels, from record {index} on; sum by fewer fields"
            )
        found[names] = [index]
    return found


def _amounts(lengths: Any, tokens: Any) -> NDArray[np.uint64]:
    """Records (1), bytes and tokens of each record, uint64 of shape (n, 3)."""
    amounts = np.zeros((len(lengths), 3), np.uint64)
    amounts[:, 0] = 1
    for column, values in ((1, lengths), (2, tokens)):
        if values is None:
            continue
        try:
            row = np.asarray(values, np.int64)
        except OverflowError:
            row = np.array([-1])
        if len(row) and (row.min() < 0 or row.max() > _MAX_AMOUNT):
            raise UsageError("composition: bytes and tokens of a record must be 0 to 2^53")
        amounts[:, column] = row
    return amounts


def _told(sums: Sums, tokens_of: str | None) -> dict[str, str]:
    if max(sums.records, sums.bytes, sums.tokens) > _MAX_SUM:
        raise LimitExceeded("composition: a sum is 10^19 or more, which no document can say")
    value = {"records": str(sums.records), "bytes": str(sums.bytes)}
    return value if tokens_of is None else {**value, "tokens": str(sums.tokens)}
