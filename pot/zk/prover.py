"""Proving a step: from state, batch and blinds to a `StepProof`, verified before it is handed out.

Implements `specs/step-proof.md`, sections "Vectors", "Challenge" and "Limits". In family exact every value is
range-checked by the integer reference first: ezkl's prover hangs forever on a value outside its table. In family auto
only the time limit ends it.

Shows: the prover's own check that the proof it returns verifies. Does not show: anything to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pot.errors import Refused
from pot.recording.transcript import Points
from pot.zk.circuits.challenge import challenge
from pot.zk.circuits.field import Vector
from pot.zk.kit import ProvingKit, VerifyingKit, commit_vectors
from pot.zk.proof import StepProof, front_points, named_points

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.engine import Engine

    Ints = NDArray[np.int64]

__all__ = ["Prepared", "assemble", "check_part", "prepare_step", "prove_part", "prove_step"]


@dataclass(frozen=True)
class Prepared:
    """A step whose vectors are committed to: what every part of its proof is made from."""

    number: int
    precommit_sha256: str
    points: Points
    witness: list[str]
    inputs: list[list[Vector]]
    """For each part, its input vectors in order."""
    public: list[Vector]
    """For each part, its public outputs: powers of the challenges, and zero; none in family auto."""
    outputs: list[Vector] = field(default_factory=list)
    """For each part, all its outputs."""
    distance: float | None = None
    """Family auto: how far the next state lies from the float step, in units of its grid."""


def prepare_step(
    kit: VerifyingKit, *, secret: bytes, precommit_sha256: str, number: int, state: Mapping[str, Ints],
    batch: Mapping[str, Ints], after: Mapping[str, Ints] | None = None, engine: Engine,
) -> Prepared:  # fmt: skip
    """Run step `number` (from 1; family auto: take its `after`), commit to its vectors, and derive the challenge.

    `secret`: the run's 32 bytes from which all blinds derive. Raises `Malformed`, `RangeLeft`, `EngineFailure`.
    """
    family, circuit = kit.family, kit.circuit
    made = family.step(circuit, secret, number, state, batch, after)
    names = kit.layout.names()
    points = dict(zip(names, commit_vectors(kit, [made.vectors[name] for name in names], engine), strict=True))
    found = challenge(
        circuit_sha256=circuit.sha256(), precommit_sha256=precommit_sha256, step=number, names=names, points=points
    )
    parts = [family.part(made.vectors, found, part) for part in circuit.parts]

    def joined(which: str) -> str:
        return "".join(points[name] for name in names if name.partition(".")[0] == which)

    return Prepared(
        number, precommit_sha256, Points(before=joined("before"), batch=joined("batch"), after=joined("after")),
        [points[name] for name in names if name.startswith("witness.")],
        [part.inputs for part in parts], [part.public for part in parts], [part.outputs for part in parts],
        made.distance,
    )  # fmt: skip


def prove_part(kit: ProvingKit, prepared: Prepared, part: int, engine: Engine) -> bytes:
    """Prove one part of a prepared step and verify it. Raises `Malformed`, `EngineFailure`, `Refused` (a defect)."""
    proof = engine.prove(kit.part_folder(part), prepared.inputs[part], prepared.outputs[part])
    check_part(kit, prepared, part, proof, engine)
    return proof


def check_part(kit: ProvingKit, prepared: Prepared, part: int, proof: bytes, engine: Engine) -> None:
    """Whether a proof is one of this part of this step. Raises `Refused`, `EngineFailure`."""
    document, files = kit.circuit.parts[part], kit.verifying.parts[part]
    if str(len(proof)) != document.proof_bytes:
        raise Refused(f"the proof of step {prepared.number} has {len(proof)} bytes, not {document.proof_bytes}")
    points = named_points(kit.verifying.layout.names(), prepared.points, prepared.witness) or {}
    front = front_points(proof, document.inputs) or {}
    if any(front.get(name) != point for name, point in points.items() if name in document.inputs):
        raise Refused(f"the proof of step {prepared.number} begins with other points than its vectors have")
    checked = engine.verify([(proof, prepared.public[part])], files.settings, files.verifying_key, kit.verifying.srs)
    if checked != [True]:
        raise Refused(f"the proof of step {prepared.number} does not verify; nothing was written")


def assemble(kit: VerifyingKit, prepared: Prepared, proofs: list[bytes]) -> StepProof:
    """The step proof of a prepared step from the proofs of its parts, in order."""
    return StepProof(
        version="pot/step-proof/v2",
        precommit_sha256=prepared.precommit_sha256,
        step=str(prepared.number),
        circuit_sha256=kit.circuit.sha256(),
        points=prepared.points,
        witness=prepared.witness,
        proofs=[proof.hex() for proof in proofs],
    )


def prove_step(
    kit: ProvingKit, *, secret: bytes, precommit_sha256: str, number: int, state: Mapping[str, Ints],
    batch: Mapping[str, Ints], after: Mapping[str, Ints] | None = None, engine: Engine,
) -> StepProof:  # fmt: skip
    """Prepare a step and prove its parts one after the other; `pot.zk.schedule` proves many at once."""
    prepared = prepare_step(
        kit.verifying, secret=secret, precommit_sha256=precommit_sha256, number=number, state=state, batch=batch,
        after=after, engine=engine,
    )  # fmt: skip
    proofs = [prove_part(kit, prepared, part, engine) for part in range(len(kit.circuit.parts))]
    return assemble(kit.verifying, prepared, proofs)
