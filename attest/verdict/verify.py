"""THE verification procedure: from a release bundle and a policy to a report.

Spec: `specs/verification.md`. Command line, library, HTTP service and page all call `verify` and show its report.

    1  read with caps                            `attest.bundle.read_release`
    2  signature, algorithm from the trust root  `collect`: the policy's keys, one by one
    3  identity and role against the policy      `collect`, and here: only accepted developers' certificates count
    4  time source                               not consulted in this version
    5  log inclusion, consistency, witnesses     not consulted in this version
    6  statement and predicate, strict           `collect`: the signed bytes, in their only form
    7  subject = the files at hand               `check_subject`
    8  pre-commitment, seed, order               `check_precommit`, `check_transcript`, `check_seed`
    9  transcript chain, W_0 to released weights `check_transcript`, `check_weights`
    10 claims: set proofs                        `check_exclusions`, `check_inclusions`, `check_compositions`
    11 step proofs                               `check_steps`, `check_step_exclusions`, `check_blinding`
    12 audits and coverage arithmetic            `check_audits`, `check_data_ties`, `check_independence`,
                                                 `check_screening`, `check_coverage`
    13 lineage, recursively, same claims         `Examiner`, `compose_claims`
    14 status fresh                              not consulted in this version
    15 policy -> verdict                         `_decide`

Deny unless shown: what is missing, unreadable or not checked never counts as passed.

Shows: what the report says, each finding with its step.
Does not show: what the report lists as not shown.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from attest.bundle import ReleaseBundle
from attest.verdict.assemble import NO_POLICY, Frame, Judged, by_step, family, report_of, report_without_certificate
from attest.verdict.case import Case
from attest.verdict.codes import CODES
from attest.verdict.collection import Certified, collect
from attest.verdict.findings import Finding, Ledger, clean
from attest.verdict.lineage import Examiner
from attest.verdict.policy import Policy
from attest.verdict.report import Report, RequirementResult, Verdict
from attest.verdict.requirements import require, require_independence
from attest.verdict.step_states import PointMaker, default_point_maker
from attest.verdict.steps import StepVerifier, default_step_verifier
from pot.commitments.model import model_digest

__all__ = ["verify"]

_MAX_CANDIDATES: Final = 64  # certificates about the same files that are examined
_ORDER: Final[dict[Verdict, int]] = {"PASS": 0, "DENY": 1, "INCOMPLETE": 2}


def verify(
    release: ReleaseBundle,
    policy: Policy | None,
    *,
    now: datetime | None = None,
    step_verifier: StepVerifier | None = None,
    point_maker: PointMaker | None = None,
) -> Report:
    """Verify a release bundle under a policy. Opens no file and no socket.

    `policy`: None checks what can be checked without knowing anybody, and never passes. `now`: only written into the
    report. `step_verifier`, `point_maker`: other implementations of ezkl's part, for tests. Raises `EnvironmentFailure`
    where an object cannot be read; everything that release and policy say ends in the report.
    """
    time = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = model_digest(release.files)
    collection = collect(release, policy)  # 1, 2, 3, 6
    accepted = [c for _, c in sorted(collection.certificates.items()) if policy is None or c.signer is not None]
    candidates = [c for c in accepted if c.statement.subject_sha256 == found]
    tops = candidates or _without_parents(accepted)
    examiner = Examiner(
        release, collection, policy, step_verifier or default_step_verifier, point_maker or default_point_maker
    )
    judged = []
    for certified in tops[:_MAX_CANDIDATES]:
        case = examiner.examine(certified, at_hand=True)  # 2 to 14
        judged.append(_decide(case, policy))  # 15
    judged.sort(key=lambda item: (_ORDER[item.verdict], -len(item.case.claims)))
    strangers = [c for c in collection.certificates.values() if c.signer is None]
    if judged and not candidates and any(c.statement.subject_sha256 == found for c in strangers):
        judged[0].reason += "; a certificate about these very files is there, but no accepted developer signed it"
    frame = Frame(release, policy, collection, found, time)
    return report_of(frame, judged) if judged else report_without_certificate(frame)


def _without_parents(accepted: list[Certified]) -> list[Certified]:
    """Certificates that no other accepted one names as a parent: those that could be meant for the files at hand."""
    parents = {item.certificate_sha256 for c in accepted for item in c.certificate.inputs.parents}
    return [c for c in accepted if c.sha256 not in parents] or accepted


def _decide(case: Case, policy: Policy | None) -> Judged:
    """Step 15. False anywhere: DENY. Everything required shown, and nothing that is referred to missing: PASS."""
    decision = Ledger()
    requirements: list[RequirementResult] = []
    if policy is None:
        decision.not_checked("policy", "policy", NO_POLICY)
    else:
        decision.passed("policy", "policy", f"policy {policy.sha256[:16]}: {len(policy.document.require)} requirements")
        requirements = [require(case, requirement, decision) for requirement in policy.document.require]
        if policy.independent:
            for _, member in family(case):
                require_independence(member, decision)
    findings = [f for _, member in family(case) for f in by_step(member.ledger.findings)] + decision.findings
    failed = [finding for finding in findings if finding.status == "failed"]
    if failed:
        return Judged(case, "DENY", _sentence(failed[0]), requirements, decision)
    open_ones = [f for f in findings if f.status == "not_checked" and CODES[f.code].blocks]
    if policy is None:
        return Judged(case, "INCOMPLETE", NO_POLICY, requirements, decision)
    if open_ones:
        return Judged(case, "INCOMPLETE", _sentence(open_ones[0]), requirements, decision)
    reason = (
        "everything that the policy requires is shown, and nothing that the certificate refers to is missing or false"
    )
    return Judged(case, "PASS", reason, requirements, decision)


def _sentence(finding: Finding) -> str:
    values = ""
    if finding.expected is not None and finding.found is not None:
        values = f" (expected {finding.expected}, found {finding.found})"
    elif finding.found is not None:
        values = f" (found {finding.found})"
    return clean(f"step {finding.spec}, {finding.code}: {finding.subject}: {finding.detail}{values}")
