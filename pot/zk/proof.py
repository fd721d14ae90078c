"""`StepProof`: one proof that one step was the exact training step, and the points that tie it to a transcript.

Implements `specs/step-proof.md`, section "Example". Prover and verifier share only this type, the circuit
and the engine. Reading one needs neither ezkl nor NumPy.

Shows: nothing until `verifier.verify_step` has compared its points with the transcript's.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import StringConstraints

from pot.canonical import Count, Document, Hex32
from pot.recording.transcript import Points
from pot.zk.circuit import BLOCKS

__all__ = ["MAX_PROOF_BYTES", "POINT_BYTES", "StepProof", "front_points"]

POINT_BYTES: Final = 64
MAX_PROOF_BYTES: Final = 64 << 10  # three times the largest proof measured (15 KB); stops absurd sizes before parsing


class StepProof(Document):
    """The proof of step `step` (1-based) of the run whose pre-commitment has this digest."""

    version: Literal["pot/step-proof/v1"]
    precommit_sha256: Hex32
    step: Count
    circuit_sha256: Hex32
    points: Points
    proof: Annotated[str, StringConstraints(pattern=r"\A([0-9a-f]{2})+\z", max_length=2 * MAX_PROOF_BYTES)]


def front_points(proof: bytes) -> dict[str, str] | None:
    """The points at the front of a proof by the names in `circuit.BLOCKS`, or None if it is too short for them."""
    if len(proof) < POINT_BYTES * len(BLOCKS):
        return None
    return {name: proof[i * POINT_BYTES : (i + 1) * POINT_BYTES].hex() for i, name in enumerate(BLOCKS)}
