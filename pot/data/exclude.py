"""Excluding: the proof that none of X's records is in the training data, or how many are.

Spec: `specs/commitments.md`, "Exclusion". Neither outcome says anything about a record's content.

Shows / does not show: see `pot.data.exclude_verify`, which holds the checks.
"""

from __future__ import annotations

from dataclasses import dataclass

from pot.commitments.dataset import split_digests
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_verify import key_of
from pot.data.commit import Committed
from pot.data.exclude_verify import Exclusion, ExclusionHeader, check_exclusion
from pot.errors import Refused, UsageError

__all__ = ["Overlap", "exclude"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """X is not out: how many of X's records are in the training data, and which (indices into X, from 0)."""

    count: int
    indices: list[int]


def exclude(training: Committed, exclusion: Committed) -> Exclusion | Overlap:
    """The exclusion file's parts if no record of X is in the training data, else the overlap.

    The result is checked as a verifier would before it is returned. Raises `UsageError` for swapped roles, different
    views or an empty X; `Refused` where two different records share an 8-byte key (about one pair in 2^64).
    """
    d, x = training.commitment, exclusion.commitment
    if d.role != "training":
        raise UsageError("the first commitment is of an exclusion set; give the training data first, X second")
    if x.role != "exclusion":
        raise UsageError("X is committed as training data; commit it with --as-exclusion")
    if d.view != x.view:
        raise UsageError(f"X is committed as {x.view}, the training data as {d.view}; commit X with --view {d.view}")
    if not exclusion.digests:
        raise UsageError("X has no record; leaving nothing out shows nothing")
    ours = split_digests(training.digests)
    known, theirs = frozenset(ours), split_digests(exclusion.digests)
    indices = [index for index, digest in enumerate(theirs) if digest in known]
    if indices:
        return Overlap(len(indices), indices)
    tree = SetTree.build(ours)
    keys = {key_of(digest) for digest in theirs}
    colliding = sum(key in tree for key in keys)
    if colliding:
        raise Refused(
            f"{colliding} of X's records share their 8-byte key with a different training record, so absence cannot be "
            "shown for them; take them out of X and settle them by their 32-byte digests"
        )
    header = ExclusionHeader(version="pot/exclusion/v1", training_sha256=d.sha256(), exclusion_sha256=x.sha256())
    result = Exclusion(header, tree.prove_absent(keys))
    try:
        check_exclusion(d, x, exclusion.digests, result.to_bytes())
    except ProofRefused as error:
        raise Refused(f"the commitments do not belong to their digest lists: {error}") from None
    return result
