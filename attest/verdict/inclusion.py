"""Step 10: inclusions. Every record of a named set is in the run's committed data, and was in a batch.

Spec: `specs/verification.md`, step 10; `specs/commitments.md`, "Inclusion". Which records a step took follows from seed
and order alone, so that a record was used is arithmetic: its position in an epoch's permutation lies before the end of
the last whole batch, and in the last epoch before the last step. (Incomplete batches are dropped.)

Shows: each record of Y stands at an index of a pre-committed dataset, and the run's batches hold that index.
Does not show: that the run computed with its batches (`replay`), or that its ordered root is that of the data
(`records-tie`).
"""

from __future__ import annotations

from collections.abc import Sequence

from attest.predicate import DatasetInclusion
from attest.verdict.case import Case
from attest.verdict.findings import weakest, worst
from attest.verdict.report import ClaimReport, InclusionSet
from attest.verdict.sentences import inclusion_sentence
from attest.verdict.sets import check_set, field_names, field_words, links_since
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.order import epoch_permutation, steps_per_epoch
from pot.commitments.seed import run_seed
from pot.errors import PotError
from pot.recording.precommit import Precommit, total_records
from pot.recording.transcript import StartEvent

__all__ = ["check_inclusions", "least_uses"]


def check_inclusions(case: Case) -> list[ClaimReport]:
    """One claim for each set and dataset, with the links that step 10 decides."""
    claims: dict[tuple[str, str], DatasetInclusion] = {}
    for claim in case.certificate.claims:
        if isinstance(claim, DatasetInclusion):
            pair = (claim.inclusion_sha256, claim.training_sha256)
            if claims.setdefault(pair, claim) != claim:  # checked once, whoever repeats it
                detail = "two claims are about the same set and dataset, with other names or evidence"
                case.ledger.failed("inclusion-set", f"inclusion set {claim.name}", detail)
    return [_check(case, claim) for claim in claims.values()]


def _check(case: Case, claim: DatasetInclusion) -> ClaimReport:
    start = len(case.ledger.findings)
    commitment, digests = check_set(case, "inclusion", claim.name, claim.inclusion_sha256, [claim.digests_sha256])
    indices = _check_membership(case, commitment, digests, claim)
    _check_used(case, claim, indices)
    links = links_since(case, start, ("inclusion-set", "membership", "inclusion-used"))
    named = None
    if commitment is not None:
        training = case.commitments.get(claim.training_sha256)
        named = InclusionSet(
            view=commitment.view,
            records=commitment.records.count,
            root_blake3=commitment.records.root_blake3,
            field=field_words(field_names([training] if training is not None else [])),
            hiding=commitment.hiding,
        )
    sentence = "Y is not at hand"
    if named is not None:
        sentence = inclusion_sentence(named.view, fields=named.field, hidden=named.hiding is not None)
    return ClaimReport(
        certificate_sha256=case.sha256,
        type="dataset-inclusion",
        sentence=sentence,
        name=claim.name,
        inclusion=named,
        training=[claim.training_sha256],
        status=worst(link.status for link in links),
        level=weakest(link.level for link in links),
        links=links,
    )


def _check_membership(
    case: Case, inclusion: DatasetCommitment | None, digests: bytes | None, claim: DatasetInclusion
) -> list[int] | None:
    """The training indices of Y's records; None where membership does not hold or cannot be told."""
    from pot.data.include_verify import check_inclusion

    subject = f"inclusion set {claim.name} in {claim.training_sha256[:16]}"
    proof = case.object("membership", claim.proof_sha256, "the inclusion proof")
    if case.precommit is None:
        case.ledger.not_checked("membership", subject, "there is no pre-commitment that names the datasets")
        return None
    promised = {item.commitment_sha256 for item in case.precommit.data}
    if claim.training_sha256 not in promised:
        case.ledger.failed(
            "membership",
            subject,
            "the inclusion proof is against data that the run did not pre-commit",
            expected=", ".join(sorted(promised)),
            found=claim.training_sha256,
        )
        return None
    training = case.commitments.get(claim.training_sha256)
    if proof is None:
        return None
    if training is None or inclusion is None or digests is None:
        case.ledger.not_checked("membership", subject, "a commitment or the digest list is missing or false")
        return None
    try:
        indices = [int(index) for index in check_inclusion(training, inclusion, digests, proof)]
    except ProofRefused as error:
        case.ledger.failed("membership", subject, f"{error.code}: {error}")
        return None
    except PotError as error:
        case.ledger.failed("membership", subject, str(error))
        return None
    detail = f"all {inclusion.records.count} records are among {training.records.count}, each at its index"
    case.ledger.passed("membership", subject, detail)
    return indices


def _check_used(case: Case, claim: DatasetInclusion, indices: Sequence[int] | None) -> None:
    subject = f"inclusion set {claim.name}"
    start = case.transcript.events[0] if case.transcript and case.transcript.events else None
    if indices is None or case.precommit is None or not isinstance(start, StartEvent):
        case.ledger.not_checked("inclusion-used", subject, "which records the batches hold cannot be told")
        return
    if case.precommit.order.method == "stream/1":
        detail = "no seed fixes which records a stream yields: the batches of this run name none"
        case.ledger.not_checked("inclusion-used", subject, detail)
        return
    if case.ledger.status("order", "chain") != "passed":  # also: the number of steps is that of a transcript
        case.ledger.not_checked("inclusion-used", subject, "the transcript does not show which steps were made")
        return
    first = 0
    for item in case.precommit.data:
        if item.commitment_sha256 == claim.training_sha256:
            break
        first += int(item.records)
    seed = run_seed(case.certificate.run.precommit_sha256, bytes.fromhex(start.nonce))
    unused, least = least_uses(seed, case.precommit, {first + index for index in indices})
    if unused:
        case.ledger.failed(
            "inclusion-used",
            subject,
            f"{unused} of its records stand where no batch of the run reaches",
            expected="every record in a batch",
            found=f"{unused} in none",
        )
        return
    times = "once" if least == 1 else f"{least} times"
    case.ledger.passed("inclusion-used", subject, f"by seed and order, each of its records was used at least {times}")


def least_uses(seed: bytes, precommit: Precommit, records: set[int]) -> tuple[int, int]:
    """How many of these global record numbers no batch holds, and how often the least used one is used.

    Costs no more than reading the transcript did: in each epoch the records before its end are looked through once, or
    these records are looked up, whichever are fewer.
    """
    size, batch, steps = total_records(precommit), int(precommit.order.batch), int(precommit.steps)
    per_epoch = steps_per_epoch(size, batch)
    whole, rest = divmod(steps, per_epoch)
    uses = dict.fromkeys(sorted(records), 0)
    complete = per_epoch * batch == size  # then a whole epoch uses every record
    for epoch in range(whole if complete else 0, whole + (1 if rest else 0)):
        order = epoch_permutation(seed, size, epoch)
        end = batch * (per_epoch if epoch < whole else rest)
        if end < len(uses):
            for record in order.slice(0, end):
                if record in uses:
                    uses[record] += 1
            continue
        for record in uses:
            uses[record] += order.find(record) < end
    always = whole if complete else 0
    counts = [count + always for count in uses.values()]
    return sum(count == 0 for count in counts), min(counts, default=0)
