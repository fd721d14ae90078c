"""Step 10: set proofs. Every dataset of the run is proven against each exclusion set that the certificate names.

Spec: `specs/verification.md`, step 10; `specs/commitments.md`, "Exclusion".

Shows: no record of X is in the set commitment of any dataset that the run pre-committed, seen through X's view.
Does not show: that the set commitment holds the records that were trained on (`records-tie`, `replay`).
"""

from __future__ import annotations

from attest.predicate import DatasetExclusion
from attest.verdict.case import Case
from attest.verdict.findings import Link, weakest, worst
from attest.verdict.report import ClaimReport, ExclusionSet
from pot.commitments.dataset import DatasetCommitment, check_digests
from pot.commitments.merkle_verify import ProofRefused
from pot.data.exclude_verify import check_exclusion
from pot.errors import PotError

__all__ = ["check_exclusions"]


def check_exclusions(case: Case) -> list[ClaimReport]:
    """One claim for each exclusion set, with the links that step 10 decides."""
    grouped: dict[str, list[DatasetExclusion]] = {}
    for claim in case.certificate.claims:
        if isinstance(claim, DatasetExclusion):
            grouped.setdefault(claim.exclusion_sha256, []).append(claim)
    return [_check_group(case, sha256, claims) for sha256, claims in grouped.items()]


def _check_group(case: Case, sha256: str, claims: list[DatasetExclusion]) -> ClaimReport:
    start = len(case.ledger.findings)
    commitment, digests = _check_set(case, sha256, claims)
    _check_coverage(case, commitment, claims)
    for claim in claims:
        _check_proof(case, commitment, digests, claim)
    links = []
    for code in ("exclusion-set", "exclusion-training", "non-membership"):
        mine = [finding for finding in case.ledger.findings[start:] if finding.code == code]
        status = worst(finding.status for finding in mine) if mine else "not_checked"
        level = weakest(f.level or "declared" for f in mine) if mine else "declared"
        detail = next((f.detail for f in mine if f.status == status), "not reached")
        links.append(Link(code=code, status=status, level=level if status == "passed" else "declared", detail=detail))
    named = None
    if commitment is not None:
        named = ExclusionSet(
            view=commitment.view, records=commitment.records.count, root_blake3=commitment.records.root_blake3
        )
    return ClaimReport(
        certificate_sha256=case.sha256,
        type="dataset-exclusion",
        name=claims[0].name,
        exclusion=named,
        status=worst(link.status for link in links),
        level=weakest(link.level for link in links),
        links=links,
    )


def _check_set(
    case: Case, sha256: str, claims: list[DatasetExclusion]
) -> tuple[DatasetCommitment | None, bytes | None]:
    """X itself: its commitment, and the digests that give both of its roots."""
    subject = f"exclusion set {claims[0].name}"
    data = case.object("exclusion-set", sha256, "the exclusion set's commitment")
    digests = case.object("exclusion-set", claims[0].digests_sha256, "the exclusion set's digest list")
    if len({claim.digests_sha256 for claim in claims}) != 1:
        case.ledger.failed("exclusion-set", subject, "two claims name different digest lists for the same set")
        return None, None
    if data is None:
        return None, None
    try:
        commitment = DatasetCommitment.from_bytes(data, what="exclusion commitment")
        if commitment.role != "exclusion" or int(commitment.records.count) == 0:
            case.ledger.failed(
                "exclusion-set",
                subject,
                "not an exclusion set with records; leaving nothing out shows nothing",
                expected="role exclusion, at least 1 record",
                found=f"role {commitment.role}, {commitment.records.count} records",
            )
            return None, None
        if digests is None:
            return commitment, None
        check_digests(commitment, digests)
    except PotError as error:
        case.ledger.failed("exclusion-set", subject, str(error))
        return None, None
    case.ledger.passed(
        "exclusion-set", subject, f"{commitment.records.count} records, view {commitment.view}; digests give both roots"
    )
    return commitment, digests


def _check_coverage(case: Case, exclusion: DatasetCommitment | None, claims: list[DatasetExclusion]) -> None:
    """The proofs are against the pre-committed datasets: all of them, no other, in X's view."""
    subject = f"exclusion set {claims[0].name}"
    if case.precommit is None:
        case.ledger.not_checked("exclusion-training", subject, "there is no pre-commitment that names the datasets")
        return
    promised = {item.commitment_sha256: item for item in case.precommit.data}
    proven = {claim.training_sha256 for claim in claims}
    foreign = sorted(proven - promised.keys())
    if foreign:
        case.ledger.failed(
            "exclusion-training",
            subject,
            "a proof is against data that the run did not pre-commit",
            expected=", ".join(sorted(promised)),
            found=foreign[0],
        )
        return
    if exclusion is not None:
        for item in case.precommit.data:
            if item.view != exclusion.view:
                case.ledger.failed(
                    "exclusion-training",
                    subject,
                    f"dataset {item.name} and the exclusion set have different views; their digests never match",
                    expected=exclusion.view,
                    found=item.view,
                )
                return
    missing = [item.name for item in case.precommit.data if item.commitment_sha256 not in proven]
    if missing:
        case.ledger.failed(
            "exclusion-training", subject, f"no proof against dataset {missing[0]}, which the run may have used"
        )
        return
    case.ledger.passed("exclusion-training", subject, f"against all {len(promised)} pre-committed datasets, same view")


def _check_proof(
    case: Case, exclusion: DatasetCommitment | None, digests: bytes | None, claim: DatasetExclusion
) -> None:
    subject = f"exclusion set {claim.name} against {claim.training_sha256[:16]}"
    proof = case.object("non-membership", claim.proof_sha256, "the non-membership proof")
    training = case.commitments.get(claim.training_sha256)
    if proof is None:
        return
    if training is None or exclusion is None or digests is None:
        case.ledger.not_checked("non-membership", subject, "a commitment or the digest list is missing or false")
        return
    try:
        check_exclusion(training, exclusion, digests, proof)
    except ProofRefused as error:
        case.ledger.failed("non-membership", subject, f"{error.code}: {error}")
    except PotError as error:
        case.ledger.failed("non-membership", subject, str(error))
    else:
        case.ledger.passed(
            "non-membership", subject, f"none of {exclusion.records.count} records is among {training.records.count}"
        )
