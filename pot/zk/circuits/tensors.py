"""The tensors of a program as a circuit holds them: taken from committed vectors, or computed from those that were.

Implements `specs/step-proof.md`, section "Circuit". State, next state, batch and witness are taken from their vectors;
moves are free; products of elements, sums and table lookups take rows. Products of whole tensors are never here.

Shows: nothing alone; what a witness is worth is decided in `pot.zk.circuits.identities`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from pot.zk.circuits.field import inverse
from pot.zk.circuits.graph import Graph, Tensor
from pot.zk.circuits.layout import Family, Layout, state_offset
from pot.zk.circuits.witness import Ranged, ranges
from pot.zk.semantics.program import Node, Program
from pot.zk.semantics.shapes import WITNESSED

__all__ = ["Tensors"]


class Tensors:
    """What one part of a circuit can compute with."""

    def __init__(self, program: Program, layout: Layout, graph: Graph) -> None:
        self.program, self.layout, self.graph = program, layout, graph
        self._values: dict[int, Tensor] = {}

    def stored(self, name: str, family: Family, index: int, tag: str = "") -> Tensor:
        """A tensor as it stands in the vectors called `name`.0, `name`.1, .."""
        shape = self.program.nodes[index].shape
        parts = []
        for piece in self.layout.pieces[family, index, tag]:
            vector = f"{name}.{piece.vector}"
            source = self.graph.vector(vector, self.layout.length(vector))
            parts.append(self.graph.take(source, range(piece.offset, piece.offset + piece.size), (piece.size,)))
        return self.graph.reshape(self.graph.concat(parts), shape)

    def value(self, index: int) -> Tensor:
        """The tensor of a node that is not virtual."""
        open_ = [index]
        while open_:  # not by recursion: a program may be a thousand operations deep
            at = open_[-1]
            node = self.program.nodes[at]
            needed = [] if node.op in WITNESSED else [one for one in node.inputs if one not in self._values]
            if at not in self._values and not needed:
                self._values[at] = self._made(at, node)
            if at in self._values:
                open_.pop()
            open_ += needed
        return self._values[index]

    def limbs(self, index: int, item: Ranged) -> list[tuple[int, Tensor]]:
        """The limbs of a ranged value, with coefficients: the value is their sum. Each limb is looked up."""
        found = []
        for number in range(item.limbs):
            limb = self.graph.table(self.stored("witness", "witness", index, f"{item.tag}.{number}"))
            narrowed = item.narrowed if number == item.limbs - 1 else 0
            if narrowed:  # an integer by the first lookup, and below the table's end times what it is multiplied with
                limb = self.graph.table(self.scaled(limb, 1 << narrowed))
            found.append(((1 << (number * self.program.limb_bits)) * inverse(1 << item.raised + narrowed), limb))
        return found

    def scaled(self, at: Tensor, factor: int) -> Tensor:
        """Times a constant, element by element."""
        return at if factor == 1 else self.graph.mul(at, self.graph.constant(factor, at.shape))

    def shifted(self, at: Tensor, offset: int) -> Tensor:
        """Plus a constant, element by element."""
        return at if offset == 0 else self.graph.add(at, self.graph.constant(offset, at.shape))

    def _made(self, index: int, node: Node) -> Tensor:
        graph = self.graph
        if node.op == "state":
            return self.shifted(self.stored("before", "state", index), -state_offset(self.program, index))
        if node.op == "batch":
            return self.stored("batch", "batch", index)
        if node.op == "constant":
            values = [int(value) for value in node.values or ()]
            return (
                graph.constant(values[0], node.shape) if len(values) == 1 else graph.constant_tensor(values, node.shape)
            )
        if node.op in WITNESSED:
            return self._result(index, node)
        return self._computed(node, [self._values[at] for at in node.inputs])

    def _result(self, index: int, node: Node) -> Tensor:
        """A witness: marks, a value of one limb with a sign, or limbs put together."""
        if node.op == "argmax":
            return self.stored("witness", "witness", index, "marks")
        quotient = next((item for item in ranges(self.program, index) if item.quotient), None)
        if quotient is None:
            return self.stored("witness", "witness", index, "q")
        found: Tensor | None = None
        for coefficient, limb in self.limbs(index, quotient):
            term = self.scaled(limb, coefficient)
            found = term if found is None else self.graph.add(found, term)
        if found is None:
            raise AssertionError(f"node {index}: a quotient without limbs")
        return self.shifted(found, -quotient.offset)

    def _computed(self, node: Node, ins: list[Tensor]) -> Tensor:
        graph, op = self.graph, node.op
        if op == "add":
            return graph.add(ins[0], ins[1])
        if op == "sub":
            return graph.sub(ins[0], ins[1])
        if op == "mul":
            return graph.mul(ins[0], ins[1])
        if op == "times":
            return self.scaled(ins[0], int(node.factor or "0"))
        if op == "shift":
            return self.scaled(ins[0], 1 << (node.count or 0))
        if op == "relu":
            return graph.table(ins[0])
        if op == "positive":
            return graph.sub(graph.table(ins[0]), graph.table(self.shifted(ins[0], -1)))
        if op == "sum":
            return self._summed(node, ins[0])
        return self._moved(node, ins)

    def _summed(self, node: Node, at: Tensor) -> Tensor:
        axes = node.axes or []
        rest = [axis for axis in range(len(at.shape)) if axis not in axes]
        moved = self.graph.permute(at, [*rest, *axes])
        count = 1
        for axis in axes:
            count *= at.shape[axis]
        flat = self.graph.reshape(moved, (at.size // count, count))
        return self.graph.reshape(self.graph.product(flat, self.graph.constant(1, (count, 1))), node.shape)

    def _folded(self, node: Node, at: Tensor) -> Tensor:
        """Windows put back: as many moved copies as windows overlap, added up."""
        graph, size = self.graph, at.size
        flat = graph.concat([graph.reshape(at, (size,)), graph.constant(0)])
        places = folded(node, at.shape)
        found: Tensor | None = None
        for layer in range(max(len(item) for item in places)):
            moved = [item[layer] if layer < len(item) else size for item in places]
            copy = graph.take(flat, moved, node.shape)
            found = copy if found is None else graph.add(found, copy)
        return graph.constant(0, node.shape) if found is None else found

    def _moved(self, node: Node, ins: list[Tensor]) -> Tensor:
        from pot.zk.circuits.projection import cut_windows

        graph, at = self.graph, ins[0]
        if node.op == "relabel":
            return at
        if node.op == "reshape":
            return graph.reshape(at, node.shape)
        if node.op == "permute":
            return graph.permute(at, node.axes or ())
        if node.op == "concat":
            return graph.concat(ins, (node.axes or [0])[0])
        if node.op == "window":
            return cut_windows(graph, at, node)
        if node.op == "fold":
            return self._folded(node, at)
        places = expanded(at.shape, node.shape) if node.op == "expand" else sliced(at.shape, node)
        return graph.take(graph.reshape(at, (at.size,)), places, node.shape)


def expanded(before: tuple[int, ...], shape: list[int]) -> list[int]:
    """Where each element of the broadcast tensor stands in the flat input."""
    places = [0]
    stride = 1
    strides = []
    for size in reversed(before):
        strides.append(stride)
        stride *= size
    for size, own, step in zip(shape, before, reversed(strides), strict=True):
        places = [place + (at * step if own != 1 else 0) for place in places for at in range(size)]
    return places


def sliced(before: tuple[int, ...], node: Node) -> list[int]:
    """Where each element of the cut tensor stands in the flat input."""
    axis, start = (node.axes or [0])[0], node.start or 0
    places = [0]
    for at, size in enumerate(before):
        offset, count = (start, node.shape[axis]) if at == axis else (0, size)
        places = [place * size + offset + element for place in places for element in range(count)]
    return places


def folded(node: Node, cut: Sequence[int]) -> list[list[int]]:
    """For each element of the image, where the elements of the windows stand that add up to it."""
    (kh, kw), (sh, sw) = node.kernel or (0, 0), node.stride or (0, 0)
    b, c, h, w = node.shape
    _, oh, ow, inner = cut
    found: list[list[int]] = [[] for _ in range(node.size)]
    for record, i, j, channel, di, dj in product(range(b), range(oh), range(ow), range(c), range(kh), range(kw)):
        source = ((record * oh + i) * ow + j) * inner + (channel * kh + di) * kw + dj
        found[((record * c + channel) * h + i * sh + di) * w + j * sw + dj].append(source)
    return found
