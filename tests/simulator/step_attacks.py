"""A circuit's identities executed over the field without ezkl, and the places of every integer a prover could change.

`Bench` does what ezkl does with the recorded operations of each part, so a forgery is tried in milliseconds: a changed
element either leaves the table, or changes what a part adds up to, or the circuit has a hole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np

from pot.errors import PotError
from pot.zk.circuit import run_arguments
from pot.zk.circuits import parts as parts_module
from pot.zk.circuits.challenge import challenge, powers
from pot.zk.circuits.field import MODULUS, Vector, inverse
from pot.zk.circuits.layout import state_offset
from pot.zk.circuits.packing import batch_vectors, blinds_of, state_vectors, witness_vectors
from pot.zk.circuits.parts import Part, Parts, Shape, choose_shape, make_parts
from pot.zk.semantics.exact import Run, run
from pot.zk.semantics.program import Program

RUN = "aa" * 32
CIRCUIT = "cc" * 32
SECRET = bytes(range(32))

Vectors = dict[str, Vector]


class OutsideTable(Exception):
    """A looked-up value is not in the table: no proof exists."""


@dataclass(frozen=True)
class Place:
    """One element of a committed vector, and which tensor's it is."""

    vector: str
    offset: int
    node: int
    tag: str
    element: int
    base: int = 0
    """What the vector holds besides the integer."""


@dataclass(frozen=True)
class Bench:
    """One program's circuit, with an executor in place of the proof system."""

    program: Program
    parts: Parts

    @classmethod
    def of(cls, program: Program, shape: Shape | None = None) -> Bench:
        """With the cheapest shape, or the given one; made anew, as a test may have taken a check out of the builder."""
        shape = shape or choose_shape(program)
        parts_module._MADE.clear()
        try:
            return cls(program, make_parts(program, shape))
        finally:
            parts_module._MADE.clear()

    def vectors(self, result: Run, state: Mapping[str, Any], batch: Mapping[str, Any], step: int = 1) -> Vectors:
        """The vectors that a prover commits to for this run of the program."""
        program, layout = self.program, self.parts.layout
        families = {
            "before": state_vectors(program, layout, state, blinds_of(layout, SECRET, "state", step - 1)),
            "after": state_vectors(program, layout, result.next, blinds_of(layout, SECRET, "state", step)),
            "batch": batch_vectors(program, layout, batch, blinds_of(layout, SECRET, "batch", step)),
            "witness": witness_vectors(program, layout, result, blinds_of(layout, SECRET, "witness", step)),
        }
        return {f"{name}.{at}": vector for name, found in families.items() for at, vector in enumerate(found)}

    def honest(
        self, state: Mapping[str, Any], batch: Mapping[str, Any], after: Mapping[str, Any] | None = None
    ) -> Vectors:
        """The vectors of the right step."""
        return self.vectors(run(self.program, state, batch, after=after), state, batch)

    def challenge(self, vectors: Vectors, *, step: int = 1) -> Vector:
        """The challenge, with digests of the vectors in place of their points."""
        names = self.parts.layout.names()
        points = {name: 2 * sha256(repr(vectors[name]).encode()).hexdigest() for name in names}
        return challenge(circuit_sha256=CIRCUIT, precommit_sha256=RUN, step=step, names=names, points=points)

    def residuals(self, vectors: Vectors, known: Vector | None = None) -> list[int]:
        """What each part adds up to, under a challenge that follows from the vectors, or a `known` one."""
        found = known or self.challenge(vectors)
        return [self.residual(part, vectors, found) for part in self.parts.parts]

    def accepts(self, vectors: Vectors, known: Vector | None = None) -> bool:
        """Whether a proof of these vectors exists and verifies."""
        try:
            return not any(self.residuals(vectors, known))
        except OutsideTable:
            return False

    def residual(self, part: Part, vectors: Vectors, challenges: Vector) -> int:
        """What one part adds up to. Raises `OutsideTable`."""
        spread = powers(challenges, list(part.graph.powers))
        inputs = {**vectors, "constants": self.parts.constants, "challenge": spread}
        outputs = execute(part, inputs, self.table)
        assert outputs[:-1] == spread
        return outputs[-1]

    def right(self, vectors: Vectors, *, slack: bool = False) -> bool:
        """Whether they are the vectors of a right step, by the integer reference; limbs below zero count as zero.

        `slack`: the next state is a recorded one, to be taken as it stands.
        """
        low, _ = self.table
        plain = {name: list(vector) for name, vector in vectors.items()}
        for place in self.places("witness"):
            if "." in place.tag and low <= at(plain, place) < 0:
                plain[place.vector][place.offset] = 0
        try:
            known = {"after": self.integers(plain, "after")} if slack else {}
            wanted = self.honest(self.integers(plain, "before"), self.integers(plain, "batch"), **known)
        except (PotError, OverflowError):
            return False
        return wanted == plain

    def integers(self, vectors: Vectors, name: str) -> dict[str, Any]:
        """The tensors behind the vectors `before`, `after` or `batch`. Raises `OverflowError` beyond int64."""
        nodes = self.program.nodes
        found: dict[str, list[int]] = {}
        for place in self.places(name):
            found.setdefault(str(nodes[place.node].name), []).append(at(vectors, place))
        indices = self.program.batches if name == "batch" else self.program.states
        shapes = {str(nodes[index].name): nodes[index].shape for index in indices}
        return {tensor: np.array(values, np.int64).reshape(shapes[tensor]) for tensor, values in found.items()}

    @cached_property
    def table(self) -> tuple[int, int]:
        """Both ends of the lookup table."""
        low, top = run_arguments(self.program, self.parts.shape)["lookup_range"]
        return low, top

    def places(self, name: str) -> Iterator[Place]:
        """Every element of the vectors `before`, `after`, `batch` or `witness`, blinds left out."""
        family = "state" if name in ("before", "after") else name
        for (known, node, tag), pieces in self.parts.layout.pieces.items():
            if known != family:
                continue
            for piece in pieces:
                for at in range(piece.size):
                    base = state_offset(self.program, node) if family == "state" else 0
                    yield Place(f"{name}.{piece.vector}", piece.offset + at, node, tag, piece.start + at, base)

    def place(self, name: str, node: int, tag: str = "", element: int = 0) -> Place:
        """One element by its tensor."""
        return next(p for p in self.places(name) if (p.node, p.tag, p.element) == (node, tag, element))


