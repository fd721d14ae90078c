"""Step 12: what accepted auditors found, whether their challenge was a real one, and how much it covers, exactly.

Spec: `specs/verification.md`, step 12. An audit counts if the certificate refers to it, an accepted auditor signed it,
it is about this pre-commitment and transcript, and its challenge recomputes from the transcript and a verifier's nonce
over the whole run. Probabilities are hypergeometric, in exact fractions, computed here and never taken from anybody.
One audit must meet the policy's coverage alone: a prover may show the best of several.

Shows: an accepted auditor executed the drawn units again and got the same states.
Does not show: that units outside the draw do the same, beyond the probability; that no other audit was left out.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from attest.predicate import StepsProven
from attest.verdict.case import Case
from attest.verdict.collection import Audited, Collection
from attest.verdict.data_ties import check_data_ties, gather_data_audit
from attest.verdict.findings import Finding, Ledger
from attest.verdict.policy import Policy
from pot.audit.challenge import check_challenge, detection
from pot.errors import PotError

__all__ = ["check_audits", "check_coverage", "gather_audits", "percent", "unreferenced_audits"]


def gather_audits(case: Case, collection: Collection) -> None:
    """Find the audits that the certificate refers to, keep those about this run or data. Writes `audit`, `auditor`."""
    for sha256 in case.certificate.audits:
        subject = f"audit {sha256[:16]}"
        audit, data_audit = collection.audits.get(sha256), collection.data_audits.get(sha256)
        if data_audit is not None:
            gather_data_audit(case, data_audit)
            continue
        if audit is None:
            case.ledger.not_checked("audit", subject, f"no line of claims.jsonl holds the audit {sha256}")
            continue
        problem = _binding_problem(case, audit)
        if problem is not None:
            case.ledger.failed("audit", subject, *problem)
            continue
        case.ledger.passed("audit", subject, "there, well formed, and about this pre-commitment and transcript")
        case.all_audits.append(audit)
        if audit.auditor is None:
            case.ledger.not_checked("auditor", subject, "not signed by an accepted auditor: it adds to no level")
            continue
        case.ledger.passed("auditor", subject, f"signed by {audit.auditor}", level="audited")
        case.audits.append(audit)


def _binding_problem(case: Case, audit: Audited) -> tuple[str, str, str] | None:
    run, result = case.certificate.run, audit.result
    pairs = (
        ("its subject is not this run's transcript", run.transcript_sha256, audit.statement.subject_sha256),
        ("it is about another transcript", run.transcript_sha256, result.transcript_sha256),
        ("it is about another pre-commitment", run.precommit_sha256, result.precommit_sha256),
        ("its challenge is over another transcript", run.transcript_sha256, result.challenge.transcript_sha256),
        ("its challenge is over another pre-commitment", run.precommit_sha256, result.challenge.precommit_sha256),
    )
    return next(((detail, expected, found) for detail, expected, found in pairs if expected != found), None)


def check_audits(case: Case, policy: Policy | None) -> None:
    """Judge the accepted audits. Writes `challenge`, `replay`, `replay-coverage`, `segment-length`, all ties."""
    _check_segments(case, policy)
    shortfalls: list[tuple[str, str]] = []
    for audit in case.audits:
        honest = _check_outcomes(case, audit)
        if _check_challenge(case, audit) and honest:
            shortfalls += _check_replays(case, audit, policy)
    if case.ledger.status("replay-coverage") != "passed":  # one audit that covers enough is enough
        for subject, detail in shortfalls:
            case.ledger.not_checked("replay-coverage", subject, detail)
    for code in ("replay", "replay-coverage"):
        if not any(finding.code == code for finding in case.ledger.findings):
            case.ledger.not_checked(code, "run", "no accepted auditor replayed what a verifier drew")
    if not any(_everything(audit) for audit in case.audits):
        case.not_shown.add("unaudited-steps")
    check_data_ties(case)
    _check_points_tie(case)
    if case.audits:
        case.not_shown.add("selected-audits")


def _check_segments(case: Case, policy: Policy | None) -> None:
    limit = policy.segment_limit if policy else None
    if limit is None or case.chain is None:
        return
    for segment in case.chain.segments:
        length = segment.last - segment.first + 1
        if length > limit:
            case.ledger.failed(
                "segment-length",
                f"segment {segment.index}",
                "the segment is longer than the policy allows",
                expected=f"at most {limit} steps",
                found=f"{length} steps",
            )
            return
    case.ledger.passed("segment-length", "run", f"no segment is longer than {limit} steps")


def _population(case: Case, unit: str) -> int:
    if case.chain is None:
        return 0
    if unit == "segment":
        return len(case.chain.segments)
    return sum(len(segment.steps) for segment in case.chain.segments)


def _check_challenge(case: Case, audit: Audited) -> bool:
    """Whether the challenge is one that the prover could not choose."""
    challenge, subject = audit.result.challenge, f"audit {audit.sha256[:16]}"
    if case.transcript is None or case.chain is None:
        case.ledger.not_checked("challenge", subject, "there is no transcript to draw from")
        return False
    run = case.certificate.run
    segments, steps = _population(case, "segment"), _population(case, "step")
    try:
        check_challenge(challenge, run.precommit_sha256, run.transcript_sha256, segments, steps)
    except PotError as error:
        case.ledger.failed("challenge", subject, str(error))
        return False
    if challenge.nonce_source != "verifier":
        case.ledger.not_checked("replay-coverage", subject, "the prover chose the nonce: its challenge covers nothing")
        return False
    case.challenges.append(challenge)
    case.ledger.passed(
        "challenge",
        subject,
        f"{len(challenge.chosen)} of {challenge.population} {challenge.unit}s drawn by a verifier",
        "audited",
    )
    return True


def _check_outcomes(case: Case, audit: Audited) -> bool:
    """Refuse every mismatch, whoever chose the unit. Whether the replays hold no contradiction and no mismatch."""
    unit, subject = audit.result.challenge.unit, f"audit {audit.sha256[:16]}"
    numbers = [replay.unit_number for replay in audit.result.replays]
    if len(set(numbers)) != len(numbers):
        case.ledger.failed("replay", subject, f"a {unit} is reported twice")
        return False
    bad = [number for number, outcome in _outcomes(audit).items() if outcome == "MISMATCH"]
    for number in bad:
        detail = f"{audit.auditor} executed it and got another state"
        case.ledger.failed("replay", f"{unit} {number}", detail, expected="MATCH", found="MISMATCH")
    return not bad


def _outcomes(audit: Audited) -> dict[str, str]:
    return {replay.unit_number: replay.outcome for replay in audit.result.replays}


def _everything(audit: Audited) -> bool:
    """Whether an audit replayed the whole run."""
    matches = sum(outcome == "MATCH" for outcome in _outcomes(audit).values())
    return matches == int(audit.result.challenge.population)


def _check_replays(case: Case, audit: Audited, policy: Policy | None) -> list[tuple[str, str]]:
    """Writes `replay` where every drawn unit matches; returns why the audit's coverage is not enough, if it is not."""
    challenge, subject, outcomes = audit.result.challenge, f"audit {audit.sha256[:16]}", _outcomes(audit)
    open_units = [number for number in challenge.chosen if outcomes.get(number) != "MATCH"]
    if open_units:
        first = open_units[0]
        found = outcomes.get(first, "missing")
        return [(subject, f"{challenge.unit} {first} is {found}; neither a match nor a mismatch")]
    by = f"{audit.auditor}, isolation {audit.result.isolation}"
    case.ledger.passed(
        "replay", subject, f"all {len(challenge.chosen)} drawn {challenge.unit}s match ({by})", "audited"
    )
    return _check_size(case, audit, policy)


