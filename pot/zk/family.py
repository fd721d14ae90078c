"""What kit, prover and verifier need to know of a family of circuits, so that they are written once for both.

Implements `specs/step-proof.md`, sections "Circuit" and "Family auto". A family says how a step becomes vectors and
parts, and what a verifier demands of their proofs; `exact_family` and `auto_family` are the two.

Shows: nothing alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pot.zk.auto_program import AutoProgram
from pot.zk.circuits.field import Vector
from pot.zk.semantics.program import Program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.circuit import Circuit, CircuitPart
    from pot.zk.circuits.layout import Layout
    from pot.zk.circuits.parts import Shape
    from pot.zk.engine import Engine

    Ints = NDArray[np.int64]

__all__ = ["Draft", "Family", "GridTensor", "PartVectors", "Plan", "Step", "StepVectors", "family_of"]

Step = Program | AutoProgram
"""The document of a step: what a circuit is made for."""


@dataclass(frozen=True)
class Draft:
    """What the files of one part are made from."""

    onnx: bytes
    inputs: list[str]
    powers: list[list[int]]
    lengths: list[int]
    """Of the vectors that are given to the prover."""
    arguments: Mapping[str, Any]
    canonical: Callable[[bytes], bytes]
    """ezkl's settings made deterministic. Raises `Malformed` where the circuit came out otherwise than designed."""
    check_tables: Callable[[Sequence[str]], None]
    """Raises `Malformed` for other lookup tables than the part's."""


@dataclass(frozen=True)
class Plan:
    """All parts of a circuit, and the constants that they share (None: the family has none)."""

    drafts: list[Draft]
    constants: Vector | None


@dataclass(frozen=True)
class StepVectors:
    """Everything that a step commits to, by vector name."""

    vectors: dict[str, Vector]
    distance: float | None
    """From the float step, in units of the state's grid; None where the step is exact or nothing to compare with."""


@dataclass(frozen=True)
class PartVectors:
    """One part of a step: what the prover is given, what must come out, and what of it is public."""

    inputs: list[Vector]
    outputs: Vector
    public: Vector


class GridTensor(NamedTuple):
    """One tensor of a state: an integer v in it stands for v / 2^bits."""

    shape: list[int]
    bits: int


class Family(Protocol):
    """One kind of circuit, for one step."""

    @property
    def visibilities(self) -> tuple[str, str]:
        """Of inputs and outputs, as ezkl's settings call them."""

    @property
    def state_tensors(self) -> dict[str, GridTensor]:
        """The tensors of the state by name."""

    @property
    def field_names(self) -> list[str]:
        """The fields that the step reads of a record."""

    def batch_arrays(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Ints]:
        """int64 tensors by field of one batch's records. Raises `Malformed`, which names record and field."""

    def layout(self, logrows: int, blinds: int) -> Layout:
        """The vectors of a step. Raises `UsageError` where they cannot fit."""

    def shape(self, logrows: int, columns: int | None, engine: Engine) -> Shape:
        """Rows, columns and blinds of a circuit to be made."""

    def plan(self, shape: Shape) -> Plan:
        """The parts of the circuit. Raises `UsageError`, `Malformed`."""

    def check(self, circuit: Circuit) -> None:
        """What only this family demands of a circuit's document. Raises `Refused`, `Malformed`."""

    def reads_all(self, circuit: Circuit) -> bool:
        """Whether the parts' proofs begin with the points of exactly the vectors that the step is laid out in."""

    def pinned(self, circuit: Circuit) -> dict[str, str]:
        """Points at the front of proofs that the circuit pins."""

    def state_vectors(
        self, layout: Layout, state: Mapping[str, Ints], blinds: list[Vector], start: bool
    ) -> list[Vector]:
        """The vectors of a state. Raises `Malformed`, `RangeLeft`."""

    def batch_vectors(self, layout: Layout, batch: Mapping[str, Ints], blinds: list[Vector]) -> list[Vector]:
        """The vectors of a batch. Raises `Malformed`."""

    def next_state(
        self, state: Mapping[str, Ints], batch: Mapping[str, Ints], after: Mapping[str, Ints] | None
    ) -> Mapping[str, Ints]:
        """The next state of a step, where one is recorded in `after` the recorded one. Raises `Refused`."""

    def step(
        self, circuit: Circuit, secret: bytes, number: int, state: Mapping[str, Ints], batch: Mapping[str, Ints],
        after: Mapping[str, Ints] | None,
    ) -> StepVectors:  # fmt: skip
        """The vectors of step `number`. Raises `Malformed`, `Refused`."""

    def part(self, vectors: Mapping[str, Vector], challenges: Vector, part: CircuitPart) -> PartVectors:
        """One part of a step, once the challenges are known."""

    def public(self, challenges: Vector, part: CircuitPart) -> Vector:
        """The public outputs of a part, as the verifier computes them."""


def family_of(step: Step, onnx: bytes = b"") -> Family:
    """The family of a step's document. `onnx`: the graph of an `AutoProgram`, where circuits are to be made from it."""
    if isinstance(step, AutoProgram):
        from pot.zk.auto_family import AutoFamily

        return AutoFamily(step, onnx)
    from pot.zk.exact_family import ExactFamily

    return ExactFamily(step)
