"""Excluding: the proof that none of X's records is in the training data, or which are.

Spec: `specs/commitments.md`, "Exclusion". Neither outcome says anything about a record's content.

Shows / does not show: see `pot.data.exclude_verify`, which holds the checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pot.commitments.batch import keys_of
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.listing import gram_parts
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.data.exclude_verify import Exclusion, ExclusionHeader, check_exclusion
from pot.errors import Refused, UsageError

if TYPE_CHECKING:
    from pot.data.commit import Committed

__all__ = ["Overlap", "exclude"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """X is not out: how many of X's records overlap, which (indices into X), and with which training records.

    Under a gram view a record overlaps where it shares a key with the other side.
    """

    count: int
    indices: list[int]
    training_indices: list[int]


def exclude(training: Committed, exclusion: Committed) -> Exclusion | Overlap:
    """The exclusion file's parts if no record of X is in the training data, else the overlap.

    The result is checked as a verifier would before it is returned. Raises `UsageError` for swapped roles, different
    views or keys, or an empty X; `Refused` where two different records share an 8-byte key (about one pair in 2^64).
    """
    d, x = training.commitment, exclusion.commitment
    _check_pair(d, x)
    if not len(exclusion.listing):
        raise UsageError("X has no record; leaving nothing out shows nothing")
    tree = SetTree.of_keys(training.keys)
    asked = exclusion.keys
    shared = asked[tree.contains(asked)]
    if len(shared):
        overlap = _overlap(training, exclusion, shared)
        if overlap.count:
            return overlap
        raise Refused(
            f"{len(shared)} of X's records share their 8-byte key with a different training record, so absence cannot"
            " be shown for them; take them out of X and settle them by their 32-byte digests"
        )
    header = ExclusionHeader(version="pot/exclusion/v1", training_sha256=d.sha256(), exclusion_sha256=x.sha256())
    result = Exclusion(header, tree.prove_absent_keys(asked))
    try:
        check_exclusion(d, x, exclusion.listing, result.to_bytes())
    except ProofRefused as error:
        raise Refused(f"the commitments do not belong to their digest lists: {error}") from None
    return result


def _check_pair(d: DatasetCommitment, x: DatasetCommitment) -> None:
    if d.role != "training":
        raise UsageError(f"the first commitment has the role {d.role}; give the training data first, X second")
    if x.role != "exclusion":
        raise UsageError(f"X is committed with the role {x.role}; commit it with --as-exclusion")
    if d.view != x.view:
        raise UsageError(f"X is committed as {x.view}, the training data as {d.view}; commit X with --view {d.view}")
    if d.hiding != x.hiding:
        raise UsageError("X and the training data are not hidden under the same key; commit X with the same --key-file")


def _overlap(training: Committed, exclusion: Committed, shared: NDArray[np.uint64]) -> Overlap:
    """Settled by the 32-byte digests for plain views; a shared gram key is an overlap as it is."""
    if training.commitment.gram:
        theirs, ours = _records_with(exclusion, shared), _records_with(training, shared)
        return Overlap(len(theirs), theirs.tolist(), ours.tolist())
    ours_near = np.flatnonzero(np.isin(keys_of(training.digests), shared))
    theirs_near = np.flatnonzero(np.isin(keys_of(exclusion.digests), shared))
    ours_by = {training.digests[at].tobytes() for at in ours_near}
    theirs_by = {exclusion.digests[at].tobytes() for at in theirs_near}
    both = ours_by & theirs_by
    indices = [int(at) for at in theirs_near if exclusion.digests[at].tobytes() in both]
    found = [int(at) for at in ours_near if training.digests[at].tobytes() in both]
    return Overlap(len(indices), indices, found)


def _records_with(committed: Committed, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Indices of the records that have one of `keys` among theirs."""
    counts, all_keys = gram_parts(int(committed.commitment.records.count), committed.listing)
    owners = np.repeat(np.arange(len(counts)), counts)
    return np.unique(owners[np.isin(all_keys, keys)])
