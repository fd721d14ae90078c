"""Step 12: what accepted auditors found, and whether their challenges were real ones.

Spec: `specs/verification.md`, step 12. An audit counts if the certificate refers to it, an accepted auditor signed it,
it is about this pre-commitment and transcript, and its challenge recomputes over the whole run from a nonce that the
prover could not choose: a verifier's, or the randomness of a beacon's round, where the policy names the beacon and its
first round. How much the audits cover together is `attest.verdict.coverage`.

Shows: an accepted auditor executed the drawn units again and got the same states.
Does not show: that units outside the draw do the same, beyond the probability; that no other audit was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from attest.verdict.case import Case
from attest.verdict.collection import Audited, Collection
from attest.verdict.coverage import (
    Counted,
    all_units,
    complete,
    counts,
    extra_units,
    forged_units,
    judge_coverage,
    matched_in,
    names,
    percent,
    population,
    proven_steps,
    segments_of,
)
from attest.verdict.data_ties import check_data_ties, gather_data_audit
from attest.verdict.findings import Finding, Ledger
from attest.verdict.policy import Policy
from pot.audit.challenges.beacon import chain_known_as, verify_round
from pot.audit.challenges.challenge import Challenge, check_draw, detection_after_grinding
from pot.errors import MissingExtra, PotError

__all__ = ["check_audits", "gather_audits", "unreferenced_audits"]

_TRIES: Final = 1 << 20  # what a prover can try in minutes where it may change the transcript and draw again


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
    counted: list[Counted] = []
    shortfalls: list[tuple[str, str]] = []
    for audit in case.audits:
        honest = _check_outcomes(case, audit)
        tries = _check_challenge(case, audit, policy)
        if not tries or not honest:
            continue
        open_unit = _check_replays(case, audit)
        if open_unit is None:
            counted.append(Counted(audit, tries))
        else:
            shortfalls.append((f"audit {audit.sha256[:16]}", open_unit))
    judge_coverage(case, policy, counted, shortfalls)
    for code in ("replay", "replay-coverage"):
        if not any(finding.code == code for finding in case.ledger.findings):
            case.ledger.not_checked(code, "run", "no accepted auditor replayed what a verifier drew")
    if not complete(case, case.audits):
        case.not_shown.add("unaudited-steps")
    check_data_ties(case)
    _check_points_tie(case, policy, counted)
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


def _check_challenge(case: Case, audit: Audited, policy: Policy | None) -> int:
    """Among how many draws the prover could choose this one: 1 for a verifier's nonce; 0 if the draw does not count."""
    challenge, subject = audit.result.challenge, f"audit {audit.sha256[:16]}"
    if case.transcript is None or case.chain is None:
        case.ledger.not_checked("challenge", subject, "there is no transcript to draw from")
        return 0
    run = case.certificate.run
    segments, steps = population(case, "segment"), population(case, "step")
    try:
        check_draw(challenge, run.precommit_sha256, run.transcript_sha256, segments, steps)
    except PotError as error:
        case.ledger.failed("challenge", subject, str(error))
        return 0
    tries, by = 1, "a verifier"
    if challenge.nonce_source == "prover":
        case.ledger.not_checked("replay-coverage", subject, _ground(case, challenge, policy))
        return 0
    if challenge.nonce_source == "beacon":
        tries, by = _beacon_tries(case, challenge, subject, policy), "a beacon's round"
        if not tries:
            return 0
    if tries == 1:
        case.challenges.append(challenge)
    size = f"{len(challenge.chosen)} of {challenge.population} {challenge.unit}s"
    again = f", the last of {tries} rounds that the prover could have waited for" if tries > 1 else ""
    case.ledger.passed("challenge", subject, f"{size} drawn by {by}{again}", "audited")
    return tries


def _ground(case: Case, challenge: Challenge, policy: Policy | None) -> str:
    """Why a draw of the prover's own covers nothing, with what is left of it if the prover tries again and again."""
    units, size = int(challenge.population), len(challenge.chosen)
    share = policy.coverage[0] if policy is not None and policy.coverage is not None else Fraction(challenge.forged)
    left = 1 - detection_after_grinding(units, forged_units(case, challenge.unit, share), size, _TRIES)
    return (
        "the prover chose the nonce: its challenge covers nothing; a prover that can try 2^20 times escapes with"
        f" probability {percent(left)}"
    )


def _beacon_tries(case: Case, challenge: Challenge, subject: str, policy: Policy | None) -> int:
    """How many rounds the prover could have waited for, from the first that the policy allows; 0: it covers nothing."""
    pin, beacon = (policy.beacon if policy is not None else None), challenge.beacon
    if beacon is None or pin is None or pin.chain != beacon.chain:
        detail = "the policy does not name the beacon that drew it (challenge.beacon): its challenge covers nothing"
        case.ledger.not_checked("replay-coverage", subject, detail)
        return 0
    known = chain_known_as(beacon.chain, pin.info)
    try:
        if known is not None:
            verify_round(beacon, known)
    except MissingExtra as error:
        case.ledger.not_checked("challenge", subject, str(error))
        return 0
    except PotError as error:
        case.ledger.failed("challenge", subject, str(error))
        return 0
    tries = int(beacon.round) - int(pin.not_before_round) + 1
    if known is None or tries < 1:
        first = f"{pin.not_before_round}, the first that the policy allows"
        detail = f"round {beacon.round} is before {first}: its challenge covers nothing"
        case.ledger.not_checked("replay-coverage", subject, detail)
        return 0
    return tries


