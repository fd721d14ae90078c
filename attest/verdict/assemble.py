"""From judged certificates to the report: gathers, orders and words; decides nothing.

Spec: `specs/verification.md`, "Report". Order is fixed (steps, then generations, then the ledger's order), so that the
same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from attest.bundle import ReleaseBundle
from attest.predicate import NON_CLAIMS
from attest.verdict.audits import unreferenced_audits
from attest.verdict.case import Case
from attest.verdict.codes import NOT_SHOWN, STEPS
from attest.verdict.collection import Collection
from attest.verdict.data_ties import unreferenced_data_audits
from attest.verdict.findings import Finding, Ledger, Status, clean, worst
from attest.verdict.policy import Policy
from attest.verdict.report import (
    Ancestor,
    NotShown,
    Report,
    ReportedCertificate,
    ReportedModel,
    ReportedPolicy,
    RequirementResult,
    StepResult,
    Verdict,
)
from attest.verdict.timeline import timeline_of
from pot import __version__

__all__ = ["NO_POLICY", "Frame", "Judged", "by_step", "family", "report_of", "report_without_certificate"]

NO_POLICY: Final = (
    "no policy was given, so nobody's identity was checked and nothing was required: pass --policy POLICY.yaml"
)
_MAX_NOTES: Final = 200  # a reader needs a few; a hostile bundle must not make a report of gigabytes
_ALWAYS: Final = ("time-and-log", "revocation")


@dataclass(frozen=True)
class Frame:
    """What a report says whatever the verdict is."""

    release: ReleaseBundle
    policy: Policy | None
    collection: Collection
    model_sha256: str
    time: str


@dataclass
class Judged:
    """One candidate certificate with its verdict."""

    case: Case
    verdict: Verdict
    reason: str
    requirements: list[RequirementResult]
    decision: Ledger


def family(case: Case) -> list[tuple[int, Case]]:
    """The case and its ancestors, nearest first, each once, with their depth."""
    result, level, depth, seen = [(0, case)], [case], 0, {case.sha256}
    while level:
        depth += 1
        above: list[Case] = []
        for child in level:
            for parent in child.parents:
                if parent.sha256 not in seen:
                    seen.add(parent.sha256)
                    above.append(parent)
        result += [(depth, parent) for parent in above]
        level = above
    return result


def by_step(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the order of the procedure; those of one step in the order in which they were made."""
    return sorted(findings, key=lambda finding: int(finding.spec))


def report_of(frame: Frame, judged: list[Judged]) -> Report:
    """The report on the best candidate, with notes on the others."""
    best = judged[0]
    members = family(best.case)
    read = Ledger()
    read.passed(
        "release-bundle", frame.release.name, f"{len(frame.release.files)} files, {len(frame.release.lines)} lines"
    )
    findings = (
        read.findings + [f for _, case in members for f in by_step(case.ledger.findings)] + best.decision.findings
    )
    certified = best.case.certified
    return Report(
        version="pot/report/v1",
        verifier=f"pot-attest {__version__}",
        time=frame.time,
        verdict=best.verdict,
        reason=best.reason,
        model=_model(frame),
        certificate=ReportedCertificate(
            certificate_sha256=certified.sha256,
            model=clean(certified.certificate.model.name),
            model_sha256=certified.statement.subject_sha256,
            signer=certified.signer,
            stage=certified.certificate.stage,
            semantics=certified.certificate.run.semantics,
        ),
        policy=_policy(frame, best.requirements),
        claims=[claim for _, case in members for claim in case.claims],
        lineage=_lineage(members),
        timelines=[timeline for _, case in members if (timeline := timeline_of(case)) is not None],
        steps=_steps(findings),
        findings=findings,
        notes=_notes(frame, judged),
        not_shown=_not_shown(case for _, case in members),
    )


def report_without_certificate(frame: Frame) -> Report:
    """The report where nobody who counts has signed a certificate."""
    ledger = Ledger()
    ledger.passed(
        "release-bundle", frame.release.name, f"{len(frame.release.files)} files, {len(frame.release.lines)} lines"
    )
    detail = "no line of claims.jsonl holds a training certificate signed by an accepted developer"
    if frame.policy is None:
        detail = "no line of claims.jsonl holds a training certificate"
        ledger.not_checked("policy", "policy", NO_POLICY)
    ledger.not_checked("identity", "claims.jsonl", detail)
    findings = by_step([*ledger.findings, *frame.collection.broken])
    failed = [finding for finding in findings if finding.status == "failed"]
    return Report(
        version="pot/report/v1",
        verifier=f"pot-attest {__version__}",
        time=frame.time,
        verdict="DENY" if failed else "INCOMPLETE",
        reason=f"step {failed[0].spec}, {failed[0].code}: {failed[0].detail}" if failed else detail,
        model=_model(frame),
        policy=_policy(frame, []),
        claims=[],
        lineage=[],
        timelines=[],
        steps=_steps(findings),
        findings=findings,
        notes=_notes(frame, []),
        not_shown=_not_shown(()),
    )


