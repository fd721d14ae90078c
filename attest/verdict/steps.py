"""Step 11: step proofs, under a circuit and a reference string that the policy pins, for points of the transcript.

Spec: `specs/verification.md`, step 11; `specs/step-proof.md`, "Verification". Nothing but the step proofs' bytes is
taken from the prover on its word: circuit, keys, settings and reference string are reached by a digest from the policy.

Shows: each proven step maps the state behind one committed point to the state behind the next, as the circuit says;
neighbouring ones follow each other. Does not show: what the points commit to (`attest.verdict.step_states` for the
run's ends, `attest.verdict.step_exclusion` for batches).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

from attest.predicate import StepsProven
from attest.verdict.case import Case, ProvenSteps
from attest.verdict.findings import weakest, worst
from attest.verdict.policy import Policy
from attest.verdict.report import ClaimReport
from attest.verdict.sets import links_since
from attest.verdict.step_kit import step_kit
from attest.verdict.step_states import PointMaker, check_ends
from pot.errors import MissingExtra, PotError, Refused
from pot.recording.transcript import StepEvent

if TYPE_CHECKING:
    from pot.zk.kit import VerifyingKit
    from pot.zk.proof import StepProof
    from pot.zk.verifier import Expected

__all__ = ["StepVerifier", "check_steps", "default_step_verifier", "step_events"]

_CODES: Final = ("circuit", "srs", "step-points", "step-proof", "step-chain")
_NO_CHECK: Final = "the circuit is not pinned or a part of it is missing"


class StepVerifier(Protocol):
    """Checks step proofs of one circuit; raises `Refused` where one is false, another `PotError` where it cannot."""

    def __call__(
        self, proofs: Sequence[StepProof], kit: VerifyingKit, circuit_sha256: str, expected: Sequence[Expected]
    ) -> None:
        """Check every step proof against what the transcript expects of it."""


def default_step_verifier(
    proofs: Sequence[StepProof], kit: VerifyingKit, circuit_sha256: str, expected: Sequence[Expected]
) -> None:
    """Check with ezkl in a limited subprocess (extra [zk])."""
    from pot.zk.engine import EzklEngine
    from pot.zk.verifier import verify_steps

    verify_steps(proofs, kit=kit, circuit_sha256=circuit_sha256, expected=expected, engine=EzklEngine())


def check_steps(case: Case, policy: Policy | None, verify: StepVerifier, points: PointMaker) -> list[ClaimReport]:
    """One claim for each circuit, with the links that step 11 decides. Fills `case.proven`, and `case.tied`."""
    return [
        _check_claim(case, claim, policy, verify, points)
        for claim in case.certificate.claims
        if isinstance(claim, StepsProven)
    ]


def step_events(case: Case) -> dict[str, StepEvent]:
    """The transcript's step events by their number."""
    return {step.step: step for segment in (case.chain.segments if case.chain else ()) for step in segment.steps}


def _check_claim(
    case: Case, claim: StepsProven, policy: Policy | None, verify: StepVerifier, points: PointMaker
) -> ClaimReport:
    start = len(case.ledger.findings)
    kit = step_kit(case, claim.circuit_sha256, policy)
    events = step_events(case)
    proven = _check_proofs(case, claim, kit, verify, events)
    unbroken = _check_chain(case, claim, events)
    if claim.first_opening_sha256 is not None or claim.last_opening_sha256 is not None:
        check_ends(case, claim, kit, points, events, all_proven=unbroken and len(proven) == len(events) > 0)
    codes = [*_CODES]
    if any(finding.code == "state-opening" for finding in case.ledger.findings[start:]):
        codes.append("state-opening")
    links = links_since(case, start, codes)
    known = case.proven.get(claim.circuit_sha256)
    if known is None or len(known.steps) < len(proven):
        case.proven[claim.circuit_sha256] = ProvenSteps(kit, frozenset(proven), tuple(links))
    return ClaimReport(
        certificate_sha256=case.sha256,
        type="steps-proven",
        sentence="",  # worded when the challenges and ties are known
        steps=[item.step for item in claim.steps],
        status=worst(link.status for link in links),
        level=weakest(link.level for link in links),
        links=links,
    )