def _check_size(case: Case, audit: Audited, policy: Policy | None) -> list[tuple[str, str]]:
    """Whether a run with the policy's share of forged units would have been caught with the policy's probability."""
    challenge, subject = audit.result.challenge, f"audit {audit.sha256[:16]}"
    population, sample = int(challenge.population), len(challenge.chosen)
    if policy is None or policy.coverage is None:
        return [(subject, f"{sample} of {population} {challenge.unit}s; no policy says how many are enough")]
    forged_share, wanted = policy.coverage
    forged = max(1, ceil(forged_share * population))
    found = detection(population, forged, sample)
    words = f"{sample} of {population} {challenge.unit}s: {forged} forged ones are caught with {percent(found)}"
    if found < wanted:
        return [(subject, f"{words}, the policy asks for {percent(wanted)}")]
    case.ledger.passed("replay-coverage", subject, words, "audited")
    return []


def _check_points_tie(case: Case) -> None:
    if case.certificate.run.semantics != "exact":
        return
    for audit in case.audits:
        if audit.result.points == "MISMATCH":
            case.ledger.failed(
                "points-tie", "points", f"{audit.auditor} computed other points from weights and records"
            )
            return
    same = [audit for audit in case.audits if audit.result.points == "MATCH"]
    open_steps = sorted(_proven(case) - {step for audit in same for step in _steps_replayed(case, audit)})
    covering = next((audit.auditor for audit in same if _is_covering(case, audit)), None)
    if same and not open_steps:
        detail = f"{same[0].auditor} computed the same points from weights and records"
        case.ledger.passed("points-tie", "points", detail, "audited")
    elif covering is not None:
        detail = f"{covering} computed the same points for as many units as the policy asks for, drawn by a verifier"
        case.ledger.passed("points-tie", "points", detail, "audited")
    else:
        case.not_shown.add("points-not-tied")
        detail = "committed; no accepted auditor computed the points again"
        if same:  # points of other segments say nothing about those that this step proof maps
            detail = f"step {open_steps[0]} is proven; no accepted auditor computed the points of its segment again"
        case.ledger.not_checked("points-tie", "points", detail)