def _model(frame: Frame) -> ReportedModel:
    return ReportedModel(
        name=clean(frame.release.name), model_sha256=frame.model_sha256, files=str(len(frame.release.files))
    )


def _policy(frame: Frame, requirements: list[RequirementResult]) -> ReportedPolicy | None:
    return (
        None if frame.policy is None else ReportedPolicy(policy_sha256=frame.policy.sha256, requirements=requirements)
    )


def _lineage(members: list[tuple[int, Case]]) -> list[Ancestor]:
    """Every model of the lineage, and the parents that a certificate names but that are not there."""
    result: list[Ancestor] = []
    known = {case.sha256 for _, case in members}
    for depth, case in members:
        certificate, precommit = case.certificate, case.precommit
        operation = precommit.parent.operation if precommit is not None and precommit.parent is not None else None
        statuses = [claim.status for claim in case.claims]
        result.append(
            Ancestor(
                depth=str(depth),
                certificate_sha256=case.sha256,
                model=clean(certificate.model.name),
                model_sha256=case.certified.statement.subject_sha256,
                signer=case.certified.signer,
                stage=certificate.stage,
                semantics=certificate.run.semantics,
                operation=operation,
                status=worst(statuses) if statuses else "not_checked",
            )
        )
        for parent in certificate.inputs.parents:
            if parent.certificate_sha256 not in known:
                known.add(parent.certificate_sha256)
                result.append(
                    Ancestor(
                        depth=str(depth + 1),
                        certificate_sha256=parent.certificate_sha256,
                        model_sha256=parent.model_sha256,
                        status="not_checked",
                    )
                )
    return result


def _steps(findings: list[Finding]) -> list[StepResult]:
    result = []
    for number, title in STEPS.items():
        mine = [finding for finding in findings if finding.spec == str(number)]
        status: Status = worst(finding.status for finding in mine) if mine else "not_checked"
        worst_one = next((finding for finding in mine if finding.status == status), None)
        if worst_one is None:
            summary = "no claim of this kind" if number in (10, 11) else "nothing to check"
            summary = "no parents" if number == 13 else summary
        elif status == "passed":
            summary = worst_one.detail if len(mine) == 1 else f"{len(mine)} checks passed"
        else:
            summary = worst_one.detail
        result.append(StepResult(number=str(number), title=title, status=status, summary=summary))
    return result


def _notes(frame: Frame, judged: list[Judged]) -> list[Finding]:
    """What counts for nothing, and is said all the same."""
    notes = Ledger(list(frame.collection.notes))
    used: set[str] = set()
    objects: set[str] = set()
    for item in judged:
        for _, case in family(item.case):
            used |= {case.sha256, *case.certificate.audits}
            objects |= case.referenced
            left = [*unreferenced_audits(case, frame.collection), *unreferenced_data_audits(case, frame.collection)]
            notes.findings += [note for note in left if note not in notes.findings]
    if judged:
        notes.findings += [finding.model_copy(update={"status": "not_checked"}) for finding in frame.collection.broken]
    for item in judged[1:]:
        notes.not_checked("candidate", f"certificate {item.case.sha256[:16]}", f"{item.verdict}: {item.reason}")
    statements = {*frame.collection.certificates, *frame.collection.audits, *frame.collection.data_audits}
    for sha256 in sorted(statements - used):
        notes.not_checked("unreferenced", f"statement {sha256}", "nothing refers to it; it neither helps nor harms")
    for sha256 in sorted(set(frame.release.objects) - objects):
        notes.not_checked("unreferenced", f"object {sha256}", "nothing refers to it; it neither helps nor harms")
    if len(notes.findings) > _MAX_NOTES:
        more = len(notes.findings) - _MAX_NOTES
        del notes.findings[_MAX_NOTES:]
        notes.not_checked("unreferenced", "further notes", f"{more} more are left out")
    return notes.findings


def _not_shown(cases: Iterable[Case]) -> list[NotShown]:
    codes = {*NON_CLAIMS, *_ALWAYS}
    for case in cases:
        codes |= case.not_shown
        codes |= {code for code in case.certificate.non_claims if code in NOT_SHOWN}
    return [NotShown(code=code, sentence=sentence) for code, sentence in NOT_SHOWN.items() if code in codes]
