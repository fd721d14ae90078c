"""Step 10: compositions. The sums per label of a pre-committed dataset add up to what the composition states.

Spec: `specs/verification.md`, step 10; `specs/composition.md`. The labels are the developer's; an auditor
with the data makes the composition again (`composition-tie`), and even then nobody looked whether they are true.

Shows: the groups' counts and roots give the composition's totals and root, which cover every committed record.
Does not show: that a record belongs to its group (`composition-tie`); that a label is true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attest.predicate import DataComposition
from attest.verdict.case import Case
from attest.verdict.findings import clean, weakest, worst
from attest.verdict.report import MAX_GROUPS, ClaimReport, ReportedComposition, ReportedGroup
from attest.verdict.sentences import COMPOSITION
from attest.verdict.sets import left_out, links_since
from pot.commitments.merkle_verify import ProofRefused
from pot.errors import PotError

if TYPE_CHECKING:
    from pot.data.composition_verify import Composition

__all__ = ["check_compositions", "first_other_label"]


def check_compositions(case: Case) -> list[ClaimReport]:
    """One claim for each composition, with the link that step 10 decides."""
    return [_check(case, claim) for claim in case.certificate.claims if isinstance(claim, DataComposition)]


def _check(case: Case, claim: DataComposition) -> ClaimReport:
    start = len(case.ledger.findings)
    dataset = None
    if case.precommit is not None:
        dataset = next((d.name for d in case.precommit.data if d.commitment_sha256 == claim.training_sha256), None)
    composition = _check_sums(case, claim, dataset)
    links = links_since(case, start, ("composition",))
    return ClaimReport(
        certificate_sha256=case.sha256,
        type="data-composition",
        sentence=COMPOSITION,
        name=None if dataset is None else clean(dataset),
        training=[claim.training_sha256],
        composition=None if composition is None else _reported(composition, claim, dataset or ""),
        status=worst(link.status for link in links),
        level=weakest(link.level for link in links),
        links=links,
    )


def _check_sums(case: Case, claim: DataComposition, dataset: str | None) -> Composition | None:
    """The composition, if it holds. Writes `composition`, `Case.compositions`."""
    from pot.data.composition_verify import Composition, check_composition

    subject = f"composition {claim.composition_sha256}"
    data = case.object("composition", claim.composition_sha256, "the composition")
    if case.precommit is None:
        case.ledger.not_checked("composition", subject, "there is no pre-commitment that names the datasets")
        return None
    if dataset is None:
        case.ledger.failed(
            "composition",
            subject,
            "it is of data that the run did not pre-commit",
            expected=", ".join(sorted(item.commitment_sha256 for item in case.precommit.data)),
            found=claim.training_sha256,
        )
        return None
    training = case.commitments.get(claim.training_sha256)
    if data is None or training is None:
        case.ledger.not_checked("composition", subject, "the composition or its dataset's commitment is missing")
        return None
    try:
        composition = Composition.from_bytes(data, what="composition")
        check_composition(training, composition)
    except ProofRefused as error:
        case.ledger.failed("composition", subject, f"{error.code}: {error}")
        return None
    except PotError as error:
        case.ledger.failed("composition", subject, str(error))
        return None
    case.compositions[claim.composition_sha256] = composition
    words = (
        f"{len(composition.groups)} groups by {', '.join(composition.by)} add up to {training.records.count} records"
    )
    unread = left_out([training])
    case.ledger.passed("composition", subject, f"{words}; {unread}" if unread else words)
    return composition


def first_other_label(composition: Composition, only: dict[str, list[str]]) -> tuple[str, str] | None:
    """The first label of a group that is not among those allowed, with its field; None where all are.

    `only`: fields that the composition is by, and their allowed labels, compared as they were signed.
    """
    for name in sorted(only):
        for group in composition.groups:
            if group.labels[name] not in only[name]:
                return name, group.labels[name]
    return None


def _reported(composition: Composition, claim: DataComposition, dataset: str) -> ReportedComposition:
    from pot.data.composition_verify import ordered_labels

    groups = [
        ReportedGroup(
            labels=[clean(label) for label in ordered_labels(composition.by, group.labels)],
            records=group.records,
            bytes=group.bytes,
            tokens=group.tokens,
        )
        for group in composition.groups[:MAX_GROUPS]
    ]
    more = len(composition.groups) - len(groups)
    totals = composition.totals
    return ReportedComposition(
        composition_sha256=claim.composition_sha256,
        dataset=clean(dataset),
        by=[clean(name) for name in composition.by],
        tokens_of=None if composition.tokens_of is None else clean(composition.tokens_of),
        groups=groups,
        left_out=str(more) if more else None,
        totals=ReportedGroup(labels=[], records=totals.records, bytes=totals.bytes, tokens=totals.tokens),
    )
