"""`Layout`: where the integers of a state, a batch and a witness stand in the vectors that are committed to.

Implements `specs/step-proof.md`, section "Vectors". A vector must fit one column of the circuit, or it would have more
than one point; so a large state is several vectors. Tensors stand one behind the other; a tensor may cross vectors.

Shows: nothing alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pot.zk.circuits.witness import wanted
from pot.zk.semantics.program import Program

__all__ = ["CHALLENGES", "Family", "Layout", "Piece", "lay_out", "state_offset"]

Family = Literal["state", "batch", "witness"]

RESERVED: Final = 16  # rows of a column that the proof system keeps for itself, rounded up
CHALLENGES: Final = 5
"""Challenge elements: one for each of four axes, and one that keeps identities apart."""


@dataclass(frozen=True)
class Piece:
    """`size` elements of a tensor, from `start` on, at `offset` in vector number `vector` of its family."""

    vector: int
    offset: int
    start: int
    size: int


@dataclass(frozen=True)
class Layout:
    """Pieces of every tensor, and the length of every vector without its blinds."""

    logrows: int
    blinds: int
    pieces: dict[tuple[Family, int, str], list[Piece]]
    lengths: dict[Family, list[int]]

    def names(self) -> list[str]:
        """The vectors that a step commits to, in the order in which the challenge takes their points."""
        families = (("before", "state"), ("after", "state"), ("batch", "batch"), ("witness", "witness"))
        return [f"{name}.{at}" for name, family in families for at in range(len(self.lengths[family]))]  # type: ignore[index]

    def length(self, name: str) -> int:
        """Elements of a vector by its name, blinds included."""
        family, _, number = name.partition(".")
        known: Family = "state" if family in ("before", "after") else "batch" if family == "batch" else "witness"
        return self.lengths[known][int(number)] + self.blinds


def state_offset(program: Program, index: int) -> int:
    """What is added to a state tensor's integers in its vector: short positive elements are committed to faster."""
    return 2 << (program.nodes[index].width or 0)


def lay_out(program: Program, logrows: int, blinds: int) -> Layout:
    """The layout for columns of 2^logrows rows."""
    capacity = (1 << logrows) - RESERVED - blinds
    pieces: dict[tuple[Family, int, str], list[Piece]] = {}
    lengths: dict[Family, list[int]] = {}
    families: list[tuple[Family, list[tuple[int, str, int]]]] = [
        ("state", [(index, "", program.nodes[index].size) for index in program.states]),
        ("batch", [(index, "", program.nodes[index].size) for index in program.batches]),
        ("witness", [(item.node, item.tag, item.size) for item in wanted(program)]),
    ]
    for family, tensors in families:
        lengths[family] = _fill(family, tensors, capacity, pieces)
    return Layout(logrows, blinds, pieces, lengths)


def _fill(
    family: Family, tensors: Sequence[tuple[int, str, int]], capacity: int,
    pieces: dict[tuple[Family, int, str], list[Piece]],
) -> list[int]:  # fmt: skip
    lengths = [0] if tensors else []
    for node, tag, size in tensors:
        start = 0
        found = pieces.setdefault((family, node, tag), [])
        while start < size:
            room = capacity - lengths[-1]
            if room == 0 or (room < size - start <= capacity and family == "witness"):
                lengths.append(0)
                continue
            taken = min(room, size - start)
            found.append(Piece(len(lengths) - 1, lengths[-1], start, taken))
            lengths[-1] += taken
            start += taken
    return lengths
