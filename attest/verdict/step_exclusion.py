"""Step 11: that proven steps read no record of X. Their batches are opened, record by record.

Spec: `specs/verification.md`, step 11; `specs/openings.md`. The opened records give the batch that the
step proof is about, stand in the committed data where seed and order put them, and are compared with X's digest list.
Neither auditor nor data is needed; whoever has the release bundle can read these records.

Shows: none of the opened steps read a record that X holds, seen through X's view.
Does not show: anything about steps that are not listed, or about what else a record holds that the view does not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attest.predicate import OpenedStep, StepExclusion
from attest.verdict.case import Case, ProvenSteps
from attest.verdict.findings import weakest, worst
from attest.verdict.report import ClaimReport, ExclusionSet
from attest.verdict.sentences import Proven, step_exclusion_sentence
from attest.verdict.sets import check_set, field_names, field_words, links_since
from attest.verdict.step_states import PointMaker, same_points
from pot.commitments.dataset import DatasetCommitment, split_digests
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.errors import PotError, Refused
from pot.recording.precommit import total_records
from pot.recording.transcript import StartEvent, StepEvent

if TYPE_CHECKING:
    from pot.zk.circuits.field import Vector
    from pot.zk.kit import VerifyingKit

__all__ = ["check_step_exclusions"]

_CODES: Final = ("exclusion-set", "batch-opening", "step-absence")


@dataclass
class _Batch:
    """An opened batch: its records, the dataset and the digest under its own view of each, and its vectors."""

    subject: str
    records: list[dict[str, Any]]
    places: list[tuple[int, bytes]]
    point: str
    vectors: list[Vector]


def check_step_exclusions(case: Case, points: PointMaker, events: dict[str, StepEvent]) -> list[ClaimReport]:
    """One claim for each exclusion set, with the links that step 11 decides. Fills `case.opened`."""
    return [
        _check_claim(case, claim, points, events)
        for claim in case.certificate.claims
        if isinstance(claim, StepExclusion)
    ]


def _check_claim(case: Case, claim: StepExclusion, points: PointMaker, events: dict[str, StepEvent]) -> ClaimReport:
    start = len(case.ledger.findings)
    x, listing = check_set(case, "exclusion", claim.name, claim.exclusion_sha256, [claim.digests_sha256])
    proven = case.proven.get(claim.circuit_sha256)
    data = _committed(case)
    batches = _opened(case, claim, proven, data, points, events)
    unseen: list[str] = []
    if proven is not None and proven.kit is not None and data and len(batches) == len(claim.steps):
        unseen = _check_absence(case, claim, proven.kit, data, batches, x, listing)
    else:
        case.ledger.not_checked("step-absence", f"exclusion set {claim.name}", "not all batches are opened")
    links = [*(proven.links if proven is not None else ()), *links_since(case, start, _CODES)]
    named, sentence = None, "X is not at hand"
    if x is not None:
        fields = field_words(field_names([item for item in data if item.view == x.view]))
        named = ExclusionSet(
            view=x.view,
            records=x.records.count,
            root_blake3=x.records.root_blake3,
            field=fields,
            hiding=x.hiding,
        )
        kit = proven.kit if proven is not None else None
        shown = Proven(
            len({item.step for item in claim.steps} & events.keys()), len(events),
            slack=0 if kit is None else kit.slack, auto=kit is not None and kit.circuit.family == "auto",
        )  # fmt: skip
        sentence = step_exclusion_sentence(x.view, shown, unseen=unseen, fields=fields)
    return ClaimReport(
        certificate_sha256=case.sha256,
        type="step-exclusion",
        sentence=sentence,
        name=claim.name,
        exclusion=named,
        training=[item.sha256() for item in data],
        steps=[item.step for item in claim.steps],
        every_step={item.step for item in claim.steps} == events.keys() != set(),
        status=worst(link.status for link in links),
        level=weakest(link.level for link in links),
        links=links,
    )


def _committed(case: Case) -> list[DatasetCommitment]:
    """The commitments of all of the run's datasets, in order; empty where one is missing."""
    promised = case.precommit.data if case.precommit is not None else ()
    found = [case.commitments.get(item.commitment_sha256) for item in promised]
    return [item for item in found if item is not None] if all(found) else []