def execute(part: Part, inputs: Mapping[str, Vector], table: tuple[int, int]) -> Vector:
    """A part's public outputs: its operations, one after the other, over the field. Raises `OutsideTable`."""
    values: dict[str, Any] = {name: np.array(vector, dtype=object) for name, vector in inputs.items()}
    for places, name in part.graph._indices.items():
        values[name] = np.array(places, dtype=np.int64)
    needed = part.graph.needed([part.output])  # ezkl leaves out what no output needs, a lookup too
    for kind, names, name, rest in part.graph._nodes:
        if name not in needed:
            continue
        found = OPERATIONS[kind]([values[at] for at in names], rest, table)
        values[name] = np.asarray(found, dtype=object)  # NumPy makes an integer of what has no axes
    return [int(value) for value in values[part.output.name].reshape(-1)]


def _look_up(ins: Sequence[Any], rest: Mapping[str, Any], table: tuple[int, int]) -> Any:
    low, top = table
    values = [value - MODULUS if value > MODULUS // 2 else value for value in ins[0].reshape(-1)]
    if values and (min(values) < low or max(values) > top):
        raise OutsideTable
    return np.array([max(value, 0) for value in values], dtype=object).reshape(ins[0].shape)


OPERATIONS: dict[str, Any] = {
    "Add": lambda ins, rest, table: (ins[0] + ins[1]) % MODULUS,
    "Sub": lambda ins, rest, table: (ins[0] - ins[1]) % MODULUS,
    "Mul": lambda ins, rest, table: (ins[0] * ins[1]) % MODULUS,
    "MatMul": lambda ins, rest, table: (ins[0] @ ins[1]) % MODULUS,
    "Gather": lambda ins, rest, table: ins[0][ins[1]],
    "Reshape": lambda ins, rest, table: ins[0].reshape(tuple(ins[1])),
    "Transpose": lambda ins, rest, table: ins[0].transpose(rest["perm"]),
    "Concat": lambda ins, rest, table: np.concatenate(ins, axis=rest["axis"]),
    "HardSwish": _look_up,
}


def changed(vectors: Vectors, *changes: tuple[Place, int]) -> Vectors:
    """The vectors with some elements replaced."""
    found = {name: list(vector) for name, vector in vectors.items()}
    for place, value in changes:
        found[place.vector][place.offset] = (value + place.base) % MODULUS
    return found


def at(vectors: Vectors, place: Place) -> int:
    """An element as an integer with a sign."""
    value = (vectors[place.vector][place.offset] - place.base) % MODULUS
    return value - MODULUS if value > MODULUS // 2 else value


def cancelling(bench: Bench, vectors: Vectors, known: list[int]) -> Vectors:
    """One element of the next state one too large, and another changed so that the sum is zero again."""
    one, two = (bench.place("after", bench.program.states[0], element=element) for element in (0, 1))
    slopes = [sum(bench.residuals(changed(vectors, (place, at(vectors, place) + 1)), known)) for place in (one, two)]
    step = -slopes[0] * inverse(slopes[1]) % MODULUS
    return changed(vectors, (one, at(vectors, one) + 1), (two, at(vectors, two) + step))
