"""From a program to the parts of its circuit: which identities each part checks, and under how many rows and columns.

Implements `specs/step-proof.md`, section "Parts". A part is a circuit of its own that reads the vectors that it needs
and checks some of the identities; parts of one step are tied by equal points and one challenge. Most steps are one
part.

Shows: every identity of a program stands in exactly one part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pot.errors import UsageError
from pot.zk.circuits.bounds import check_bounds
from pot.zk.circuits.graph import Constants, Graph, Tensor
from pot.zk.circuits.identities import Identities, Identity, identities_of
from pot.zk.circuits.layout import Layout, lay_out
from pot.zk.circuits.proof_cost import total_cost
from pot.zk.circuits.tensors import Tensors
from pot.zk.semantics.program import Program

__all__ = ["MAX_PARTS", "Part", "Parts", "Shape", "choose_shape", "make_parts"]

MAX_PARTS: Final = 16
MIN_LOGROWS: Final = 9
MAX_LOGROWS: Final = 20
DEFAULT_LOGROWS: Final = 17  # the largest that is chosen without being asked for: 2 to 4 GB
COLUMNS: Final = (3, 2, 7, 5)  # beyond 3 and beyond 7 every column costs more: constraints of a higher degree
RESERVED_ROWS: Final = 96  # rows that ezkl and the proof system keep for themselves, rounded up
BLINDS: Final = 8
"""Of each vector, for each part: a part opens a vector at one place in a proof, and a state stands in two steps."""


_SECONDS_PER_GIB: Final = 4.0  # what a GiB of memory is worth
_SECONDS_PER_PART: Final = 1.0  # what a proof more to keep and to verify is worth
_KEPT: Final = 16
_MADE: dict[tuple[str, Shape], Parts] = {}
"""Parts of the programs that were used last: every step of a run asks for the same."""


@dataclass(frozen=True)
class Shape:
    """Rows (2^logrows) and inner columns of every part, and blinds of every vector."""

    logrows: int
    columns: int
    blinds: int


@dataclass(frozen=True)
class Part:
    """One circuit: its graph, its output, the vectors that it reads in order, and the identities that it checks."""

    graph: Graph
    output: Tensor
    inputs: list[str]
    identities: list[Identity]


@dataclass(frozen=True)
class Parts:
    """All parts, and the constants that they share."""

    program: Program
    shape: Shape
    layout: Layout
    parts: list[Part]
    constants: list[int]

    def lengths(self, part: Part) -> list[tuple[str, int]]:
        """Inputs of a part with their lengths."""
        known = {"constants": len(self.constants), "challenge": part.graph.inputs["challenge"]}
        return [(name, known[name] if name in known else self.layout.length(name)) for name in part.inputs]


def choose_shape(program: Program, logrows: int | None = None, columns: int | None = None) -> Shape:
    """The cheapest shape, in one part or several, with what is given. Raises `UsageError` where a step does not fit."""
    lowest = max(MIN_LOGROWS, program.limb_bits + 1)
    best: tuple[float, Shape] | None = None
    failure: UsageError | None = None
    for rows in [logrows] if logrows is not None else range(lowest, DEFAULT_LOGROWS + 1):
        enough = False
        for count in [columns] if columns is not None else COLUMNS:
            try:
                shape = _with_blinds(program, rows, count)
            except UsageError as error:
                failure = error
                continue
            parts = make_parts(program, shape).parts
            cost = total_cost(rows, count, [len(part.inputs) for part in parts])
            worth = cost.seconds + _SECONDS_PER_GIB * cost.bytes / (1 << 30) + _SECONDS_PER_PART * len(parts)
            best = min(best or (worth, shape), (worth, shape), key=lambda item: item[0])
            enough = enough or len(parts) == 1
        if enough and best is not None and best[1].logrows < rows:
            break  # more rows than one part needs only cost more
    if best is None:
        raise failure or UsageError(f"{program.label}: no shape holds the step; its limb_bits need 2^{lowest} rows")
    return best[1]


def _with_blinds(program: Program, logrows: int, columns: int) -> Shape:
    """As many blinds as the number of parts asks for, which may take a part more."""
    blinds = BLINDS
    while True:
        shape = Shape(logrows, columns, blinds)
        needed = BLINDS * len(make_parts(program, shape).parts)
        if needed <= blinds:
            return shape
        blinds = needed


def make_parts(program: Program, shape: Shape) -> Parts:
    """Fill parts with identities in order. Raises `UsageError` where one does not fit, `Malformed` (bounds)."""
    key = (program.sha256(), shape)
    if key not in _MADE:
        if len(_MADE) >= _KEPT:
            _MADE.pop(next(iter(_MADE)))
        _MADE[key] = _fill_parts(program, shape)
    return _MADE[key]


def _fill_parts(program: Program, shape: Shape) -> Parts:
    if not MIN_LOGROWS <= shape.logrows <= MAX_LOGROWS or shape.logrows <= program.limb_bits:
        raise UsageError(f"2^{shape.logrows} rows: the program's table needs {program.limb_bits + 1} to {MAX_LOGROWS}")
    check_bounds(program, shape.logrows)
    layout, constants = lay_out(program, shape.logrows, shape.blinds), Constants()
    open_ = list(enumerate(identities_of(program.nodes, program.next)))
    parts: list[Part] = []
    while open_:
        made = None if len(parts) == MAX_PARTS else _largest(program, layout, shape, open_, constants)
        if made is None:
            raise UsageError(
                f"{program.label}: {open_[0][1].kind} of node {open_[0][1].node} does not fit {shape.columns} columns"
                f" of 2^{shape.logrows} rows in {MAX_PARTS} parts; give more rows or columns"
            )
        parts.append(made)
        open_ = open_[len(made.identities) :]
    return Parts(program, shape, layout, parts, constants.values)


def _largest(
    program: Program, layout: Layout, shape: Shape, open_: list[tuple[int, Identity]], constants: Constants
) -> Part | None:
    """The part with as many of the identities as fit."""
    count = len(open_)
    while count:
        tried, written = Constants(constants.values), 0
        writer = _Writer(program, layout, tried)
        while written < count and _fits(writer.graph, shape.logrows, shape.columns):
            writer.write(*open_[written])
            written += 1
        part = writer.close()
        if _fits(part.graph, shape.logrows, shape.columns):
            constants.extend(tried)
            return part
        count = written - 1  # the last one was too much, or closing the part was
    return None


def _fits(graph: Graph, logrows: int, columns: int) -> bool:
    return graph.rows(columns) <= (1 << logrows) - RESERVED_ROWS


class _Writer:
    """One part in the making."""

    def __init__(self, program: Program, layout: Layout, constants: Constants) -> None:
        self.graph = Graph(constants)
        self._layout = layout
        self._identities = Identities(Tensors(program, layout, self.graph))
        self._written: list[Identity] = []
        self._sums: list[Tensor] = []

    def write(self, number: int, identity: Identity) -> None:
        self._sums.append(self._identities.write(number, identity))
        self._written.append(identity)

    def close(self) -> Part:
        kept = self._identities.kept(self._sums)
        residual = self.graph.total([*self._sums, *([kept] if kept is not None else [])])
        challenge = Tensor("challenge", (self.graph.inputs["challenge"],))
        output = self.graph.concat([challenge, residual])
        order = [*self._layout.names(), "constants", "challenge"]
        return Part(self.graph, output, [name for name in order if name in self.graph.inputs], self._written)
