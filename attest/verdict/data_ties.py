"""Step 12, for data: what accepted auditors made again of commitments, views and compositions.

Spec: `specs/verification.md`, step 12; `specs/predicates/data-audit-v0.1.md`. A pre-committed dataset's set and order
are tied by an audit of the run or a data audit, from digests or from data. A commitment under another view, and the
labels of a composition, are the developer's word until an auditor makes them again from the files themselves.

Shows: an accepted auditor got the same from the same data.
Does not show: that no other data audit was left out; that a label is true.
"""

from __future__ import annotations

from attest.verdict.case import Case
from attest.verdict.collection import Collection, DataAudited
from attest.verdict.findings import Finding, Ledger
from pot.commitments.dataset import DatasetCommitment
from pot.recording.precommit import other_inputs

__all__ = ["check_data_ties", "gather_data_audit", "unreferenced_data_audits"]


def gather_data_audit(case: Case, audit: DataAudited) -> None:
    """Keep a data audit that the certificate refers to if it is about its data. Writes `audit`, `auditor`."""
    subject, about = f"audit {audit.sha256[:16]}", audit.result.commitment_sha256
    if audit.statement.subject_sha256 != about:
        case.ledger.failed(
            "audit",
            subject,
            "its subject is not the commitment that it is about",
            about,
            audit.statement.subject_sha256,
        )
    elif about not in _referred(case):
        case.ledger.failed(
            "audit", subject, "it is about a commitment that the certificate does not refer to", found=about
        )
    else:
        case.ledger.passed(
            "audit", subject, f"there, well formed, and about commitment {about[:16]} of this certificate"
        )
        if audit.auditor is None:
            case.ledger.not_checked("auditor", subject, "not signed by an accepted auditor: it adds to no level")
            return
        case.ledger.passed("auditor", subject, f"signed by {audit.auditor}", level="audited")
        case.data_audits.append(audit)


def _referred(case: Case) -> set[str]:
    """Digests of the dataset commitments that a certificate refers to."""
    names = ("training_sha256", "exclusion_sha256", "inclusion_sha256")
    found = {str(getattr(claim, name)) for claim in case.certificate.claims for name in names if hasattr(claim, name)}
    return found | {dataset.commitment_sha256 for dataset in case.certificate.inputs.datasets}


def check_data_ties(case: Case) -> None:
    """Writes `records-tie` for every dataset, `view-tie` and `composition-tie` where a claim rests on one."""
    for dataset in case.certificate.inputs.datasets:
        _check_records(case, dataset.name, dataset.commitment_sha256)
    own = {dataset.commitment_sha256 for dataset in case.certificate.inputs.datasets}
    for audit in case.data_audits:
        about = audit.result.commitment_sha256
        if audit.result.outcome == "MISMATCH" and about not in own and about not in case.other_views:
            detail = f"{audit.auditor} made the commitment again and got another: {audit.result.detail}"
            case.ledger.failed("records-tie", f"object {about}", detail)
    for sha256 in case.other_views:
        _check_view(case, sha256)
    for sha256, composition in case.compositions.items():
        _check_composition(case, sha256, composition.commitment_sha256)
    if case.data_audits:
        case.not_shown.add("selected-audits")
    if case.precommit is not None and other_inputs(case.precommit):
        case.not_shown.add("other-inputs")


def _against(case: Case, sha256: str) -> str | None:
    """What an accepted auditor says against a commitment; None where none does."""
    for audit in case.audits:
        if sha256 in (audit.result.datasets_differ or ()):
            return f"{audit.auditor} got other roots from the data"
    commitment = _commitment(case, sha256)
    for found in case.data_audits:
        if found.result.commitment_sha256 != sha256:
            continue
        if found.result.outcome == "MISMATCH":
            return f"{found.auditor} made the commitment again and got another: {found.result.detail}"
        if commitment is not None and found.result.records != commitment.records.count:
            return (
                f"{found.auditor} found {found.result.records} records, the commitment has {commitment.records.count}"
            )
    return None


def _commitment(case: Case, sha256: str) -> DatasetCommitment | None:
    return case.commitments.get(sha256) or case.other_views.get(sha256)


def _from_data(case: Case, sha256: str) -> str | None:
    """The accepted auditor who made this commitment again from the files; None where nobody did."""
    return next(
        (
            audit.auditor
            for audit in case.data_audits
            if audit.result.commitment_sha256 == sha256 and audit.result.source == "data"
        ),
        None,
    )


def _in_run_audit(case: Case, sha256: str) -> str | None:
    return next((audit.auditor for audit in case.audits if sha256 in audit.result.datasets), None)


