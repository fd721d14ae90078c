"""A data audit: a dataset commitment made again, from the record digests alone or from the files.

Spec: `specs/predicates/data-audit-v0.1.md`. From digests (source "digests"), the auditor rebuilds both roots and never
sees a record. From the files (source "data"), everything is committed again: records, set, reading and shards; and
compositions are summed up again from the records' labels. Signed, the result lets others verify without the data.

Shows: source "digests": set and order hold the same record digests. Source "data": and these are the records of the
files with the listed digests, read and seen as the commitment says; the listed compositions are theirs.
Does not show: that a run used these files (the run's audit does); that labels are true; that the auditor is honest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from pot.canonical import Count, Document, Hex32, read_file
from pot.commitments.dataset import DatasetCommitment, Reading, check_digests
from pot.commitments.merkle_verify import ProofRefused
from pot.errors import EnvironmentFailure, Refused, UsageError

if TYPE_CHECKING:
    from pot.commitments.hiding import HidingKey
    from pot.data.composition_verify import Composition

__all__ = ["MAX_AUDIT_DETAIL", "DataAudit", "audit_data", "audit_digests", "open_listing"]

MAX_AUDIT_DETAIL: Final = 300  # characters of an explanation: a statement must stay under 64 KiB
_MAX_COMPOSITIONS: Final = 64

_Digests = Annotated[tuple[Hex32, ...], Field(min_length=1, max_length=_MAX_COMPOSITIONS)]


class DataAudit(Document):
    """`pot/data-audit/v1`. `records`: how many the auditor found.

    `compositions`: SHA-256 of those that were made again and are the same; `compositions_differ`: of those that differ.
    """

    version: Literal["pot/data-audit/v1"]
    commitment_sha256: Hex32
    source: Literal["digests", "data"]
    records: Count
    outcome: Literal["MATCH", "MISMATCH"]
    detail: Annotated[str, StringConstraints(min_length=1, max_length=MAX_AUDIT_DETAIL)] | None = None
    compositions: _Digests | None = None
    compositions_differ: _Digests | None = None

    @model_validator(mode="after")
    def _fits_its_source(self) -> Self:
        listed = [*(self.compositions or ()), *(self.compositions_differ or ())]
        if listed and (self.source, self.outcome) != ("data", "MATCH"):
            raise ValueError("compositions are made again from matching data only")
        if len(set(listed)) != len(listed):
            raise ValueError("a composition is listed twice")
        if self.outcome == "MISMATCH" and self.detail is None:
            raise ValueError("a mismatch needs a detail")
        return self

    @property
    def agrees(self) -> bool:
        """Whether nothing that was made again differs."""
        return self.outcome == "MATCH" and self.compositions_differ is None


def audit_digests(commitment: DatasetCommitment, listing: Any) -> DataAudit:
    """Rebuild both roots from `listing`: bytes or a uint8 array, 32 bytes a record, or a gram view's keys.

    No data is seen; a listing of any length is taken, since it is the auditor's to read. Raises `EnvironmentFailure`.
    """
    try:
        check_digests(commitment, listing, limit=len(listing))
    except ProofRefused as error:
        return _result(commitment, "digests", commitment.records.count, str(error))
    return _result(commitment, "digests", commitment.records.count, None)


def open_listing(path: Path) -> Any:
    """A listing of any length, mapped where NumPy is there. Raises `UsageError`, `EnvironmentFailure`."""
    import numpy as np

    if path.is_symlink() or not path.is_file():
        return read_file(path, limit=0)  # says what is wrong with it
    try:
        return np.memmap(path, np.uint8, "r") if path.stat().st_size else b""
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be read: {error.strerror or error}") from None


def audit_data(
    commitment: DatasetCommitment,
    paths: Sequence[Path],
    key: HidingKey | None = None,
    compositions: Sequence[Composition] = (),
    *,
    workers: int = 1,
) -> DataAudit:
    """Commit to the files of `paths` again as `commitment` says, and compare; sum up `compositions` again.

    `key`: the hiding key of a hidden commitment. How records are stored is the commitment's word too, so the auditor's
    files must be called accordingly. Raises `UsageError` (a missing or foreign key, a composition of another
    commitment), `Malformed` (files that do not read), `Refused`, `EnvironmentFailure`, `MissingExtra`.
    """
    from pot.commitments.hiding import check_key
    from pot.data.commit import commit, how_read

    check_key(commitment.hiding, key, "the commitment")
    for composition in compositions:
        if composition.commitment_sha256 != commitment.sha256():
            raise UsageError(f"composition {composition.sha256()} is of another commitment than {commitment.sha256()}")
    if commitment.reading is not None and commitment.reading.source == "dataset":
        raise UsageError("the commitment is to a program's own data set, not to files; audit it with --digests")
    found = commit(paths, commitment.view, commitment.role, workers, key=key, **how_read(commitment)).commitment
    problem = _difference(commitment, found)
    if problem is not None:
        return _result(commitment, "data", found.records.count, problem)
    same, differ = _compose(commitment, paths, key, compositions)
    return _result(commitment, "data", found.records.count, None, same, differ)


def _difference(expected: DatasetCommitment, found: DatasetCommitment) -> str | None:
    """What differs first, in words; shards' names may differ, since they are only what files are called."""
    pairs: list[tuple[str, Any, Any]] = [
        ("number of records", expected.records.count, found.records.count),
        ("ordered root", expected.records.root_blake3, found.records.root_blake3),
        ("bytes of all records", expected.records.bytes, found.records.bytes),
        ("set", expected.set.model_dump(), found.set.model_dump()),
        ("container", expected.container, found.container),
        ("reading", _unnamed(expected.reading), _unnamed(found.reading)),
    ]
    if expected.shards:  # a commitment to a live dataset lists none
        pairs.append(("number of files", len(expected.shards), len(found.shards)))
        for number, (ours, theirs) in enumerate(zip(expected.shards, found.shards, strict=False), 1):
            pairs += [
                (f"{name} of file {number}", getattr(ours, name), getattr(theirs, name))
                for name in ("bytes", "records", "sha256", "blake3")
            ]
    return next((f"{what}: {one}, found {other}" for what, one, other in pairs if one != other), None)


