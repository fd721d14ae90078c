"""The steps of an open segment: what they were computed from, and the points that go into the transcript for them.

Spec: `specs/step-proof.md`, "Integer training". Before a segment's events are written, the KZG points of its states and
batches are made, so that they stand in the transcript before anybody can challenge a step.

Shows: nothing by itself. Does not show: that the points are those of the states (auditors who know the secret recompute
them; step proofs show it for the steps they cover).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pot.errors import UsageError
from pot.recording.transcript import Points

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["SECRET_BYTES", "MakePoints", "Numbered", "OpenSegment", "StepInputs"]

SECRET_BYTES: Final = 32

Numbered = tuple[int, "Mapping[str, Ints]"]
"""A step number and tensors by name: the state after that step (0: the start), or that step's batch."""


class MakePoints(Protocol):
    """What turns states and batches into KZG points."""

    def __call__(self, secret: bytes, states: Sequence[Numbered], batches: Sequence[Numbered]) -> list[str]:
        """The point of each state, then of each batch, blinded by the run's secret."""


@dataclass(frozen=True)
class StepInputs:
    """What one step was computed from: everything that proving it again needs besides the secret."""

    number: int
    before: Mapping[str, Ints]
    batch: Mapping[str, Ints]
    after: Mapping[str, Ints] | None = None
    """The recorded next state where it is not the exact one: a step that was taken in floats."""


class OpenSegment:
    """Collects the steps since the last points were made."""

    def __init__(self, secret: bytes, make_points: MakePoints | None) -> None:
        """`make_points`: None only in a replay on a machine that cannot make them. Raises `UsageError`."""
        if len(secret) != SECRET_BYTES:
            raise UsageError(f"the secret that blinds the points has {len(secret)} bytes, not {SECRET_BYTES}")
        self._secret = secret
        self._make_points = make_points
        self.steps: list[StepInputs] = []

    def points(self, numbers: list[int], last: Mapping[str, Ints]) -> list[Points] | None:
        """The points of these consecutive steps, made at once; forgets them. `last`: the state after all of them.

        Raises `UsageError` where these are not the steps that were collected, or another number of points comes back.
        """
        steps = self.steps
        if (
            not numbers
            or [item.number for item in steps] != numbers
            or numbers != [*range(numbers[0], numbers[-1] + 1)]
        ):
            found = ", ".join(str(item.number) for item in steps[:8])
            raise UsageError(
                f"points of steps {numbers[:8]} are asked for, trained were {found or 'none'}: number them from 1"
            )
        self.steps = []
        if self._make_points is None:
            return None
        states = [(item.number - 1, item.before) for item in steps]
        states.append((numbers[-1], last))
        points = self._make_points(self._secret, states, [(item.number, item.batch) for item in steps])
        if len(points) != len(states) + len(steps):
            raise UsageError(f"{len(points)} points came back for {len(states)} states and {len(steps)} batches")
        batches = points[len(states) :]
        return [Points(before=points[at], batch=batches[at], after=points[at + 1]) for at in range(len(steps))]