def _check_records(case: Case, name: str, sha256: str) -> None:
    against = _against(case, sha256)
    if against is not None:
        case.ledger.failed("records-tie", name, against)
        return
    by = _in_run_audit(case, sha256) or (_from_data(case, sha256) if _lists_inputs(case, sha256) else None)
    if by is not None:
        case.ledger.passed("records-tie", name, f"{by} recomputed both roots from the data", "audited")
        return
    by = next((audit.auditor for audit in case.data_audits if audit.result.commitment_sha256 == sha256), None)
    commitment = case.commitments.get(sha256)
    if by is not None and commitment is not None and not _lists_inputs(case, sha256):
        detail = (
            f"{by} recomputed both roots, but the commitment's files are not inputs that the program was recorded with"
        )
        case.ledger.not_checked("records-tie", name, detail)
        return
    if by is not None and commitment is not None and _is_hidden(commitment):
        # hidden digests say nothing about the files, and no replay recomputes them
        detail = f"{by} saw hidden digests only; whose records they are takes an audit of the data with the key"
        case.ledger.not_checked("records-tie", name, detail)
        return
    if by is not None:
        case.ledger.passed("records-tie", name, f"{by} recomputed both roots from the record digests", "audited")
        return
    case.ledger.not_checked("records-tie", name, "committed; no accepted auditor recomputed both roots from the data")


def _check_view(case: Case, sha256: str) -> None:
    """The other view is what the files give, and these files are those whose records the run pre-committed."""
    subject, against = f"object {sha256}", _against(case, sha256)
    if against is not None:
        case.ledger.failed("view-tie", subject, against)
        return
    by = _from_data(case, sha256) or _in_run_audit(case, sha256)
    if by is None:
        detail = "the developer's word: no accepted auditor made this commitment again from the run's files"
        case.ledger.not_checked("view-tie", subject, detail)
        return
    for own in case.same_shards.get(sha256, []):
        if not _files_tied(case, own):
            detail = f"no accepted auditor tied the files of the pre-committed {own[:16]} to its records"
            case.ledger.not_checked("view-tie", subject, detail)
            return
    case.ledger.passed("view-tie", subject, f"{by} made this commitment again from the run's files", "audited")


def _files_tied(case: Case, sha256: str) -> bool:
    """Whether a pre-committed dataset's list of files is known to be that of its records.

    A data audit from the files compares both. A run's audit recomputes the roots from the files that the pre-commitment
    names, so its word holds for a commitment that lists the very same ones.
    """
    if _from_data(case, sha256) is not None:
        return True
    return _in_run_audit(case, sha256) is not None and _lists_inputs(case, sha256)


def _is_hidden(commitment: DatasetCommitment) -> bool:
    return commitment.hiding is not None


def _lists_inputs(case: Case, sha256: str) -> bool:
    """Whether a dataset's files are, one for one, those that the pre-commitment names as inputs holding its records."""
    commitment = case.commitments.get(sha256)
    if commitment is None or case.precommit is None or not commitment.shards:
        return False
    names = [item.name for item in case.precommit.data if item.commitment_sha256 == sha256]
    files = [file for file in case.precommit.program.data_files if file.dataset in names]
    files.sort(key=lambda file: int(file.shard or "0"))
    return [(f.bytes, f.sha256) for f in files] == [(shard.bytes, shard.sha256) for shard in commitment.shards]


def _check_composition(case: Case, sha256: str, commitment_sha256: str) -> None:
    subject = f"composition {sha256}"
    about = [audit for audit in case.data_audits if audit.result.commitment_sha256 == commitment_sha256]
    against = next((a.auditor for a in about if sha256 in (a.result.compositions_differ or ())), None)
    by = next((a.auditor for a in about if sha256 in (a.result.compositions or ())), None)
    if against is not None:
        case.ledger.failed(
            "composition-tie", subject, f"{against} summed the data up again and got another composition"
        )
    elif by is not None:
        case.ledger.passed("composition-tie", subject, f"{by} summed the data up again: the same groups", "audited")
    else:
        detail = "the developer's word: no accepted auditor summed the data and its labels up again"
        case.ledger.not_checked("composition-tie", subject, detail)


def unreferenced_data_audits(case: Case, collection: Collection) -> list[Finding]:
    """Notes on accepted auditors' data audits of this certificate's data with a mismatch that it leaves out."""
    ledger, referred = Ledger(), _referred(case)
    for sha256, audit in sorted(collection.data_audits.items()):
        if audit.auditor is None or sha256 in case.certificate.audits or audit.result.agrees:
            continue
        if audit.result.commitment_sha256 in referred:
            ledger.not_checked(
                "unreferenced-audit",
                f"audit {sha256[:16]}",
                f"{audit.auditor} made commitment {audit.result.commitment_sha256[:16]}, or a composition of it, again"
                " and got another; what nothing refers to can neither help nor harm",
            )
    return ledger.findings
