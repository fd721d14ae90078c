"""Family exact, as kit, prover and verifier see it: integers, a witness, a challenge that is public.

Implements `specs/step-proof.md`, sections "Vectors", "Challenge", "Parts" and "Circuit".

Shows: nothing alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pot.errors import Malformed, Refused
from pot.zk.circuit import Circuit, CircuitPart, canonical_settings, run_arguments, table_name
from pot.zk.circuits.bounds import check_bounds
from pot.zk.circuits.challenge import powers
from pot.zk.circuits.field import Vector
from pot.zk.circuits.layout import Layout, lay_out
from pot.zk.circuits.packing import batch_vectors, blinds_of, state_vectors, witness_vectors
from pot.zk.circuits.parts import Part, Parts, Shape, choose_shape, make_parts
from pot.zk.family import Draft, GridTensor, PartVectors, Plan, StepVectors
from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.program import Program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.engine import Engine

    Ints = NDArray[np.int64]

__all__ = ["ExactFamily"]


class ExactFamily:
    """`Family` of a `Program`."""

    visibilities: Final = ("KZGCommit", "Public")

    def __init__(self, program: Program) -> None:
        self._program = program

    @property
    def state_tensors(self) -> dict[str, GridTensor]:
        nodes = [self._program.nodes[index] for index in self._program.states]
        return {str(node.name): GridTensor(node.shape, node.bits) for node in nodes}

    @property
    def field_names(self) -> list[str]:
        return [str(self._program.nodes[index].name) for index in self._program.batches]

    def batch_arrays(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Ints]:
        return batch_arrays(self._program, records)

    def layout(self, logrows: int, blinds: int) -> Layout:
        return lay_out(self._program, logrows, blinds)

    def shape(self, logrows: int, columns: int | None, engine: Engine) -> Shape:
        return choose_shape(self._program, logrows, columns)

    def plan(self, shape: Shape) -> Plan:
        parts = make_parts(self._program, shape)
        return Plan([self._draft(parts, part) for part in parts.parts], parts.constants)

    def check(self, circuit: Circuit) -> None:
        if circuit.family != "exact" or circuit.constants_point is None:
            raise Refused("the circuit is none of exact integers, or names no constants; its program is one")
        if not all(part.powers for part in circuit.parts):
            raise Refused("a part of the circuit reads no challenge")
        check_bounds(self._program, circuit.logrows)

    def reads_all(self, circuit: Circuit) -> bool:
        names = {*self.layout(circuit.logrows, circuit.blinds).names(), "constants", "challenge"}
        read = {name for part in circuit.parts for name in part.inputs}
        places = [[at for at, name in enumerate(part.inputs, 1) if name == "challenge"] for part in circuit.parts]
        return read == names and places == [[len(part.inputs)] for part in circuit.parts]

    def pinned(self, circuit: Circuit) -> dict[str, str]:
        return {"constants": circuit.constants_point or ""}

    def state_vectors(
        self, layout: Layout, state: Mapping[str, Ints], blinds: list[Vector], start: bool
    ) -> list[Vector]:
        return state_vectors(self._program, layout, state, blinds, start=start)

    def batch_vectors(self, layout: Layout, batch: Mapping[str, Ints], blinds: list[Vector]) -> list[Vector]:
        return batch_vectors(self._program, layout, batch, blinds)

    def next_state(
        self, state: Mapping[str, Ints], batch: Mapping[str, Ints], after: Mapping[str, Ints] | None
    ) -> Mapping[str, Ints]:
        from pot.zk.semantics.exact import run

        return run(self._program, state, batch, after=after).next

    def step(
        self, circuit: Circuit, secret: bytes, number: int, state: Mapping[str, Ints], batch: Mapping[str, Ints],
        after: Mapping[str, Ints] | None,
    ) -> StepVectors:  # fmt: skip
        from pot.zk.semantics.exact import run

        program, layout = self._program, self.layout(circuit.logrows, circuit.blinds)
        result = run(program, state, batch, after=after)
        families = {
            "before": state_vectors(program, layout, state, blinds_of(layout, secret, "state", number - 1)),
            "after": state_vectors(program, layout, result.next, blinds_of(layout, secret, "state", number)),
            "batch": batch_vectors(program, layout, batch, blinds_of(layout, secret, "batch", number)),
            "witness": witness_vectors(program, layout, result, blinds_of(layout, secret, "witness", number)),
        }
        named = {f"{family}.{at}": vector for family, found in families.items() for at, vector in enumerate(found)}
        return StepVectors({**named, "constants": make_parts(program, circuit.shape).constants}, None)

    def part(self, vectors: Mapping[str, Vector], challenges: Vector, part: CircuitPart) -> PartVectors:
        spread = powers(challenges, part.powers)
        return PartVectors([*(vectors[name] for name in part.inputs[:-1]), spread], [*spread, 0], [*spread, 0])

    def public(self, challenges: Vector, part: CircuitPart) -> Vector:
        return [*powers(challenges, part.powers), 0]

    def _draft(self, parts: Parts, part: Part) -> Draft:
        shape = parts.shape
        expected = (table_name(self._program, shape),) if part.graph.has_table else ()

        def check_tables(found: Sequence[str]) -> None:
            if tuple(found) != expected:  # a table that ended elsewhere would accept other limbs
                raise Malformed(
                    f"ezkl built other lookup tables than {' '.join(expected) or 'none'}: {', '.join(found)[:200]}"
                )

        lengths = parts.lengths(part)
        return Draft(
            onnx=part.graph.onnx(lengths, part.output),
            inputs=part.inputs,
            powers=[list(run) for run in part.graph.powers],
            lengths=[length for _, length in lengths],
            arguments=run_arguments(self._program, shape),
            canonical=lambda raw: canonical_settings(raw, shape, len(part.inputs), part.output.size),
            check_tables=check_tables,
        )
