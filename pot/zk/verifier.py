"""Checking step proofs: against a pinned circuit, and against the points that a run's transcript holds.

Implements `specs/step-proof.md`, section "Verification"; the numbers stand in the code. Nothing but the proofs' bytes
and the points of the witness come from the prover: circuit, program, keys, settings and SRS are pinned by digest or
rebuilt, the other points are the transcript's, and the public outputs are computed here. ezkl runs in a limited
subprocess.

Shows: there are a state and a batch behind the transcript's points whose exact step is the state behind the next
point. Does not show: what the points open to (see `check_state_point`), or that the batch's records are licensed, true
or new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from pot.canonical import parse
from pot.errors import Malformed, Refused
from pot.recording.transcript import Points
from pot.zk.circuits.challenge import challenge
from pot.zk.circuits.field import Vector
from pot.zk.circuits.packing import Blinds
from pot.zk.engine import EngineFailure
from pot.zk.kit import VerifyingKit, commit_vectors, rebuild
from pot.zk.proof import MAX_STEP_PROOF_BYTES, StepProof, front_points, named_points

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.circuit import CircuitPart
    from pot.zk.engine import Engine

    Ints = NDArray[np.int64]

__all__ = [
    "Expected",
    "StepProofRefused",
    "check_batch_point",
    "check_circuit",
    "check_state_point",
    "read_step_proof",
    "verify_step",
    "verify_steps",
]

_AT_ONCE: Final = 128  # proofs that one child checks, far from its limits: a run may have thousands

Code = Literal["circuit", "kit", "run", "step", "length", "points", "constants", "invalid", "opening"]


class StepProofRefused(Refused):
    """A step proof does not show what it is presented for; `code` says which check said so."""

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(sentence)
        self.code: Code = code


class Expected(tuple[str, int, Points]):
    """What a proof must be about, from the transcript: pre-commitment digest, step number (from 1), points."""

    def __new__(cls, precommit_sha256: str, step: int, points: Points) -> Expected:
        return super().__new__(cls, (precommit_sha256, step, points))

    __slots__ = ()


def read_step_proof(data: bytes, *, what: str = "step proof") -> StepProof:
    """Parse a step proof object. Raises `Malformed`, `LimitExceeded`."""
    return StepProof.from_bytes(data, what=what, limit=MAX_STEP_PROOF_BYTES)


def verify_step(
    proof: StepProof, *, kit: VerifyingKit, circuit_sha256: str, expected: Expected, engine: Engine
) -> None:
    """Check one step proof. `circuit_sha256` is what the policy pins. Raises `StepProofRefused`, `EngineFailure`."""
    verify_steps([proof], kit=kit, circuit_sha256=circuit_sha256, expected=[expected], engine=engine)


def verify_steps(
    proofs: Sequence[StepProof], *, kit: VerifyingKit, circuit_sha256: str, expected: Sequence[Expected], engine: Engine
) -> None:
    """Check many step proofs of one circuit, few child processes a part. Raises like `verify_step`."""
    if len(proofs) != len(expected):
        raise StepProofRefused("step", f"{len(proofs)} step proofs are given for {len(expected)} steps")
    # 1 the circuit is the pinned one, and program, keys, settings and SRS are the circuit's
    _check_kit(kit, circuit_sha256)
    # 2 each proof is about the expected run, step and circuit, and its points are the transcript's
    family, names = kit.family, kit.layout.names()
    checked = [_check_statement(kit, proof, wanted, names) for proof, wanted in zip(proofs, expected, strict=True)]
    if not proofs:
        return
    if engine.version() != kit.circuit.ezkl_version:
        raise EngineFailure(
            "verify", f"version {engine.version()} is installed, the circuit was made with {kit.circuit.ezkl_version};"
            " install that one",
        )  # fmt: skip
    # 3 every part begins with the right points, and the proof system accepts it for outputs that are computed here
    for at, (part, document) in enumerate(zip(kit.parts, kit.circuit.parts, strict=True)):
        bodies = []
        for proof, (points, challenges) in zip(proofs, checked, strict=True):
            body = _check_front(proof, at, document, {**points, **family.pinned(kit.circuit)})
            bodies.append((body, family.public(challenges, document)))
        valid: list[bool] = []
        for start in range(0, len(bodies), _AT_ONCE):
            block = bodies[start : start + _AT_ONCE]
            valid += engine.verify(block, part.settings, part.verifying_key, kit.srs)
        for proof, accepted in zip(proofs, valid, strict=True):
            if not accepted:
                raise StepProofRefused(
                    "invalid", f"step {proof.step}: part {at + 1} of its proof does not verify under the circuit's key"
                )


def check_circuit(kit: VerifyingKit, engine: Engine) -> None:
    """Rebuild circuit, settings, keys and pinned points from the program: trusts no digest but the SRS's."""
    found = rebuild(kit, engine).circuit
    if found != kit.circuit:
        names = [name for name in type(found).model_fields if getattr(found, name) != getattr(kit.circuit, name)]
        raise StepProofRefused("circuit", f"the circuit is not the one of its program: {', '.join(names)} differ")


