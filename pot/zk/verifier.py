"""Checking step proofs: against a pinned circuit, and against the points that a run's transcript holds.

Implements `specs/step-proof.md`, section "Verification"; the numbers stand in the code. Nothing but the proof's bytes
comes from the prover: circuit, key, settings and SRS are pinned by digest or rebuilt, and the points are the
transcript's. ezkl runs in a limited subprocess, because it parses hostile bytes.

Shows: there are a state and a batch behind the transcript's points whose exact step is the state behind the next point.
Does not show: what the points open to (see `check_state_point`), or that the batch's records are licensed, true or new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pot.canonical import parse
from pot.errors import Malformed, Refused
from pot.recording.transcript import Points
from pot.zk.kit import VerifyingKit, commit_vectors, rebuild
from pot.zk.packing import batch_vector, state_vector
from pot.zk.proof import MAX_PROOF_BYTES, StepProof, front_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.circuit import Circuit
    from pot.zk.engine import Engine
    from pot.zk.exact import Weights

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

Code = Literal["circuit", "kit", "run", "step", "length", "points", "constants", "residual", "invalid", "opening"]


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
    return StepProof.from_bytes(data, what=what, limit=3 * MAX_PROOF_BYTES)


def verify_step(
    proof: StepProof, *, kit: VerifyingKit, circuit_sha256: str, expected: Expected, engine: Engine
) -> None:
    """Check one step proof. `circuit_sha256` is what the policy pins. Raises `StepProofRefused`, `EngineFailure`."""
    verify_steps([proof], kit=kit, circuit_sha256=circuit_sha256, expected=[expected], engine=engine)


def verify_steps(
    proofs: Sequence[StepProof], *, kit: VerifyingKit, circuit_sha256: str, expected: Sequence[Expected], engine: Engine
) -> None:
    """Check many step proofs of one circuit in one child process (about 20 ms each). Raises like `verify_step`."""
    if len(proofs) != len(expected):
        raise StepProofRefused("step", f"{len(proofs)} step proofs are given for {len(expected)} steps")
    # 1 the circuit is the pinned one, and key, settings and SRS are the circuit's
    _check_kit(kit, circuit_sha256)
    # 2 each proof is about the expected run, step and circuit, and its points are the transcript's
    bodies = [_check_front(proof, kit.circuit, wanted) for proof, wanted in zip(proofs, expected, strict=True)]
    # 3 the proof system accepts
    if not bodies:
        return
    for proof, valid in zip(proofs, engine.verify(bodies, kit.settings, kit.verifying_key, kit.srs), strict=True):
        if not valid:
            raise StepProofRefused("invalid", f"step {proof.step}: the proof does not verify under the circuit's key")


def check_circuit(kit: VerifyingKit, engine: Engine) -> None:
    """Rebuild circuit, settings, key and pinned points from the spec and compare: trusts no digest but the SRS's."""
    found = rebuild(kit.circuit.spec, kit.srs, engine).circuit
    if found != kit.circuit:
        names = [name for name in type(found).model_fields if getattr(found, name) != getattr(kit.circuit, name)]
        raise StepProofRefused("circuit", f"the circuit is not the one of its spec: {', '.join(names)} differ")


def check_state_point(
    kit: VerifyingKit, *, weights: Weights, blind: Sequence[int], point: str, start: bool, engine: Engine
) -> None:
    """Recompute the point of an opened state (the first, with `start`, or the last). Raises `StepProofRefused`.

    `start` also demands |w| < 64, the base of the induction that keeps every later state inside its lanes.
    """
    vector = state_vector(kit.circuit.spec, weights, blind, start=start)
    _same_point(commit_vectors(kit, [vector], engine)[0], point, "state")


def check_batch_point(
    kit: VerifyingKit, *, features: Ints, labels: Ints, blind: Sequence[int], point: str, engine: Engine
) -> None:
    """Recompute the point of an opened batch. Raises `StepProofRefused`, `Malformed`."""
    vector = batch_vector(kit.circuit.spec, features, labels, blind)
    _same_point(commit_vectors(kit, [vector], engine)[0], point, "batch")


def _same_point(found: str, expected: str, what: str) -> None:
    if found != expected:
        raise StepProofRefused("opening", f"the opened {what} has another point than the transcript's {expected[:16]}…")


def _check_kit(kit: VerifyingKit, circuit_sha256: str) -> None:
    found = kit.circuit.sha256()
    if found != circuit_sha256:
        raise StepProofRefused("circuit", f"circuit {found} is not the pinned circuit {circuit_sha256}")
    try:
        kit.check()
        settings = parse(kit.settings, what="settings")
    except Refused as error:
        raise StepProofRefused("kit", str(error)) from None
    # the digest is pinned; this states which settings may be pinned at all
    arguments = settings.get("run_args") if isinstance(settings, dict) else None
    if not isinstance(arguments, dict) or (arguments.get("input_visibility"), arguments.get("output_visibility")) != (
        "KZGCommit",
        "KZGCommit",
    ):
        raise Malformed("settings: inputs and outputs of the circuit are not committed to by points")


def _check_front(proof: StepProof, circuit: Circuit, expected: Expected) -> bytes:
    """Run, step, circuit, length and points; returns the proof's bytes."""
    precommit, number, points = expected
    if proof.circuit_sha256 != circuit.sha256():
        raise StepProofRefused("circuit", f"step {number}: the proof names another circuit")
    if proof.precommit_sha256 != precommit:
        raise StepProofRefused("run", f"step {number}: the proof is of run {proof.precommit_sha256}, not {precommit}")
    if proof.step != str(number) or not 1 <= number <= circuit.spec.max_steps:
        raise StepProofRefused("step", f"the proof is of step {proof.step}, not of step {number} of this run")
    body = bytes.fromhex(proof.proof)
    if str(len(body)) != circuit.proof_bytes:  # ezkl ignores trailing bytes
        raise StepProofRefused("length", f"step {number}: {len(body)} bytes, proofs have {circuit.proof_bytes}")
    front = front_points(body)
    if front is None:
        raise StepProofRefused("length", f"step {number}: the proof is too short to hold its points")
    for name in ("before", "batch", "after"):
        wanted = getattr(points, name)
        if front[name] != wanted or getattr(proof.points, name) != wanted:
            raise StepProofRefused("points", f"step {number}: the point {name!r} is not the one in the transcript")
    if front["constants"] != circuit.constants_point:
        raise StepProofRefused("constants", f"step {number}: the proof computes with other constants")
    if front["residual"] != circuit.zero_point:
        raise StepProofRefused("residual", f"step {number}: a rounding, label or bias feature in it is wrong")
    return body
