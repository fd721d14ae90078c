"""Steps 1 to 3 and 6: from the lines of `claims.jsonl` to statements with known signers.

Spec: `specs/verification.md`, steps 1, 2, 3 and 6. A line that cannot be read, whose signature is bad or whose signer
the policy does not name is junk: it is noted, and neither helps nor harms. Statements are filed under the SHA-256 of
their payload, so it does not matter on how many lines, in which order, or in which bundle one stands.

Shows: these payload bytes were signed by that identity of the policy.
Does not show: that what they say is so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from attest.bundle import ReleaseBundle, SigstoreBundle
from attest.predicate import AUDIT, DATA_AUDIT, TRAINING_CERTIFICATE, TrainingCertificate
from attest.statement import Statement, certificate_of
from attest.verdict.findings import Finding, Ledger
from attest.verdict.policy import Policy
from pot.audit.data_audit import DataAudit
from pot.audit.result import AuditResult
from pot.canonical import Document, canonical_bytes, sha256_hex
from pot.errors import Malformed, PotError

__all__ = ["Audited", "Certified", "Collection", "DataAudited", "collect"]


@dataclass(frozen=True)
class Certified:
    """A training certificate. `signer`: the developer's name in the policy; None if no accepted developer signed."""

    sha256: str
    statement: Statement
    certificate: TrainingCertificate
    signer: str | None


@dataclass(frozen=True)
class Audited:
    """An audit. `auditor`: the auditor's name in the policy; None if no accepted auditor signed."""

    sha256: str
    statement: Statement
    result: AuditResult
    auditor: str | None


@dataclass(frozen=True)
class DataAudited:
    """A data audit. `auditor`: the auditor's name in the policy; None if no accepted auditor signed."""

    sha256: str
    statement: Statement
    result: DataAudit
    auditor: str | None


@dataclass
class Collection:
    """Everything that `claims.jsonl` says, by payload digest."""

    certificates: dict[str, Certified] = field(default_factory=dict)
    audits: dict[str, Audited] = field(default_factory=dict)
    data_audits: dict[str, DataAudited] = field(default_factory=dict)
    broken: list[Finding] = field(default_factory=list)
    """What accepted developers signed that is no certificate and no audit: false, where there is no certificate."""
    notes: list[Finding] = field(default_factory=list)


def collect(release: ReleaseBundle, policy: Policy | None) -> Collection:
    """Read every line. Without a policy no signature is checked, and nobody is accepted."""
    found = Collection()
    notes, broken = Ledger(found.notes), Ledger(found.broken)
    for note in release.notes:
        notes.not_checked(note.code, note.subject, note.detail)
    for number, line in enumerate(release.lines, 1):
        where = f"claims.jsonl line {number}"
        try:
            envelope = SigstoreBundle.from_line(line, what=where).dsse_envelope
            payload, signature, signed = envelope.payload_bytes(), envelope.signature_bytes(), envelope.signed_bytes()
        except PotError as error:
            notes.not_checked("claims-line", where, str(error))
            continue
        role, name = None, None
        if policy is not None:
            signer = policy.signer(signature, signed)  # the key of the policy chooses the algorithm
            if signer is None:
                notes.not_checked("signature", where, "not signed by any key of the policy; counts for nothing")
            else:
                role, name = signer
        try:
            _file(found, sha256_hex(payload), payload, role, name, where)
        except PotError as error:
            ledger = broken if role == "developer" else notes
            code = "predicate" if isinstance(error, _WrongPredicate) else "statement"
            if role == "developer":
                ledger.failed(code, where, f"signed by {name}: {error}")
            else:
                ledger.not_checked(code, where, str(error))
    return found


class _WrongPredicate(Malformed):
    """A well-formed statement whose predicate is not one of ours, or not as its specification says."""


def _file(found: Collection, sha256: str, payload: bytes, role: str | None, name: str | None, where: str) -> None:
    statement = Statement.from_payload(payload, what=where)
    try:
        if statement.predicate_type == TRAINING_CERTIFICATE:
            certificate = certificate_of(statement, what=where)
            new = Certified(sha256, statement, certificate, name if role == "developer" else None)
            known = found.certificates.get(sha256)
            found.certificates[sha256] = new if known is None else replace(known, signer=known.signer or new.signer)
            return
        if statement.predicate_type == AUDIT:
            result = AuditResult.from_value(statement.predicate, what=where)
            _check_form(result, statement, where)
            audited = Audited(sha256, statement, result, name if role == "auditor" else None)
            earlier = found.audits.get(sha256)
            found.audits[sha256] = (
                audited if earlier is None else replace(earlier, auditor=earlier.auditor or audited.auditor)
            )
            return
        if statement.predicate_type == DATA_AUDIT:
            about = DataAudit.from_value(statement.predicate, what=where)
            _check_form(about, statement, where)
            data = DataAudited(sha256, statement, about, name if role == "auditor" else None)
            before = found.data_audits.get(sha256)
            found.data_audits[sha256] = (
                data if before is None else replace(before, auditor=before.auditor or data.auditor)
            )
            return
    except PotError as error:
        raise _WrongPredicate(str(error)) from None
    raise _WrongPredicate(f"{where}: predicate type {statement.predicate_type} is not known here")


def _check_form(result: Document, statement: Statement, where: str) -> None:
    if result.to_bytes() != canonical_bytes(statement.predicate):
        raise Malformed(f"{where}: the audit is not in its only form: absent fields must be left out")