def _opened(
    case: Case, claim: StepExclusion, proven: ProvenSteps | None, data: list[DatasetCommitment], points: PointMaker,
    events: dict[str, StepEvent],
) -> list[_Batch]:  # fmt: skip
    """The batches whose openings hold. Writes `batch-opening`."""
    if len({item.step for item in claim.steps}) != len(claim.steps):
        case.ledger.failed("batch-opening", "opened steps", "a step is listed twice")
        return []
    listed = {step.step for other in case.certificate.claims if other.type == "steps-proven" for step in other.steps
              if other.circuit_sha256 == claim.circuit_sha256}  # fmt: skip
    batches: list[_Batch] = []
    for item in claim.steps:
        subject = f"step {item.step}"
        opening = case.object("batch-opening", item.opening_sha256, f"the opening of the batch of step {item.step}")
        if item.step not in listed:
            detail = "the certificate lists no step proof of this step under this circuit"
            case.ledger.failed("batch-opening", subject, detail)
        elif opening is None:
            continue
        elif proven is None or proven.kit is None or item.step not in proven.steps:
            case.ledger.not_checked("batch-opening", subject, "its step proof is not known to hold")
        elif not data:
            case.ledger.not_checked("batch-opening", subject, "a commitment of the run's data is missing")
        else:
            found = _batch(case, item, claim, proven.kit, data, opening, events)
            batches += [found] if found is not None else []
    if proven is None or proven.kit is None or not batches:
        return []
    wanted = [(batch.subject, batch.point, batch.vectors) for batch in batches]
    good = same_points(case, "batch-opening", proven.kit, points, wanted)
    for batch in batches:
        if batch.subject in good:
            detail = f"{len(batch.records)} records give its batch, and stand where seed and order put them"
            case.ledger.passed("batch-opening", batch.subject, detail)
            case.opened.add(batch.subject.removeprefix("step "))
    return [batch for batch in batches if batch.subject in good]


def _batch(
    case: Case, item: OpenedStep, claim: StepExclusion, kit: VerifyingKit, data: list[DatasetCommitment],
    opening_bytes: bytes, events: dict[str, StepEvent],
) -> _Batch | None:  # fmt: skip
    from pot.zk.opening_verify import check_fields, given_blinds, read_batch_opening, record_digests, records_of

    subject, event = f"step {item.step}", events.get(item.step)
    indices = _indices(case, int(item.step))
    if event is None or event.points is None or indices is None:
        detail = "seed and order do not say which records this step took, or there is no point for its batch"
        case.ledger.not_checked("batch-opening", subject, detail)
        return None
    try:
        opening = read_batch_opening(opening_bytes)
        wanted = (case.certificate.run.precommit_sha256, claim.circuit_sha256, item.step)
        if (opening.precommit_sha256, opening.circuit_sha256, opening.step) != wanted:
            raise Refused(f"the opening is of another run, of another circuit, or of step {opening.step}")
        records = records_of(opening)
        check_fields(kit.step, data, records)
        places = record_digests(data, indices, records, opening)
        family = kit.family
        vectors = family.batch_vectors(kit.layout, family.batch_arrays(records), given_blinds(opening))
    except PotError as error:
        case.ledger.failed("batch-opening", subject, str(error))
        return None
    return _Batch(subject, records, places, event.points.batch, vectors)


def _indices(case: Case, step: int) -> list[int] | None:
    """The records that seed and order give for a step; None where no seed fixes them."""
    start = case.transcript.events[0] if case.transcript and case.transcript.events else None
    if case.precommit is None or not isinstance(start, StartEvent) or case.precommit.order.method != "feistel/1":
        return None
    seed = run_seed(case.certificate.run.precommit_sha256, bytes.fromhex(start.nonce))
    records: Sequence[int] = batch_records(seed, total_records(case.precommit), int(case.precommit.order.batch), step)[
        2
    ]
    return list(records)


def _check_absence(
    case: Case, claim: StepExclusion, kit: VerifyingKit, data: list[DatasetCommitment], batches: list[_Batch],
    x: DatasetCommitment | None, listing: bytes | None,
) -> list[str]:  # fmt: skip
    """Compare every opened record with X. Writes `step-absence`; returns the fields that X's view does not see."""
    from pot.zk.opening_verify import seen_through, unseen_fields

    subject = f"exclusion set {claim.name}"
    if x is None or listing is None:
        case.ledger.not_checked("step-absence", subject, "the exclusion set or its digest list is missing or false")
        return []
    inside = set(split_digests(listing))
    unseen: list[str] = []
    try:
        for number in sorted({number for batch in batches for number, _ in batch.places}):
            unseen += unseen_fields(kit.step, data[number], x)
        for batch in batches:
            for at, ((number, digest), value) in enumerate(zip(batch.places, batch.records, strict=True)):
                if seen_through(data[number], x, digest, value) in inside:
                    detail = f"record {at} of its batch is in the exclusion set"
                    case.ledger.failed("step-absence", batch.subject, detail)
                    return []
    except PotError as error:
        case.ledger.failed("step-absence", subject, str(error))
        return []
    count = sum(len(batch.records) for batch in batches)
    detail = f"none of the {count} records of {len(batches)} opened batches is among {x.records.count}, view {x.view}"
    case.ledger.passed("step-absence", subject, detail)
    return sorted(set(unseen))