def check_state_point(
    kit: VerifyingKit, *, state: Mapping[str, Ints], blinds: Blinds, point: str, start: bool, engine: Engine
) -> None:
    """Recompute the points of an opened state (the first, with `start`, or the last). Raises `StepProofRefused`.

    `start` also demands the range in which a run begins, the base of the induction in `pot.zk.circuits.bounds`.
    """
    vectors = kit.family.state_vectors(kit.layout, state, blinds, start)
    _same_point("".join(commit_vectors(kit, vectors, engine)), point, "state")


def check_batch_point(
    kit: VerifyingKit, *, batch: Mapping[str, Ints], blinds: Blinds, point: str, engine: Engine
) -> None:
    """Recompute the points of an opened batch. Raises `StepProofRefused`, `Malformed`."""
    vectors = kit.family.batch_vectors(kit.layout, batch, blinds)
    _same_point("".join(commit_vectors(kit, vectors, engine)), point, "batch")


def _same_point(found: str, expected: str, what: str) -> None:
    if found != expected:
        raise StepProofRefused("opening", f"the opened {what} has another point than the transcript's {expected[:16]}…")


def _check_kit(kit: VerifyingKit, circuit_sha256: str) -> None:
    found = kit.circuit.sha256()
    if found != circuit_sha256:
        raise StepProofRefused("circuit", f"circuit {found} is not the pinned circuit {circuit_sha256}")
    try:
        kit.check()
    except Refused as error:
        raise StepProofRefused("kit", str(error)) from None
    if not kit.family.reads_all(kit.circuit):
        raise StepProofRefused("circuit", "the circuit's parts do not read the vectors that its program is laid out in")
    for part in kit.parts:  # the digest is pinned; this states which settings may be pinned at all
        settings = parse(part.settings, what="settings")
        arguments = settings.get("run_args") if isinstance(settings, dict) else None
        seen = ("input_visibility", "output_visibility")
        expected = list(kit.family.visibilities)
        if not isinstance(arguments, dict) or [arguments.get(name) for name in seen] != expected:
            raise Malformed(
                f"settings: inputs and outputs are not {' and '.join(expected)}, as the circuit's family is"
            )


def _check_statement(
    kit: VerifyingKit, proof: StepProof, expected: Expected, names: Sequence[str]
) -> tuple[dict[str, str], Vector]:
    """Run, step, circuit and points; returns the points by name, and the challenges that follow from all of it."""
    precommit, number, points = expected
    if proof.circuit_sha256 != kit.circuit.sha256():
        raise StepProofRefused("circuit", f"step {number}: the proof names another circuit")
    if proof.precommit_sha256 != precommit:
        raise StepProofRefused("run", f"step {number}: the proof is of run {proof.precommit_sha256}, not {precommit}")
    if proof.step != str(number) or not 1 <= number <= kit.circuit.max_steps:
        raise StepProofRefused("step", f"the proof is of step {proof.step}, not of step {number} of this run")
    if len(proof.proofs) != len(kit.circuit.parts):
        raise StepProofRefused("length", f"step {number}: {len(proof.proofs)} parts, not {len(kit.circuit.parts)}")
    for name in ("before", "batch", "after"):
        if getattr(proof.points, name) != getattr(points, name):
            raise StepProofRefused("points", f"step {number}: the point {name!r} is not the one in the transcript")
    named = named_points(names, points, proof.witness)
    if named is None:
        raise StepProofRefused("points", f"step {number}: it has another number of points than the circuit's vectors")
    found = challenge(
        circuit_sha256=kit.circuit.sha256(), precommit_sha256=precommit, step=number, names=names, points=named
    )
    return named, found


def _check_front(proof: StepProof, at: int, part: CircuitPart, points: Mapping[str, str]) -> bytes:
    """Length and leading points of one part's proof; returns its bytes."""
    body = bytes.fromhex(proof.proofs[at])
    if str(len(body)) != part.proof_bytes:  # ezkl ignores trailing bytes
        raise StepProofRefused("length", f"step {proof.step}: {len(body)} bytes, proofs have {part.proof_bytes}")
    front = front_points(body, part.inputs)
    if front is None:
        raise StepProofRefused("length", f"step {proof.step}: the proof is too short to hold its points")
    for name in part.inputs:
        if name != "challenge" and front[name] != points[name]:  # a challenge has no point: its vector is public
            code: Code = "constants" if name == "constants" else "points"
            raise StepProofRefused(code, f"step {proof.step}: the proof computes with another {name}")
    return body