def _unnamed(reading: Reading | None) -> Reading:
    """A reading without the container, which is compared by itself: files' names may say it."""
    return (reading or Reading()).model_copy(update={"container": None})


def _compose(
    commitment: DatasetCommitment,
    paths: Sequence[Path],
    key: HidingKey | None,
    compositions: Sequence[Composition],
) -> tuple[list[str], list[str]]:
    """SHA-256 of the compositions that the data gives again, and of those that it does not."""
    if not compositions:
        return [], []
    from pot.data.compose import compose_paths

    same: list[str] = []
    differ: list[str] = []
    for composition in compositions:
        made = compose_paths(commitment, paths, list(composition.by), composition.tokens_of, key=key)
        target = same if made.to_bytes() == composition.to_bytes() else differ
        if composition.sha256() in same or composition.sha256() in differ:
            raise Refused(f"composition {composition.sha256()} was given twice")
        target.append(composition.sha256())
    return same, differ


def _result(
    commitment: DatasetCommitment,
    source: Literal["digests", "data"],
    records: str,
    problem: str | None,
    same: Sequence[str] = (),
    differ: Sequence[str] = (),
) -> DataAudit:
    value: dict[str, Any] = {
        "version": "pot/data-audit/v1",
        "commitment_sha256": commitment.sha256(),
        "source": source,
        "records": records,
        "outcome": "MATCH" if problem is None else "MISMATCH",
    }
    if problem is not None:
        value["detail"] = problem[:MAX_AUDIT_DETAIL]
    if same:
        value["compositions"] = list(same)
    if differ:
        value["compositions_differ"] = list(differ)
    return DataAudit.from_value(value, what="data audit")
