"""A run's timeline for its reader: which steps were committed, replayed, proven or lost, and what that is worth.

Spec: `specs/verification.md`, "Report". Nothing is decided here: ranges come from the checked chain, from accepted
audits and from step proofs that passed; the sentence on detection is that of the finding `replay-coverage`.

Shows: how much of the run anybody looked at. Does not show: anything about the steps in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attest.verdict.case import Case
from attest.verdict.collection import Audited
from attest.verdict.coverage import all_units, percent, segments_of
from attest.verdict.findings import Status, clean, worst
from attest.verdict.report import Detection, ReportedHint, Span, Timeline

__all__ = ["MAX_HINTS", "MAX_SPANS", "timeline_of"]

MAX_SPANS: Final = 512  # of each kind: what a page can draw
MAX_HINTS: Final = 16
_ASSUMED: Final = (
    "The prover did not know what would be drawn when it fixed the transcript.",
    "The auditors are honest and who they say; a prover may have shown the best of several audits.",
    "Forged units are at least as many as stated: a single forged one can hide among those that nobody replayed.",
)


def timeline_of(case: Case) -> Timeline | None:
    """The timeline of a certificate's run; None where there is no chain to draw."""
    if case.chain is None or not case.chain.segments:
        return None
    segments = case.chain.segments
    replayed: set[int] = set().union(*(segments_of(case, audit) for audit in case.audits))
    whole = [(segments[number - 1].first, segments[number - 1].last) for number in sorted(replayed)]
    spans, left_out = _spans(whole)
    proven, more = _spans((step, step) for step in _proven(case))
    return Timeline(
        certificate_sha256=case.sha256,
        steps=str(segments[-1].last),
        segments=str(len(segments)),
        ends=[str(segment.last) for segment in segments] if len(segments) <= MAX_SPANS else [],
        replayed=spans,
        mismatched=_spans(_mismatched(case))[0],
        proven=proven,
        gaps=[str(gap.step) for gap in case.chain.gaps[:MAX_SPANS]],
        left_out=str(left_out + more) if left_out + more else None,
        detection=_detection(case),
        hints=_hints(case.audits),
    )


def _spans(ranges: Iterable[tuple[int, int]]) -> tuple[list[Span], int]:
    """Neighbouring ranges joined, and how many are left out above the limit."""
    joined: list[list[int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    return [Span(first=str(a), last=str(b)) for a, b in joined[:MAX_SPANS]], max(0, len(joined) - MAX_SPANS)


def _proven(case: Case) -> list[int]:
    """Steps in claims of step proofs that hold."""
    return [int(step) for claim in case.claims if claim.status == "passed" for step in claim.steps or ()]


def _mismatched(case: Case) -> Iterable[tuple[int, int]]:
    """The segments in which an accepted auditor found another state."""
    segments = case.chain.segments if case.chain is not None else ()
    for audit in case.audits:
        for unit in all_units(audit):
            number = int(unit.unit_number)
            if unit.outcome != "MISMATCH":
                continue
            if audit.result.challenge.unit == "step":
                yield from ((s.first, s.last) for s in segments if s.first <= number <= s.last)
            elif 1 <= number <= len(segments):
                yield segments[number - 1].first, segments[number - 1].last


def _detection(case: Case) -> Detection:
    found = [finding for finding in case.ledger.findings if finding.code == "replay-coverage"]
    status: Status = worst(f.status for f in found) if found else "not_checked"
    if status == "not_checked" and any(f.status == "passed" for f in found):  # of several audits, one is enough
        status = "passed"
    detail = next((finding.detail for finding in found if finding.status == status), "nobody replayed anything")
    one = f"a draw that counts would meet one forged segment with {percent(case.one_forged)}"
    one = "every segment was replayed" if case.one_forged == 1 else one
    return Detection(
        status=status,
        sentence=detail,
        one_forged=one,
        assumed=list(_ASSUMED),
    )


def _hints(audits: Iterable[Audited]) -> list[ReportedHint]:
    """Statistical tests that accepted auditors signed."""
    found = []
    for audit in audits:
        for hint in audit.result.hints or ():
            findings = hint.memorization or hint.canaries
            if findings is None or hint.transcript_sha256 != audit.result.transcript_sha256:
                continue
            if hint.memorization is not None:
                told = hint.memorization
                what = f"{told.question} records of {told.tested} segments against {told.control} ones"
                sentence = f"memorization: {what}, mean AUC {told.mean_auc}"
            elif hint.canaries is not None:
                what = f"{hint.canaries.planted} planted among {hint.canaries.candidates}"
                sentence = f"canaries: {what}, AUC {hint.canaries.auc}, rank probability {hint.canaries.p}"
            found.append(
                ReportedHint(
                    auditor=clean(audit.auditor or ""),
                    kind=hint.kind,
                    status=hint.status,
                    sentence=sentence,
                    roc=[[point.false, point.true] for point in findings.roc],
                )
            )
    return found[:MAX_HINTS]