def _check_proofs(
    case: Case, claim: StepsProven, kit: VerifyingKit | None, verify: StepVerifier, events: dict[str, StepEvent]
) -> set[str]:
    """The numbers of the steps whose proofs hold. Writes `step-points`, `step-proof`."""
    from pot.zk.verifier import read_step_proof

    proofs: list[StepProof] = []
    expected: list[Expected] = []
    if len({item.step for item in claim.steps}) != len(claim.steps):
        case.ledger.failed("step-points", "step proofs", "a step is listed twice")
        return set()
    for item in claim.steps:
        subject = f"step {item.step}"
        data = case.object("step-proof", item.proof_sha256, f"the step proof of step {item.step}")
        if data is None:
            continue
        try:
            proof = read_step_proof(data)
        except PotError as error:
            case.ledger.failed("step-proof", subject, str(error))
            continue
        if case.chain is None:
            case.ledger.not_checked("step-points", subject, "there is no transcript that holds the step's points")
            continue
        wanted = _check_points(case, claim, proof, item.step, events.get(item.step))
        if wanted is not None:
            proofs.append(proof)
            expected.append(wanted)
    if kit is None:
        case.ledger.not_checked("step-proof", "step proofs", _NO_CHECK)
    elif proofs and _run(case, verify, kit, claim, proofs, expected):
        return {proof.step for proof in proofs}
    return set()


def _check_points(
    case: Case, claim: StepsProven, proof: StepProof, number: str, event: StepEvent | None
) -> Expected | None:
    """The proof names this run, step and circuit, and its points are the transcript's.

    That its bytes are about the points that it names is the step verifier's to check.
    """
    from pot.zk.verifier import Expected

    subject = f"step {number}"
    if event is None or event.points is None:
        case.ledger.failed("step-points", subject, "the transcript holds no points for this step")
        return None
    pairs = (
        ("the step proof is of another run", case.certificate.run.precommit_sha256, proof.precommit_sha256),
        ("the step proof is of another step", number, proof.step),
        ("the step proof is of another circuit", claim.circuit_sha256, proof.circuit_sha256),
        *(
            (f"the point {name!r} is not the one in the transcript", getattr(event.points, name), found)
            for name, found in proof.points.model_dump().items()
        ),
    )
    for detail, expected, found in pairs:
        if expected != found:
            case.ledger.failed("step-points", subject, detail, expected=expected, found=found)
            return None
    case.ledger.passed("step-points", subject, "its points are those that the transcript committed for this step")
    return Expected(case.certificate.run.precommit_sha256, int(number), event.points)


def _run(
    case: Case, verify: StepVerifier, kit: VerifyingKit, claim: StepsProven,
    proofs: list[StepProof], expected: list[Expected],
) -> bool:  # fmt: skip
    numbers = ", ".join(proof.step for proof in proofs[:8]) + (" ..." if len(proofs) > 8 else "")
    subject = f"steps {numbers}"
    try:
        verify(proofs, kit, claim.circuit_sha256, expected)
    except Refused as error:
        case.ledger.failed("step-proof", subject, str(error))
        return False
    except MissingExtra as error:
        case.ledger.not_checked("step-proof", subject, str(error))
        return False
    except PotError as error:  # the engine crashed or ran past its limits: that shows nothing, either way
        case.ledger.not_checked("step-proof", subject, str(error))
        return False
    case.ledger.passed("step-proof", subject, f"{len(proofs)} step proofs hold under the pinned circuit and key")
    return True


def _check_chain(case: Case, claim: StepsProven, events: dict[str, StepEvent]) -> bool:
    """Neighbouring steps of the claim meet in one point; says how many of the run's steps that covers."""
    listed = sorted({int(item.step) for item in claim.steps if item.step in events})
    if not listed:
        case.ledger.not_checked("step-chain", "step proofs", "there is no transcript that holds the steps")
        return False
    parts = 1
    for one, other in pairwise(listed):
        if other != one + 1:
            parts += 1
            continue
        before, after = events[str(one)].points, events[str(other)].points
        if before is None or after is None or before.after != after.before:
            detail = f"step {other} does not begin at the point where step {one} ended"
            case.ledger.failed("step-chain", f"step {other}", detail)
            return False
    lines = "one unbroken line" if parts == 1 else f"{parts} unbroken lines"
    case.ledger.passed("step-chain", "step proofs", f"{len(listed)} of {len(events)} steps, in {lines}")
    return True
