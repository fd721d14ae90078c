"""Steps 8 and 9: the run that the certificate refers to, from pre-commitment and order to the released weights.

Spec: `specs/verification.md`, steps 8 and 9; `specs/transcript.md`. Everything here is recomputed from the objects;
an auditor's word enters only where the data or the program would be needed.

Shows: the certificate's inputs are the pre-committed ones; the transcript is one unbroken line from the first to the
last state, in the order that the seed gives; the released weights are its end.
Does not show: that the steps did what they say; that is for audits and step proofs.
"""

from __future__ import annotations

from attest.verdict.case import Case
from attest.verdict.operations import check_operations, initial_digest, released_digest
from pot.commitments.dataset import DatasetCommitment
from pot.errors import PotError
from pot.recording.checking.chain import check_chain
from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Parent, Precommit
from pot.recording.transcript import read_transcript

__all__ = ["check_precommit", "check_transcript", "check_weights"]

_ORDER_PROBLEMS = frozenset({"batch"})
_LIMIT_PROBLEMS = frozenset({"limit"})
_PRECOMMIT_PROBLEMS = frozenset({"start"})
_GAPS_NAMED = 10
_FIRST = "first weights"


def check_precommit(case: Case) -> None:
    """Step 8, what can be said before the transcript is read. Writes `precommit`, `inputs`, `dataset-commitment`."""
    sha256 = case.certificate.run.precommit_sha256
    data = case.object("precommit", sha256, "the pre-commitment")
    if data is None:
        return
    try:
        case.precommit = Precommit.from_bytes(data, what="pre-commitment", limit=MAX_PRECOMMIT_BYTES)
    except PotError as error:
        case.ledger.failed("precommit", f"object {sha256}", str(error))
        return
    case.ledger.passed("precommit", f"object {sha256}", "the pre-commitment is there and consistent in itself")
    _check_inputs(case, case.precommit)
    for dataset in case.certificate.inputs.datasets:
        _check_commitment(case, case.precommit, dataset.commitment_sha256)


def _check_inputs(case: Case, precommit: Precommit) -> None:
    certificate, subject = case.certificate, f"certificate {case.sha256[:16]}"
    problems: list[tuple[str, str, str]] = []
    listed = [(item.name, item.commitment_sha256) for item in certificate.inputs.datasets]
    promised = [(item.name, item.commitment_sha256) for item in precommit.data]
    if sorted(listed) != sorted(promised):
        problems.append(("the datasets are not the pre-committed ones", _pairs(promised), _pairs(listed)))
    if certificate.run.semantics != precommit.semantics:
        problems.append(
            ("the semantics are not the pre-committed ones", precommit.semantics, certificate.run.semantics)
        )
    stage = "training" if precommit.parent is None else "fine-tuning"
    if certificate.stage != stage:
        problems.append(("the stage is not what the pre-committed parent says", stage, certificate.stage))
    parents = {(item.certificate_sha256, item.model_sha256) for item in certificate.inputs.parents}
    if len(parents) != len(certificate.inputs.parents):
        problems.append(("a parent is listed twice", "each once", str(len(certificate.inputs.parents))))
    if precommit.parent is not None:
        parent = (precommit.parent.certificate_sha256, precommit.parent.model_sha256)
        if parent not in parents:
            problems.append(
                ("the pre-committed parent is not among the inputs", _pairs([parent]), _pairs(sorted(parents)))
            )
    for detail, expected, found in problems:
        case.ledger.failed("inputs", subject, detail, expected=expected, found=found)
    if not problems:
        case.ledger.passed("inputs", subject, "datasets, parents, stage and semantics are those of the pre-commitment")


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return ", ".join(f"{first[:16]}:{second[:16]}" for first, second in pairs) or "none"


