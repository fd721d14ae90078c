"""Step 11: step proofs, under a circuit and a reference string that the policy pins, for points of the transcript.

Spec: `specs/verification.md`, step 11; `specs/step-proof.md`, "Verification". Nothing but the step proofs' bytes is
taken from the prover on its word: circuit, keys, settings and reference string are reached by a digest from the policy.

Shows: each proven step maps the state behind one committed point to the state behind the next, as the circuit says.
Does not show: that the points commit to the released weights and the committed records (`points-tie`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from attest.predicate import StepsProven
from attest.verdict.case import Case
from attest.verdict.findings import Level, Link, weakest, worst
from attest.verdict.policy import Policy
from attest.verdict.report import ClaimReport
from attest.verdict.sentences import STEPS
from pot.errors import MissingExtra, PotError, Refused
from pot.recording.transcript import StepEvent

if TYPE_CHECKING:
    from pot.zk.circuit import Circuit
    from pot.zk.kit import VerifyingKit
    from pot.zk.proof import StepProof
    from pot.zk.verifier import Expected

__all__ = ["StepVerifier", "check_steps", "default_step_verifier"]

_MAX_CIRCUIT_BYTES: Final = 64 << 10
_CODES: Final = ("circuit", "srs", "step-points", "step-proof")
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


def check_steps(case: Case, policy: Policy | None, verify: StepVerifier) -> list[ClaimReport]:
    """One claim for each circuit, with the links that step 11 decides."""
    return [
        _check_claim(case, claim, policy, verify) for claim in case.certificate.claims if isinstance(claim, StepsProven)
    ]


def _check_claim(case: Case, claim: StepsProven, policy: Policy | None, verify: StepVerifier) -> ClaimReport:
    start = len(case.ledger.findings)
    kit = _kit(case, claim, policy)
    _check_proofs(case, claim, kit, verify)
    links = []
    for code in _CODES:
        mine = [finding for finding in case.ledger.findings[start:] if finding.code == code]
        status = worst(finding.status for finding in mine) if mine else "not_checked"
        level: Level = weakest(f.level or "declared" for f in mine) if mine and status == "passed" else "declared"
        detail = next((f.detail for f in mine if f.status == status), "not reached")
        links.append(Link(code=code, status=status, level=level, detail=detail))
    numbers = {item.step for item in claim.steps}
    drawn = [c for c in case.challenges if c.unit == "step" and set(c.chosen) <= numbers]
    return ClaimReport(
        certificate_sha256=case.sha256,
        type="steps-proven",
        sentence=STEPS,
        steps=[item.step for item in claim.steps],
        verifier_chosen=bool(drawn),
        status=worst(link.status for link in links),
        level=weakest(link.level for link in links),
        links=links,
    )


def _kit(case: Case, claim: StepsProven, policy: Policy | None) -> VerifyingKit | None:
    """Circuit, settings, key and reference string: objects, reached by digest from the circuit that the policy pins."""
    from pot.zk.circuit import Circuit
    from pot.zk.kit import VerifyingKit

    subject = f"circuit {claim.circuit_sha256[:16]}"
    data = case.object("circuit", claim.circuit_sha256, "the circuit")
    if data is None:
        return None
    try:
        circuit = Circuit.from_bytes(data, what="circuit", limit=_MAX_CIRCUIT_BYTES)
    except PotError as error:
        case.ledger.failed("circuit", subject, str(error))
        return None
    parts = [
        case.object("circuit", circuit.settings_sha256, "the circuit's settings"),
        case.object("circuit", circuit.vk_sha256, "the circuit's verifying key"),
        case.object("srs", circuit.srs_sha256, "the structured reference string"),
    ]
    _check_srs(case, circuit, policy)
    if not _fits(case, circuit, subject):
        return None
    if policy is None or claim.circuit_sha256 not in policy.circuits:
        case.ledger.not_checked(
            "circuit", subject, "the policy does not pin it: look at it, then add it to zk.circuits"
        )
        return None
    case.ledger.passed("circuit", subject, f"pinned by the policy; family {circuit.family}, of the pre-committed shape")
    settings, key, srs = parts
    if settings is None or key is None or srs is None:
        return None
    return VerifyingKit(circuit, settings, key, srs)


def _fits(case: Case, circuit: Circuit, subject: str) -> bool:
    """Whether the circuit computes the step that the pre-commitment promised."""
    if case.precommit is None:
        case.ledger.not_checked("circuit", subject, "there is no pre-commitment to compare its shape with")
        return False
    promised = case.precommit.config.get("circuit_sha256")
    if promised is None:
        case.ledger.not_checked("circuit", subject, "the pre-committed config names no circuit (circuit_sha256)")
        return False
    if promised != circuit.sha256():
        case.ledger.failed(
            "circuit", subject, "the pre-committed config names another circuit",
            expected=str(promised), found=circuit.sha256(),
        )  # fmt: skip
        return False
    if case.precommit.semantics != "exact" or case.precommit.order.batch != str(circuit.spec.batch):
        case.ledger.failed(
            "circuit", subject, "its batch is not the pre-committed one",
            expected=f"exact, batch {case.precommit.order.batch}", found=f"exact, batch {circuit.spec.batch}",
        )  # fmt: skip
        return False
    return True


def _check_srs(case: Case, circuit: Circuit, policy: Policy | None) -> None:
    from pot.zk.srs import PUBLIC_CEREMONY, classify

    subject = f"reference string {circuit.srs_sha256[:16]}"
    known = policy.srs if policy is not None else {}
    if circuit.srs_sha256 not in known and circuit.srs_sha256 not in PUBLIC_CEREMONY.values():
        case.ledger.not_checked("srs", subject, "not the public ceremony's, and the policy does not pin it in zk.srs")
        return
    found = classify(circuit.srs_sha256, known)
    level: Level = "declared" if found == "insecure-local" else "proved"
    worth = "; whoever made it can prove anything" if level == "declared" else ""
    case.ledger.passed("srs", subject, f"class {found}{worth}", level)


def _check_proofs(case: Case, claim: StepsProven, kit: VerifyingKit | None, verify: StepVerifier) -> None:
    from pot.zk.verifier import read_step_proof

    events = {step.step: step for segment in (case.chain.segments if case.chain else ()) for step in segment.steps}
    proofs: list[StepProof] = []
    expected: list[Expected] = []
    if len({item.step for item in claim.steps}) != len(claim.steps):
        case.ledger.failed("step-points", "step proofs", "a step is listed twice")
        return
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
    elif proofs:
        _run(case, verify, kit, claim, proofs, expected)


def _check_points(
    case: Case, claim: StepsProven, proof: StepProof, number: str, event: StepEvent | None
) -> Expected | None:
    """The proof names this run, step and circuit, and its points, also those in its bytes, are the transcript's."""
    from pot.zk.proof import front_points
    from pot.zk.verifier import Expected

    subject = f"step {number}"
    if event is None or event.points is None:
        case.ledger.failed("step-points", subject, "the transcript holds no points for this step")
        return None
    pairs = (
        ("the step proof is of another run", case.certificate.run.precommit_sha256, proof.precommit_sha256),
        ("the step proof is of another step", number, proof.step),
        ("the step proof is of another circuit", claim.circuit_sha256, proof.circuit_sha256),
    )
    for detail, expected, found in pairs:
        if expected != found:
            case.ledger.failed("step-points", subject, detail, expected=expected, found=found)
            return None
    front = front_points(bytes.fromhex(proof.proof)) or {}
    for name in ("before", "batch", "after"):
        expected = getattr(event.points, name)
        for found in (getattr(proof.points, name), front.get(name, "none")):
            if expected != found:
                detail = f"the point {name!r} is not the one in the transcript"
                case.ledger.failed("step-points", subject, detail, expected=expected, found=found)
                return None
    case.ledger.passed("step-points", subject, "its points are those that the transcript committed for this step")
    return Expected(case.certificate.run.precommit_sha256, int(number), event.points)


def _run(
    case: Case,
    verify: StepVerifier,
    kit: VerifyingKit,
    claim: StepsProven,
    proofs: list[StepProof],
    expected: list[Expected],
) -> None:
    numbers = ", ".join(proof.step for proof in proofs[:8]) + (" ..." if len(proofs) > 8 else "")
    subject = f"steps {numbers}"
    try:
        verify(proofs, kit, claim.circuit_sha256, expected)
    except Refused as error:
        case.ledger.failed("step-proof", subject, str(error))
    except MissingExtra as error:
        case.ledger.not_checked("step-proof", subject, str(error))
    except PotError as error:  # the engine crashed or ran past its limits: that shows nothing, either way
        case.ledger.not_checked("step-proof", subject, str(error))
    else:
        case.ledger.passed("step-proof", subject, f"{len(proofs)} step proofs hold under the pinned circuit and key")
