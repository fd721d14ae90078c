"""Proving a step: from weights, batch and blinds to a `StepProof`, verified before it is handed out.

Implements `specs/step-proof.md`, sections "Vectors" and "Limits". Every value is range-checked by the integer reference
first: ezkl's prover hangs forever on a value outside its table.

Shows: the prover's own check that the proof it returns verifies. Does not show: anything to others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pot.errors import Refused
from pot.recording.transcript import Points
from pot.zk.exact import Step, Weights, step
from pot.zk.kit import ProvingKit, commit_vectors
from pot.zk.packing import Vector, batch_vector, blinds, constants_vector, state_vector, witness_vector, zero_vector
from pot.zk.proof import StepProof, front_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.engine import Engine
    from pot.zk.kit import VerifyingKit
    from pot.zk.spec import CircuitSpec

    Ints = NDArray[np.int64]

__all__ = ["BatchToCommit", "StateToCommit", "commit_batches", "commit_states", "prove_step", "step_vectors"]

StateToCommit = tuple[int, Weights]
"""Step number t and the state after it (t = 0: the start)."""

BatchToCommit = tuple[int, "Ints", "Ints"]
"""Step number t (from 1), features (batch, inputs) and labels (batch,) of that step."""


def commit_states(kit: VerifyingKit, secret: bytes, states: Sequence[StateToCommit], engine: Engine) -> list[str]:
    """The point of each state, blinded by the run's secret, all in one go."""
    spec = kit.circuit.spec
    vectors = [
        state_vector(spec, weights, blinds(spec, secret, "state", number), start=number == 0)
        for number, weights in states
    ]
    return commit_vectors(kit, vectors, engine)


def commit_batches(kit: VerifyingKit, secret: bytes, batches: Sequence[BatchToCommit], engine: Engine) -> list[str]:
    """The point of each step's batch, blinded by the run's secret, all in one go."""
    spec = kit.circuit.spec
    vectors = [
        batch_vector(spec, features, labels, blinds(spec, secret, "batch", number))
        for number, features, labels in batches
    ]
    return commit_vectors(kit, vectors, engine)


def step_vectors(
    spec: CircuitSpec, secret: bytes, number: int, weights: Weights, features: Ints, labels: Ints
) -> tuple[list[Vector], list[Vector], Step]:
    """Inputs and expected outputs of the circuit for step `number` (from 1), and the step's result."""
    result = step(spec, weights, features, labels)
    next_blind = blinds(spec, secret, "state", number)
    inputs = [
        state_vector(spec, weights, blinds(spec, secret, "state", number - 1)),
        batch_vector(spec, features, labels, blinds(spec, secret, "batch", number)),
        witness_vector(spec, result, blinds(spec, secret, "witness", number), next_blind),
        constants_vector(spec),
    ]
    return inputs, [state_vector(spec, result.weights, next_blind), zero_vector(spec)], result


def prove_step(
    kit: ProvingKit, *, secret: bytes, precommit_sha256: str, number: int, weights: Weights, features: Ints,
    labels: Ints, engine: Engine,
) -> StepProof:  # fmt: skip
    """Prove step `number` (from 1) from the state before it and its batch; about 5 s on two cores for 64-32-10.

    `secret`: the run's 32 bytes from which all blinds derive. Raises `Malformed`, `RangeLeft`, `EngineFailure`,
    `Refused` when the proof does not verify (a defect, never handed out).
    """
    spec, verifying = kit.spec, kit.verifying
    inputs, outputs, _ = step_vectors(spec, secret, number, weights, features, labels)
    proof = engine.prove(kit.folder, inputs, outputs)
    points = front_points(proof)
    if points is None or str(len(proof)) != kit.circuit.proof_bytes:
        raise Refused(f"the proof of step {number} has {len(proof)} bytes, not {kit.circuit.proof_bytes}")
    if engine.verify([proof], verifying.settings, verifying.verifying_key, verifying.srs) != [True]:
        raise Refused(f"the proof of step {number} does not verify; nothing was written")
    return StepProof(
        version="pot/step-proof/v1",
        precommit_sha256=precommit_sha256,
        step=str(number),
        circuit_sha256=kit.circuit.sha256(),
        points=Points(before=points["before"], batch=points["batch"], after=points["after"]),
        proof=proof.hex(),
    )