def _proven(case: Case) -> set[int]:
    """The numbers of the steps for which the certificate lists a step proof."""
    return {int(s.step) for claim in case.certificate.claims if isinstance(claim, StepsProven) for s in claim.steps}


def _steps_replayed(case: Case, audit: Audited) -> set[int]:
    """All steps of the segments that this audit replayed with a match: a drawn step is replayed with its segment."""
    numbers = {int(number) for number, outcome in _outcomes(audit).items() if outcome == "MATCH"}
    found: set[int] = set()
    for segment in case.chain.segments if case.chain else ():
        steps = set(range(segment.first, segment.last + 1))
        if segment.index in numbers if audit.result.challenge.unit == "segment" else steps & numbers:
            found |= steps
    return found


def _is_covering(case: Case, audit: Audited) -> bool:
    subject = f"audit {audit.sha256[:16]}"
    return any(
        f.code == "replay-coverage" and f.status == "passed" and f.subject.endswith(subject)
        for f in case.ledger.findings
    )


def check_coverage(case: Case) -> None:
    """The certificate's coverage against its evidence. Writes `coverage`."""
    stated = case.certificate.coverage
    if case.chain is None:
        case.ledger.not_checked("coverage", "coverage", "there is no transcript to count in")
        return
    replayed: set[int] = set()
    for audit in case.all_audits:
        if audit.result.challenge.unit == stated.unit:
            replayed |= {int(r.unit_number) for r in audit.result.replays if r.outcome == "MATCH"}
    expected = (str(_population(case, stated.unit)), str(len(replayed)), str(len(_proven(case))))
    found = (stated.population, stated.replayed, stated.proved)
    if expected == found:
        case.ledger.passed(
            "coverage", "coverage", f"{found[1]} of {found[0]} {stated.unit}s replayed, {found[2]} steps proven"
        )
    elif case.ledger.status("audit") == "not_checked" and case.certificate.audits:
        case.ledger.not_checked("coverage", "coverage", "an audit that it counts is missing")
    else:
        case.ledger.failed(
            "coverage", "coverage", "the evidence gives other numbers (population, replayed, proved)",
            expected=" ".join(expected), found=" ".join(found),
        )  # fmt: skip


def unreferenced_audits(case: Case, collection: Collection) -> list[Finding]:
    """Notes on accepted auditors' audits of this run with a mismatch that the certificate leaves out."""
    ledger = Ledger()
    for sha256, audit in sorted(collection.audits.items()):
        if audit.auditor is None or sha256 in case.certificate.audits:
            continue
        if audit.result.transcript_sha256 != case.certificate.run.transcript_sha256:
            continue
        bad = [replay.unit_number for replay in audit.result.replays if replay.outcome == "MISMATCH"]
        if bad or "MISMATCH" in (audit.result.init, audit.result.points):
            where = f"{audit.result.challenge.unit} {bad[0]}" if bad else "the first weights or the points"
            ledger.not_checked(
                "unreferenced-audit",
                f"audit {sha256[:16]}",
                f"{audit.auditor} reports a mismatch at {where}; what nothing refers to can neither help nor harm",
            )
    return ledger.findings


def percent(share: Fraction) -> str:
    """A probability in words, rounded down, so that nothing short of certain reads as 100 %."""
    hundredths = share.numerator * 10000 // share.denominator
    return f"{hundredths // 100}.{hundredths % 100:02d} %"
