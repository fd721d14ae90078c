"""Step 12: whether two auditors computed the same states, or one may have copied what the other published.

Spec: `specs/verification.md`, step 12, "Independent audits"; `specs/transcript.md`, "Inner digests". An audit may carry
the SHA-256 of a document with salted digests of states inside the segments that it replayed. The document is revealed
later, as an object. It counts if it holds the inner step of every segment that the audit calls a match.

Shows: two identities committed to the same inner states before these could be read anywhere in this release bundle.
Does not show: that they are two people or machines, and that nobody told the other in secret.
"""

from __future__ import annotations

from itertools import combinations

from attest.verdict.case import Case
from attest.verdict.collection import Audited
from attest.verdict.coverage import names, segments_of
from attest.verdict.policy import Policy
from pot.audit.salted import InnerDigests, inner_step, shared_steps
from pot.errors import PotError

__all__ = ["check_independence"]

_CODE = "independent-audits"
_SUBJECT = "inner digests"


def check_independence(case: Case, policy: Policy | None) -> None:
    """Compare what accepted auditors committed to. Writes `independent-audits` where one of them did.

    What contradicts itself is false only for a policy that asks for independence: for any other, leaving the document
    out would make the verdict better.
    """
    committed = [audit for audit in case.audits if audit.result.inner_commitment is not None]
    if not committed:
        return
    required = policy is not None and policy.independent
    wrong: list[str] = []
    open_ones: list[str] = []
    revealed: list[tuple[Audited, InnerDigests]] = []
    for audit in committed:
        document = _revealed(case, audit, wrong, open_ones)
        if document is not None:
            revealed.append((audit, document))
    wrong += _copied(committed)
    shared = _compare(revealed, wrong)
    for detail in wrong:
        case.ledger.add(_CODE, "failed" if required else "not_checked", _SUBJECT, detail)
    for detail in open_ones:
        case.ledger.not_checked(_CODE, _SUBJECT, detail)
    if wrong or open_ones:
        return
    if not shared:
        by = ", ".join(names(committed))
        detail = f"no two auditors replayed a common segment with an inner digest ({by})"
        case.ledger.not_checked(_CODE, _SUBJECT, detail)
        return
    case.not_shown.add("auditors-may-be-one")
    (one, other), steps = max(shared.items(), key=lambda item: (len(item[1]), item[0]))
    where = "1 segment" if len(steps) == 1 else f"{len(steps)} segments"
    detail = f"{one} and {other} committed to the same states inside {where} that both replayed"
    case.ledger.passed(_CODE, _SUBJECT, detail, "audited")


def _revealed(case: Case, audit: Audited, wrong: list[str], open_ones: list[str]) -> InnerDigests | None:
    """The document behind an audit's commitment, if it is that audit's, and whole."""
    sha256, who = audit.result.inner_commitment or "", f"audit {audit.sha256[:16]} of {audit.auditor}"
    data = case.object(_CODE, sha256, f"the document of inner digests of {who}")
    if data is None:
        return None
    try:
        document = InnerDigests.from_bytes(data, what=f"inner digests of {who}")
    except PotError as error:
        wrong.append(str(error))
        return None
    transcript, nonce = audit.result.transcript_sha256, audit.result.challenge.nonce
    if (document.transcript_sha256, document.nonce) != (transcript, nonce):
        wrong.append(f"{who}: the document behind its commitment belongs to another transcript or challenge")
        return None
    found = {int(state.step) for state in document.states}
    numbers = segments_of(case, audit)
    for segment in case.chain.segments if case.chain else ():
        step = inner_step(transcript, segment) if segment.index in numbers else None
        if step is not None and step not in found:
            open_ones.append(f"{who}: replayed segment {segment.index}, but did not commit to its state at step {step}")
            return None
    return document


def _copied(committed: list[Audited]) -> list[str]:
    """Commitments that two identities share: with 32 random bytes in each document nobody meets another's by chance."""
    owners: dict[str, set[str]] = {}
    for audit in committed:
        owners.setdefault(audit.result.inner_commitment or "", set()).add(audit.auditor or "")
    shared = [" and ".join(sorted(by)) for by in owners.values() if len(by) > 1]
    return [f"{by} signed the same commitment: one copied the other's" for by in shared]


def _compare(revealed: list[tuple[Audited, InnerDigests]], wrong: list[str]) -> dict[tuple[str, str], tuple[int, ...]]:
    """For each two different auditors: the steps at which their documents agree. Contradictions go to `wrong`."""
    shared: dict[tuple[str, str], tuple[int, ...]] = {}
    for (one, mine), (other, theirs) in combinations(revealed, 2):
        same, differ = shared_steps(mine, theirs)
        if differ:
            wrong.append(f"{one.auditor} and {other.auditor} committed to different states after step {differ[0]}")
        pair = tuple(sorted((one.auditor or "", other.auditor or "")))
        if same and pair[0] != pair[1]:
            shared[pair[0], pair[1]] = max(same, shared.get((pair[0], pair[1]), ()), key=len)
    return shared
