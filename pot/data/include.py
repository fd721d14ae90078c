"""Including: the proof that all of Y's records stand in the training data's order, or which do not.

Spec: `specs/commitments.md`, "Inclusion". Neither outcome says anything about a record's content.

Shows / does not show: see `pot.data.include_verify`, which holds the checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pot.commitments.batch import keys_of
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.merkle import LeafTree
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.presence import prove_present
from pot.data.include_verify import PLACE_BYTES, Inclusion, InclusionHeader, check_inclusion
from pot.errors import Refused, UsageError

if TYPE_CHECKING:
    from pot.data.commit import Committed

__all__ = ["Missing", "include"]


@dataclass(frozen=True, slots=True)
class Missing:
    """Y is not all in: how many of Y's records are not in the training data, and which (indices into Y)."""

    count: int
    indices: list[int]


def include(training: Committed, inclusion: Committed) -> Inclusion | Missing:
    """The inclusion file's parts if every record of Y is in the training data, else those that are not.

    The result is checked as a verifier would before it is returned. Raises `UsageError` for swapped roles, different
    views or keys, a view with many keys a record, or an empty Y; `Refused` where commitment and digests disagree.
    """
    d, y = training.commitment, inclusion.commitment
    _check_pair(d, y)
    if not len(inclusion.listing):
        raise UsageError("Y has no record; including nothing shows nothing")
    wanted = [digest.tobytes() for digest in inclusion.digests]
    ours = training.digests
    first = _first_indices(ours, inclusion.digests)
    missing = [at for at, digest in enumerate(wanted) if digest not in first]
    if missing:
        return Missing(len(missing), missing)
    indices = np.array([first[digest] for digest in dict.fromkeys(wanted)], np.int64)
    order = np.argsort(indices)
    proof = prove_present(LeafTree(ours), indices[order])
    header = InclusionHeader(version="pot/inclusion/v1", training_sha256=d.sha256(), inclusion_sha256=y.sha256())
    result = Inclusion(header, order.astype(f"<u{PLACE_BYTES}").tobytes() + proof)
    try:
        check_inclusion(d, y, inclusion.listing, result.to_bytes())
    except ProofRefused as error:
        raise Refused(f"the commitments do not belong to their digest lists: {error}") from None
    return result


def _check_pair(d: DatasetCommitment, y: DatasetCommitment) -> None:
    if d.role != "training":
        raise UsageError(f"the first commitment has the role {d.role}; give the training data first, Y second")
    if y.role != "inclusion":
        raise UsageError(f"Y is committed with the role {y.role}; commit it with --as-inclusion")
    if d.view != y.view:
        raise UsageError(f"Y is committed as {y.view}, the training data as {d.view}; commit Y with --view {d.view}")
    if d.gram:
        raise UsageError(f"view {d.view} sees a record as many keys, which show no presence; commit both as text/1")
    if d.hiding != y.hiding:
        raise UsageError("Y and the training data are not hidden under the same key; commit Y with the same --key-file")


def _first_indices(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> dict[bytes, int]:
    """For each digest of `theirs` that is among `ours`: the first index at which it stands there."""
    near = np.flatnonzero(np.isin(keys_of(ours), np.unique(keys_of(theirs))))  # 8 bytes sort out nearly all
    wanted = {digest.tobytes() for digest in theirs}
    first: dict[bytes, int] = {}
    for at in near.tolist():
        digest = ours[at].tobytes()
        if digest in wanted:
            first.setdefault(digest, at)
    return first
