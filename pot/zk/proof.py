"""`StepProof`: the proof of one step, in one or more parts, and the points that tie it to a transcript.

Implements `specs/step-proof.md`, section "Example". Prover and verifier share only this type, the circuit
and the engine. Reading one needs neither ezkl nor NumPy.

Shows: nothing until `verifier.verify_steps` has compared its points with the transcript's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from pot.canonical import Count, Document, Hex32
from pot.recording.transcript import Point, Points
from pot.zk.circuits.parts import MAX_PARTS

__all__ = ["MAX_PROOF_BYTES", "MAX_STEP_PROOF_BYTES", "POINT_BYTES", "StepProof", "front_points", "named_points"]

POINT_BYTES: Final = 64
MAX_PROOF_BYTES: Final = 64 << 10  # of one part: many times the largest measured (8 KB); stops absurd sizes early
MAX_STEP_PROOF_BYTES: Final = 2 * MAX_PARTS * MAX_PROOF_BYTES + (64 << 10)


class StepProof(Document):
    """The proof of step `step` (1-based) of the run whose pre-commitment has this digest."""

    version: Literal["pot/step-proof/v2"]
    precommit_sha256: Hex32
    step: Count
    circuit_sha256: Hex32
    points: Points
    witness: Annotated[list[Point], Field(max_length=256)]
    """Points of the witness vectors."""
    proofs: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"\A([0-9a-f]{2})+\z", max_length=2 * MAX_PROOF_BYTES)]],
        Field(min_length=1, max_length=MAX_PARTS),
    ]


def named_points(names: Sequence[str], points: Points, witness: Sequence[str]) -> dict[str, str] | None:
    """The points by vector name, or None where their number is another than that of the names."""
    found: dict[str, str] = {}
    families = {"before": points.before, "after": points.after, "batch": points.batch, "witness": "".join(witness)}
    for family, text in families.items():
        wanted = [name for name in names if name.partition(".")[0] == family]
        parts = [text[at : at + 2 * POINT_BYTES] for at in range(0, len(text), 2 * POINT_BYTES)]
        if len(parts) != len(wanted):
            return None
        found.update(zip(wanted, parts, strict=True))
    return found


def front_points(proof: bytes, inputs: Sequence[str]) -> dict[str, str] | None:
    """The points at the front of a part's proof by the names of its inputs, or None if it is too short for them."""
    if len(proof) < POINT_BYTES * len(inputs):
        return None
    return {name: proof[at * POINT_BYTES : (at + 1) * POINT_BYTES].hex() for at, name in enumerate(inputs)}
