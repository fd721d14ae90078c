"""What exclusions and inclusions share in step 10: the named set itself, and the training data's other commitments.

Spec: `specs/verification.md`, step 10. A proof may be against a dataset that the run pre-committed, or against another
commitment to the same files that sees them through the set's view. That the second one is what its view makes of these
files is the developer's word until an auditor makes it again (`view-tie`).

Shows: the set is what names it; the other commitment lists the files of a pre-committed one, as many records left out.
Does not show: that the other commitment's roots are those of these files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from attest.verdict.case import Case
from attest.verdict.findings import Link, clean, weakest, worst
from pot.canonical import sha256_hex
from pot.commitments.dataset import NEEDS, DatasetCommitment, Reading, check_digests
from pot.commitments.listing import keyless
from pot.errors import PotError
from pot.recording.precommit import CommittedData

__all__ = [
    "check_same_shards",
    "check_set",
    "field_names",
    "field_words",
    "left_out",
    "links_since",
    "other_fields",
    "united_fields",
]

_MAX_FIELD_WORDS = 600


def check_set(
    case: Case, role: Literal["exclusion", "inclusion"], name: str, sha256: str, digests_sha256: Sequence[str]
) -> tuple[DatasetCommitment | None, bytes | None]:
    """X or Y itself: its commitment, and the listing that gives both of its roots. Writes `ROLE-set`."""
    code, subject = f"{role}-set", f"{role} set {name}"
    data = case.object(code, sha256, f"the {role} set's commitment")
    digests = case.object(code, digests_sha256[0], f"the {role} set's digest list")
    if len(set(digests_sha256)) != 1:
        case.ledger.failed(code, subject, "two claims name different digest lists for the same set")
        return None, None
    if data is None:
        return None, None
    try:
        commitment = DatasetCommitment.from_bytes(data, what=f"{role} commitment")
        if commitment.role != role or int(commitment.records.count) == 0:
            empty = "leaving nothing out shows nothing" if role == "exclusion" else "nothing that is in shows nothing"
            case.ledger.failed(
                code,
                subject,
                f"not an {role} set with records; {empty}",
                expected=f"role {role}, at least 1 record",
                found=f"role {commitment.role}, {commitment.records.count} records",
            )
            return None, None
        if digests is None:
            return commitment, None
        check_digests(commitment, digests)
    except PotError as error:
        case.ledger.failed(code, subject, str(error))
        return None, None
    words = f"{commitment.records.count} records, view {commitment.view}; digests give both roots"
    for more in (left_out([commitment]), _too_short(commitment, digests)):
        words += f"; {more}" if more else ""
    case.ledger.passed(code, subject, words)
    return commitment, digests


def _too_short(commitment: DatasetCommitment, listing: bytes) -> str:
    none = keyless(int(commitment.records.count), commitment.gram, listing)
    return f"{none} of its records are too short for a key, and are not compared" if none else ""


def check_same_shards(case: Case, sha256: str) -> tuple[DatasetCommitment | None, list[str]]:
    """A commitment that the run did not pre-commit, and the digests of the pre-committed ones with the same files.

    Writes `same-shards`, and `Case.other_views` and `.same_shards` where it holds. Nothing is returned where not.
    """
    subject = f"object {sha256}"
    data = case.object("same-shards", sha256, "a commitment to the training data under another view")
    if data is None or case.precommit is None:
        return None, []
    try:
        other = DatasetCommitment.from_bytes(data, what="commitment under another view")
    except PotError as error:
        case.ledger.failed("same-shards", subject, str(error))
        return None, []
    problem = None
    if other.role != "training":
        problem = f"its role is {other.role}, not training"
    elif not _lists_files(other):
        problem = "it lists no files, so nothing ties it to the data that the run pre-committed"
    if problem is not None:
        case.ledger.failed("same-shards", subject, f"a proof is against this commitment, but {problem}")
        return None, []
    return _matching(case, other, sha256, case.precommit.data)


def _matching(
    case: Case, other: DatasetCommitment, sha256: str, data: Sequence[CommittedData]
) -> tuple[DatasetCommitment | None, list[str]]:
    subject = f"object {sha256}"
    matched: list[str] = []
    reasons: list[str] = []
    for item in data:
        promised = case.commitments.get(item.commitment_sha256)
        reason = "is not at hand" if promised is None else _difference(promised, other)
        if reason is None:
            matched.append(item.commitment_sha256)
        else:
            reasons.append(f"{item.name} {reason}")
    if matched:
        case.other_views[sha256] = other
        case.same_shards[sha256] = matched
        names = ", ".join(item.name for item in data if item.commitment_sha256 in matched)
        words = f"lists the {len(other.shards)} files of dataset {names}, seen through {other.view}"
        counts = {case.commitments[own].records.count for own in matched} | {other.records.count}
        if len(counts) > 1:  # a container may be read in several ways, and an auditor should look at that
            words += f", as {other.records.count} records where the dataset has others"
        case.ledger.passed("same-shards", subject, words)
        return other, matched
    detail = f"a proof is against data that the run did not pre-commit: {'; '.join(reasons)}"
    if any(item.commitment_sha256 not in case.commitments for item in data):
        case.ledger.not_checked("same-shards", subject, detail)
    else:
        case.ledger.failed("same-shards", subject, detail)
    return None, []


def _difference(promised: DatasetCommitment, other: DatasetCommitment) -> str | None:
    """Why `other` is not about the files of `promised`; None if it is."""
    if not _lists_files(promised):
        return "lists no files"
    ours, theirs = ([(s.bytes, s.sha256, s.blake3) for s in c.shards] for c in (promised, other))
    if ours != theirs:
        place = next((n for n, pair in enumerate(zip(ours, theirs, strict=False), 1) if pair[0] != pair[1]), None)
        return f"has {len(ours)} files, not {len(theirs)}" if place is None else f"has another file {place}"
    if _container(promised) != _container(other):  # JSON lines taken as plain files would share no text with X
        return f"is read as {_container(promised)}, not as {_container(other)}"
    need, theirs_too = NEEDS.get(promised.view), NEEDS.get(other.view)
    if need == theirs_too and promised.source_field != other.source_field:
        return f"is about the field {promised.source_field[:64]!r}, not {other.source_field[:64]!r}"
    same_sight = (promised.view, promised.hiding, promised.reading) == (other.view, other.hiding, other.reading)
    if not same_sight and (_counts(promised), _counts(other)) != ((0, 0), (0, 0)):
        return "leaves out records that could not be read; which ones another view leaves out cannot be compared"
    if same_sight and (promised.records, promised.set) != (other.records, other.set):
        return "has other roots for the same files in the same view"
    return None


def _lists_files(commitment: DatasetCommitment) -> bool:
    """A commitment to a program's own data set lists none; two empty lists of files would be the same list."""
    return bool(commitment.shards)