def _check_commitment(case: Case, precommit: Precommit, sha256: str) -> None:
    data = case.object("dataset-commitment", sha256, "a dataset commitment")
    if data is None:
        return
    subject = f"object {sha256}"
    try:
        commitment = DatasetCommitment.from_bytes(data, what="dataset commitment")
    except PotError as error:
        case.ledger.failed("dataset-commitment", subject, str(error))
        return
    case.commitments[sha256] = commitment
    for item in precommit.data:
        if item.commitment_sha256 != sha256:
            continue
        expected = (item.view, item.records, item.records_root_blake3, item.set_root_blake3)
        found = (
            commitment.view,
            commitment.records.count,
            commitment.records.root_blake3,
            commitment.set.root_blake3,
        )
        if expected != found or commitment.role != "training":
            case.ledger.failed(
                "dataset-commitment",
                subject,
                f"{item.name}: view, count and roots (as training data) are not the pre-committed ones",
                expected=" ".join(expected),
                found=" ".join((*found, commitment.role)),
            )
            return
        case.ledger.passed("dataset-commitment", subject, f"{item.name}: {found[1]} records in view {found[0]}")
        return
    case.ledger.failed("dataset-commitment", subject, "the pre-commitment does not name this dataset")


def check_transcript(case: Case) -> None:
    """Steps 8 (order) and 9 (chain). Writes `transcript`, `order` or `stream-order`, `chain`, `fork`, `gap`."""
    sha256 = case.certificate.run.transcript_sha256
    data = case.object("transcript", sha256, "the transcript")
    if data is None:
        return
    subject = f"object {sha256}"
    try:
        transcript = read_transcript(data)
    except PotError as error:
        case.ledger.failed("transcript", subject, str(error))
        return
    case.transcript = transcript
    case.ledger.passed("transcript", subject, f"{len(transcript.events)} events, each in its only form")
    if case.precommit is None:
        case.ledger.not_checked("chain", subject, "there is no pre-commitment to check the chain against")
        case.ledger.not_checked("order", subject, "there is no pre-commitment that fixes the order")
        return
    try:
        case.chain = check_chain(transcript, case.precommit)
    except PotError as error:
        case.ledger.failed("chain", subject, str(error))
        return
    for problem in case.chain.problems:
        if problem.code in _LIMIT_PROBLEMS:  # not false: too much for this reader
            case.ledger.not_checked("order", subject, problem.detail)
            continue
        code = "order" if problem.code in _ORDER_PROBLEMS else "chain"
        code = "precommit" if problem.code in _PRECOMMIT_PROBLEMS else code
        case.ledger.failed(code, subject, f"{problem.code}: {problem.detail}")
    if case.chain.initial is not None and "frozen" in case.chain.initial.components:
        case.not_shown.add("frozen-base")
    codes = {problem.code for problem in case.chain.problems}
    if not codes & (_ORDER_PROBLEMS | _LIMIT_PROBLEMS):
        _check_order(case, case.precommit, subject)
    if not codes - _ORDER_PROBLEMS - _LIMIT_PROBLEMS - _PRECOMMIT_PROBLEMS:
        case.ledger.passed(
            "chain", subject, f"{case.chain.events} events, {len(case.chain.segments)} segments, one unbroken line"
        )
    for fork in case.chain.forks:
        case.ledger.failed(
            "fork",
            subject,
            f"line {fork.index}: the run went back to step {fork.step} and left steps to {fork.abandoned}",
        )
    if not case.chain.forks:
        resumed = f"; {case.chain.dropped} steps repeated after an interruption" if case.chain.dropped else ""
        case.ledger.passed("fork", subject, f"nothing was rewound{resumed}")
    _check_gaps(case, subject)


def _check_order(case: Case, precommit: Precommit, subject: str) -> None:
    if precommit.order.method == "stream/1":
        case.not_shown.add("order-not-fixed")
        detail = "an iterable dataset: the transcript says what it yielded, and no seed fixes that"
        case.ledger.not_checked("stream-order", subject, detail)
        return
    case.ledger.passed("order", subject, f"{_steps(case)} steps took the records that seed and order give")