def _check_outcomes(case: Case, audit: Audited) -> bool:
    """Refuse every mismatch, whoever chose the unit. Whether the replays hold no contradiction and no mismatch."""
    unit, subject = audit.result.challenge.unit, f"audit {audit.sha256[:16]}"
    for units in (audit.result.replays, extra_units(audit)):
        if len({replay.unit_number for replay in units}) != len(units):
            case.ledger.failed("replay", subject, f"a {unit} is reported twice")
            return False
    bad = dict.fromkeys(replay.unit_number for replay in all_units(audit) if replay.outcome == "MISMATCH")
    for number in bad:
        detail = f"{audit.auditor} executed it and got another state"
        case.ledger.failed("replay", f"{unit} {number}", detail, expected="MATCH", found="MISMATCH")
    return not bad


def _check_replays(case: Case, audit: Audited) -> str | None:
    """Writes `replay` where every drawn unit matches, else returns which one does not."""
    challenge, subject = audit.result.challenge, f"audit {audit.sha256[:16]}"
    matched = matched_in(audit)
    outcomes = {replay.unit_number: replay.outcome for replay in audit.result.replays}
    first = next((number for number in challenge.chosen if int(number) not in matched), None)
    if first is not None:
        return f"{challenge.unit} {first} is {outcomes.get(first, 'missing')}; neither a match nor a mismatch"
    by = f"{audit.auditor}, isolation {audit.result.isolation}"
    case.ledger.passed(
        "replay", subject, f"all {len(challenge.chosen)} drawn {challenge.unit}s match ({by})", "audited"
    )
    return None


def _check_points_tie(case: Case, policy: Policy | None, counted: Sequence[Counted]) -> None:
    if case.certificate.run.semantics != "exact" and not case.proven:
        return
    for audit in case.audits:
        if audit.result.points == "MISMATCH":
            case.ledger.failed(
                "points-tie", "points", f"{audit.auditor} computed other points from weights and records"
            )
            return
    proven = proven_steps(case)
    by, why_not = _recomputed(case, policy, counted, proven)
    if case.tied is not None:
        case.ledger.passed("points-tie", "points", case.tied)
        if by is None and proven - {int(step) for step in case.opened}:
            case.not_shown.add("batches-not-opened")
    elif by is not None:
        case.ledger.passed("points-tie", "points", by, "audited")
    else:
        case.not_shown.add("points-not-tied")
        case.ledger.not_checked("points-tie", "points", why_not)


def _recomputed(
    case: Case, policy: Policy | None, counted: Sequence[Counted], proven: set[int]
) -> tuple[str | None, str]:
    """Who made the points again, of every proven step's segment or of a draw that covers the run; or why none."""
    same = [audit for audit in case.audits if audit.result.points == "MATCH"]
    open_steps = sorted(proven - {step for audit in same for step in _steps_replayed(case, audit)})
    covering = [item for item in counted if item.audit.result.points == "MATCH"]
    carried = [audit for audit in same if proven <= _steps_replayed(case, audit)] + [item.audit for item in covering]
    enough = policy is None or policy.auditors <= max(1, len(names(carried)))
    if same and not open_steps and enough:
        return f"{same[0].auditor} computed the same points from weights and records", ""
    if counts(case, policy, covering):
        by = ", ".join(names(item.audit for item in covering))
        return f"{by} computed the same points for as many units as the policy asks for, drawn by a verifier", ""
    if same and open_steps:  # points of other segments say nothing about those that this step proof maps
        return None, f"step {open_steps[0]} is proven; no accepted auditor computed the points of its segment again"
    if same:
        return None, "the policy asks for more different auditors than computed the points again"
    return None, "committed; no accepted auditor computed the points again"


def _steps_replayed(case: Case, audit: Audited) -> set[int]:
    """All steps of the drawn segments that this audit replayed with a match: a drawn step is replayed with its segment.

    What an audit says of points it says of the drawn segments; those of a suspicious one beside them may be missing.
    """
    numbers = segments_of(case, audit, drawn=True)
    segments = case.chain.segments if case.chain else ()
    return {step for s in segments if s.index in numbers for step in range(s.first, s.last + 1)}


def unreferenced_audits(case: Case, collection: Collection) -> list[Finding]:
    """Notes on accepted auditors' audits of this run with a mismatch that the certificate leaves out."""
    ledger = Ledger()
    for sha256, audit in sorted(collection.audits.items()):
        if audit.auditor is None or sha256 in case.certificate.audits:
            continue
        if audit.result.transcript_sha256 != case.certificate.run.transcript_sha256:
            continue
        bad = [replay.unit_number for replay in all_units(audit) if replay.outcome == "MISMATCH"]
        if bad or "MISMATCH" in (audit.result.init, audit.result.points):
            where = f"{audit.result.challenge.unit} {bad[0]}" if bad else "the first weights or the points"
            ledger.not_checked(
                "unreferenced-audit",
                f"audit {sha256[:16]}",
                f"{audit.auditor} reports a mismatch at {where}; what nothing refers to can neither help nor harm",
            )
    return ledger.findings