def _container(commitment: DatasetCommitment) -> str:
    """How it was read; where each file is one record, whatever that is called."""
    return "file" if commitment.container in ("file", "text", "images") else commitment.container


def _counts(commitment: DatasetCommitment) -> tuple[int, int]:
    reading = commitment.reading or Reading()
    return int(reading.skipped or "0"), int(reading.cut or "0")


def left_out(commitments: Iterable[DatasetCommitment]) -> str:
    """How many records could not be read, in words; empty where all could."""
    counts = [_counts(commitment) for commitment in commitments]
    skipped, cut = sum(count[0] for count in counts), sum(count[1] for count in counts)
    words = [f"{skipped} records"] if skipped else []
    words += [f"the rest of {cut} files"] if cut else []
    return f"{' and '.join(words)} could not be read and are not covered" if words else ""


def field_words(names: Iterable[str]) -> str | None:
    """Field names as one text that no other names give; None for none. Names that could mislead are escaped."""
    found = sorted(set(names))
    if not found:
        return None
    if len(found) == 1 and found[0] == clean(found[0]) and not found[0].startswith(("[", "sha256:")):
        return found[0]
    words = json.dumps(found)
    return words if len(words) <= _MAX_FIELD_WORDS else f"sha256:{sha256_hex(words.encode())}"


def united_fields(words: Iterable[str | None]) -> str | None:
    """Of several texts that `field_words` gave, the one that stands for all their names."""
    found = {word for word in words if word is not None}
    if len(found) <= 1:
        return next(iter(found), None)
    names: set[str] = set()
    for word in found:
        names.update(json.loads(word) if word.startswith("[") else [word])
    return field_words(names)


def field_names(commitments: Iterable[DatasetCommitment]) -> set[str]:
    """As what the training data calls what the views saw, where that is not the views' own name."""
    return {c.source_field for c in commitments if c.source_field != NEEDS.get(c.view, c.source_field)}


def other_fields(case: Case, sha256: str) -> set[str]:
    """Fields that a policy must know of, where a commitment sees another field than the run was committed to.

    A run on tokens or images says nothing about a column of text beside them. A run that was committed to whole records
    was committed to every field of them; where a file is a record, there are no fields.
    """
    other = case.other_views[sha256]
    found: set[str] = set()
    for own in (case.commitments[item] for item in case.same_shards[sha256]):
        need, theirs = NEEDS.get(own.view, "object"), NEEDS.get(other.view, "object")
        found |= field_names([own])
        if need not in ("object", theirs) and _container(own) != "file":
            found.add(other.source_field)
    return found


def links_since(case: Case, start: int, codes: Iterable[str]) -> list[Link]:
    """One link for each code, from the findings that were written since `start`."""
    links = []
    for code in codes:
        mine = [finding for finding in case.ledger.findings[start:] if finding.code == code]
        status = worst(finding.status for finding in mine) if mine else "not_checked"
        level = weakest(f.level or "declared" for f in mine) if mine else "declared"
        detail = next((f.detail for f in mine if f.status == status), "not reached")
        links.append(Link(code=code, status=status, level=level if status == "passed" else "declared", detail=detail))
    return links
