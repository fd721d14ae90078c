"""The challenge of a step proof: what everything that was committed to is hashed to.

Implements `specs/step-proof.md`, section "Challenge": the transform of Fiat and Shamir (1986). The points of state,
next state, batch and witness come first, the challenge follows from them and from circuit, run and step; so whoever
made the points could not know it, and a proof for one run or step has another challenge than one for any other.

Shows: nothing alone. The circuit makes the challenge public, and the verifier computes it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pot.canonical import derive
from pot.errors import Malformed
from pot.zk.circuits.field import MODULUS, Vector
from pot.zk.circuits.layout import CHALLENGES

__all__ = ["challenge", "powers"]

_CONTEXT: Final = "pot/step-challenge/v1"


def challenge(
    *, circuit_sha256: str, precommit_sha256: str, step: int, names: Sequence[str], points: Mapping[str, str]
) -> Vector:
    """The challenge elements of one step. `points`: 128 hex digits for each of `names`, in the circuit's order."""
    parts = [bytes.fromhex(circuit_sha256), bytes.fromhex(precommit_sha256), step.to_bytes(8, "little")]
    parts += [bytes.fromhex(points[name]) for name in names]
    found = []
    for index in range(CHALLENGES):
        wide = b"".join(derive(_CONTEXT, *parts, bytes([index, half])) for half in (0, 1))
        found.append(int.from_bytes(wide, "little") % MODULUS)
    return found


def powers(challenges: Vector, runs: Sequence[Sequence[int]]) -> Vector:
    """The vector `challenge` of a part: its runs of powers, one behind the other. Raises `Malformed`."""
    found: Vector = []
    for number, stride, size in runs:
        if number >= len(challenges):
            raise Malformed(f"circuit: there is no challenge {number}")
        base, element = pow(challenges[number], stride, MODULUS), 1
        for _ in range(size):
            found.append(element)
            element = element * base % MODULUS
    return found
