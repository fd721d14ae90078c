"""Step 10: exclusions. Every dataset of the run is proven against each exclusion set that the certificate names.

Spec: `specs/verification.md`, step 10; `specs/commitments.md`, "Exclusion". A proof is against a pre-committed
dataset's own commitment, or another commitment to the same files, in the exclusion set's view (`attest.verdict.sets`).

Shows: no record of X is in the set commitment of any dataset that the run pre-committed, seen through X's view.
Does not show: that the set commitment holds the records that were trained on (`records-tie`, `view-tie`, `replay`).
"""

from __future__ import annotations

from collections.abc import Mapping

from attest.predicate import DatasetExclusion
from attest.verdict.case import Case
from attest.verdict.findings import weakest, worst
from attest.verdict.report import ClaimReport, ExclusionSet
from attest.verdict.sentences import exclusion_sentence
from attest.verdict.sets import (
    check_same_shards,
    check_set,
    field_names,
    field_words,
    left_out,
    links_since,
    other_fields,
)
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.merkle_verify import ProofRefused
from pot.data.exclude_verify import check_exclusion
from pot.errors import PotError
from pot.recording.precommit import CommittedData

__all__ = ["check_exclusions"]


def check_exclusions(case: Case) -> list[ClaimReport]:
    """One claim for each exclusion set, with the links that step 10 decides."""
    grouped: dict[str, list[DatasetExclusion]] = {}
    for claim in case.certificate.claims:
        if isinstance(claim, DatasetExclusion):
            grouped.setdefault(claim.exclusion_sha256, []).append(claim)
    return [_check_group(case, sha256, claims) for sha256, claims in grouped.items()]


def _check_group(case: Case, sha256: str, claims: list[DatasetExclusion]) -> ClaimReport:
    start, name = len(case.ledger.findings), claims[0].name
    commitment, digests = check_set(case, "exclusion", name, sha256, [claim.digests_sha256 for claim in claims])
    promised = {item.commitment_sha256 for item in case.precommit.data} if case.precommit else set()
    elsewhere = [claim.training_sha256 for claim in claims if case.precommit and claim.training_sha256 not in promised]
    _check_coverage(case, commitment, claims)
    for claim in claims:
        _check_proof(case, commitment, digests, claim)
    codes = ["exclusion-set", "exclusion-training", *(["same-shards"] if elsewhere else []), "non-membership"]
    links = links_since(case, start, codes)
    named = None
    if commitment is not None:
        seen = case.other_views.keys() & case.same_shards.keys()
        trained = [c for claim in claims if (c := _training(case, claim)) is not None]
        named = ExclusionSet(
            view=commitment.view,
            records=commitment.records.count,
            root_blake3=commitment.records.root_blake3,
            field=field_words(field_names(trained).union(*(other_fields(case, s) for s in set(elsewhere) & seen))),
            hiding=commitment.hiding,
        )
    return ClaimReport(
        certificate_sha256=case.sha256,
        type="dataset-exclusion",
        sentence=exclusion_sentence(named.view) if named is not None else "X is not at hand",
        name=name,
        exclusion=named,
        training=list(dict.fromkeys(claim.training_sha256 for claim in claims)),
        status=worst(link.status for link in links),
        level=weakest(link.level for link in links),
        links=links,
    )


def _training(case: Case, claim: DatasetExclusion) -> DatasetCommitment | None:
    return case.commitments.get(claim.training_sha256) or case.other_views.get(claim.training_sha256)


def _check_coverage(case: Case, exclusion: DatasetCommitment | None, claims: list[DatasetExclusion]) -> None:
    """The proofs are against the pre-committed datasets: all of them, no other, in X's view."""
    subject = f"exclusion set {claims[0].name}"
    if case.precommit is None:
        case.ledger.not_checked("exclusion-training", subject, "there is no pre-commitment that names the datasets")
        return
    promised = {item.commitment_sha256: item for item in case.precommit.data}
    covered: set[str] = set()
    used: list[DatasetCommitment] = []
    unknown = False
    for sha256 in dict.fromkeys(claim.training_sha256 for claim in claims):
        if sha256 in promised:
            own = case.commitments.get(sha256)
            used += [own] if own is not None else []
            covered.add(sha256)
            view = promised[sha256].view
        else:
            start = len(case.ledger.findings)
            other, matched = check_same_shards(case, sha256)
            unknown = unknown or any(finding.status == "not_checked" for finding in case.ledger.findings[start:])
            if other is None:
                continue
            used.append(other)
            covered.update(matched)
            view = other.view
        if exclusion is not None and view != exclusion.view:
            case.ledger.failed(
                "exclusion-training",
                subject,
                f"commitment {sha256[:16]} and the exclusion set have different views; their digests never match",
                expected=exclusion.view,
                found=view,
            )
            return
    _write_coverage(case, subject, promised, covered, used, unknown)


def _write_coverage(
    case: Case,
    subject: str,
    promised: Mapping[str, CommittedData],
    covered: set[str],
    used: list[DatasetCommitment],
    unknown: bool,
) -> None:
    missing = [item.name for sha256, item in promised.items() if sha256 not in covered]
    if missing and unknown:
        detail = f"whether dataset {missing[0]} is proven against cannot be told: a commitment is missing"
        case.ledger.not_checked("exclusion-training", subject, detail)
    elif missing:
        case.ledger.failed(
            "exclusion-training", subject, f"no proof against dataset {missing[0]}, which the run may have used"
        )
    else:
        words = f"against all {len(promised)} pre-committed datasets, same view"
        unread = left_out(used)
        case.ledger.passed("exclusion-training", subject, f"{words}; {unread}" if unread else words)


def _check_proof(
    case: Case, exclusion: DatasetCommitment | None, digests: bytes | None, claim: DatasetExclusion
) -> None:
    subject = f"exclusion set {claim.name} against {claim.training_sha256[:16]}"
    proof = case.object("non-membership", claim.proof_sha256, "the non-membership proof")
    training = _training(case, claim)
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
