"""Step 11: the circuit of step proofs, reached by digest from what the policy pins and the run promised.

Spec: `specs/verification.md`, step 11. Program, settings, keys and reference string are objects whose digests the
circuit names; the circuit's own digest stands in the pre-committed configuration and in the policy.

Shows: the circuit computes the step that was promised, under a reference string whose worth is known.
Does not show: that its program is the step that a reader has in mind; whoever pins it has looked at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attest.verdict.case import Case
from attest.verdict.findings import Level
from attest.verdict.policy import Policy
from attest.verdict.sentences import FAMILY_AUTO
from pot.errors import PotError

if TYPE_CHECKING:
    from pot.zk.circuit import Circuit
    from pot.zk.family import Step
    from pot.zk.kit import VerifyingKit

__all__ = ["step_kit"]

_MAX_CIRCUIT_BYTES: Final = 1 << 20
_MAX_PROGRAM_BYTES: Final = 16 << 20
_WORTH: Final = {
    "public-ceremony": "made by many, and sound unless all of them kept what they drew",
    "verifier": "made by a verifier, and sound towards whoever trusts that verifier to tell nobody its secret",
    "insecure-local": "whoever made it can prove anything",
}
"""What each class of a reference string is worth; the last one is never more than declared."""


def step_kit(case: Case, circuit_sha256: str, policy: Policy | None) -> VerifyingKit | None:
    """What is needed to check step proofs of a circuit; None where it is not all there or not pinned.

    Writes `circuit`, `srs`.
    """
    from pot.zk.auto_program import AutoProgram
    from pot.zk.circuit import Circuit
    from pot.zk.semantics.program import Program

    subject = f"circuit {circuit_sha256[:16]}"
    data = case.object("circuit", circuit_sha256, "the circuit")
    if data is None:
        return None
    try:
        circuit = Circuit.from_bytes(data, what="circuit", limit=_MAX_CIRCUIT_BYTES)
        text = case.object("circuit", circuit.program_sha256, "the circuit's program")
        kind = AutoProgram if circuit.family == "auto" else Program
        program = None if text is None else kind.from_bytes(text, what="program", limit=_MAX_PROGRAM_BYTES)
    except PotError as error:
        case.ledger.failed("circuit", subject, str(error))
        return None
    kit = _assembled(case, circuit, program)
    _check_srs(case, circuit, policy)
    if program is None or not _fits(case, circuit, program, subject):
        return None
    if policy is None or circuit_sha256 not in policy.circuits:
        case.ledger.not_checked(
            "circuit", subject, "the policy does not pin it: look at it, then add it to zk.circuits"
        )
        return None
    family = FAMILY_AUTO if circuit.family == "auto" else "family exact"
    if circuit.family == "auto":
        case.not_shown.add("rescales-steered")
    case.ledger.passed("circuit", subject, f"pinned by the policy, of the pre-committed shape; {family}")
    return kit


def _assembled(case: Case, circuit: Circuit, program: Step | None) -> VerifyingKit | None:
    from pot.zk.kit import KitPart, VerifyingKit

    parts: list[KitPart] = []
    whole = program is not None
    for number, part in enumerate(circuit.parts, 1):
        settings = case.object("circuit", part.settings_sha256, f"the settings of the circuit's part {number}")
        key = case.object("circuit", part.vk_sha256, f"the verifying key of the circuit's part {number}")
        if settings is None or key is None:
            whole = False
        else:
            parts.append(KitPart(settings, key))
    srs = case.object("srs", circuit.srs_sha256, "the structured reference string")
    if not whole or srs is None or program is None:
        return None
    return VerifyingKit(circuit, program, tuple(parts), srs)


def _fits(case: Case, circuit: Circuit, program: Step, subject: str) -> bool:
    """Whether the circuit computes the step that the pre-commitment promised."""
    from pot.zk.semantics.program import Program

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
    # a run in exact integers is one whose steps are the program's; steps taken in floats lie within a slack of it, or
    # are those of a graph of floats
    semantics = "exact" if isinstance(program, Program) and not any(item.slack for item in program.next) else "float"
    expected = f"{case.precommit.semantics}, batch {case.precommit.order.batch}"
    found = f"{semantics}, batch {program.batch}"
    if expected != found or circuit.batch != program.batch:
        detail = "its semantics or its batch are not the pre-committed ones"
        case.ledger.failed("circuit", subject, detail, expected=expected, found=found)
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
    case.ledger.passed("srs", subject, f"class {found}: {_WORTH[found]}", level)