def _check_gaps(case: Case, subject: str) -> None:
    gaps = case.chain.gaps if case.chain else ()
    if not gaps:
        case.ledger.passed("gap", subject, "no checkpoint lacks the files that were promised")
        return
    steps = ", ".join(str(gap.step) for gap in gaps[:_GAPS_NAMED]) + (" ..." if len(gaps) > _GAPS_NAMED else "")
    detail = f"checkpoints without the files that were promised: steps {steps}; first reason: {gaps[0].reason}"
    case.ledger.not_checked("gap", subject, detail)


def _steps(case: Case) -> int:
    return sum(len(segment.steps) for segment in case.chain.segments) if case.chain else 0


def check_weights(case: Case) -> None:
    """Step 9: declared operations, first weights, released weights. Runs after the parents' cases exist."""
    operations = check_operations(case)
    _check_released(case, operations)
    _check_initial(case, operations)


def _check_released(case: Case, operations: dict[str, str]) -> None:
    if case.chain is None or case.chain.end is None:
        case.ledger.not_checked("released-weights", "model", "there is no transcript with an end")
        return
    found = released_digest(case, operations)
    if found is None:
        return
    expected = case.chain.end.model_blake3
    if found == expected:
        case.ledger.passed("released-weights", "model", "the released weights are those at the end of the transcript")
    else:
        case.ledger.failed(
            "released-weights",
            "model",
            "the released weights are not those at the end of the transcript",
            expected=expected,
            found=found,
        )


def _check_initial(case: Case, operations: dict[str, str]) -> None:
    """W_0: the parent's release, directly or through a recomputed operation; else an auditor's regeneration.

    An auditor's word that the program makes another first state counts in both cases: a state is more than weights.
    """
    outcomes = [(audit.auditor, audit.result.init) for audit in case.audits if audit.auditor is not None]
    other = next((auditor for auditor, outcome in outcomes if outcome == "MISMATCH"), None)
    if other is not None:
        case.ledger.failed("initial-weights", _FIRST, f"{other} made another first state from the seed and program")
        return
    initial = case.chain.initial if case.chain else None
    if case.precommit is None or initial is None:
        case.ledger.not_checked("initial-weights", _FIRST, "there is no transcript with a first state")
    elif case.precommit.parent is not None:
        _check_parents(case, case.precommit.parent, initial.components, operations)
    elif (same := next((auditor for auditor, outcome in outcomes if outcome == "MATCH"), None)) is not None:
        detail = f"{same} made the same from the seed and program"
        case.ledger.passed("initial-weights", _FIRST, detail, level="audited")
    else:
        case.ledger.not_checked("initial-weights", _FIRST, "committed; no accepted auditor made them again")


def _check_parents(case: Case, wanted: Parent, components: dict[str, str], operations: dict[str, str]) -> None:
    """That the first state holds the parent's release, and beside it the parent's frozen parameters."""
    expected, found = initial_digest(case, wanted, operations), components.get("model")
    if expected is None:
        return
    if found != expected:
        detail = "they are not the declared parent's released weights"
        case.ledger.failed("initial-weights", _FIRST, detail, expected=expected, found=found)
        return
    problem = _other_base(case, wanted, components.get("frozen"))
    if problem is not None:
        case.ledger.not_checked("initial-weights", _FIRST, problem)
        return
    by = "" if wanted.operation == "none" else f", by {wanted.operation}"
    case.ledger.passed("initial-weights", _FIRST, f"they are the parent's released weights{by}")


def _other_base(case: Case, wanted: Parent, frozen: str | None) -> str | None:
    """Why the frozen parameters are not the parent's; None where both runs have the same, or none."""
    parent = next((one for one in case.parents if one.sha256 == wanted.certificate_sha256), None)
    initial = parent.chain.initial if parent is not None and parent.chain is not None else None
    theirs = None if initial is None else initial.components.get("frozen")
    if frozen == theirs:
        return None
    return f"the frozen parameters beside them are not the parent's ({_named(frozen)}, the parent's {_named(theirs)})"


def _named(digest: str | None) -> str:
    return "none" if digest is None else digest[:16]
