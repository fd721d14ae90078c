"""The identities of a step: what must hold between committed integers so that each is the one right value.

Implements `specs/step-proof.md`, section "Identities". Each identity is a tensor that is zero in a right step; a
circuit adds up random combinations of all of them, and the sum is public: it must be zero.

Shows (together, when the sum is zero): every tensor of the program has its one right value, and the next state is the
step of the state on the batch. Does not show: what the vectors behind the points are; openings do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pot.zk.circuits.graph import Tensor
from pot.zk.circuits.layout import CHALLENGES
from pot.zk.circuits.projection import Projector, Terms
from pot.zk.circuits.tensors import Tensors
from pot.zk.circuits.weights import Axis, Weights
from pot.zk.circuits.witness import Ranged, ranges, slack_range
from pot.zk.semantics.program import Next, Node
from pot.zk.semantics.shapes import WITNESSED

__all__ = ["Identities", "Identity", "identities_of"]

Kind = Literal["range", "pinned", "next"]

PARTS: Final = 4  # tensors of one identity, at most


@dataclass(frozen=True)
class Identity:
    """What is demanded of one node: its batch range, its rounding, or its being the next state."""

    kind: Kind
    node: int


def identities_of(nodes: list[Node], ends: list[Next]) -> list[Identity]:
    """All identities, in the order in which they are numbered."""
    found = [Identity("pinned", index) for index, node in enumerate(nodes) if node.op in WITNESSED]
    found += [Identity("next", at) for at in range(len(ends))]
    return found + [Identity("range", index) for index, node in enumerate(nodes) if node.op == "batch"]


class Identities:
    """Writes identities into one part's graph, and remembers the lookups that must stay in it."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors, self._graph, self._program = tensors, tensors.graph, tensors.program
        self._project = Projector(tensors)
        self._zero: list[Tensor] = []
        self._powers = PARTS * len(identities_of(self._program.nodes, self._program.next))

    def write(self, number: int, identity: Identity) -> Tensor:
        """The combination of identity `number`: one element, zero in a right step."""
        parts = list(self._parts(identity))
        if len(parts) > PARTS:
            raise AssertionError(f"{identity}: {len(parts)} tensors would share weights with the next identity")
        return self._graph.total(
            [self._apart(self._add_up(terms), PARTS * number + at) for at, terms in enumerate(parts)]
        )

    def kept(self, sums: Sequence[Tensor]) -> Tensor | None:
        """A sum that is zero whatever it reads: lookups that no identity needs stay in the circuit by it."""
        needed = self._graph.needed(sums)
        left = [item for item in self._zero if item.name not in needed]
        if not left:
            return None
        found = [self._graph.dot(item, self._graph.constant(1, item.shape)) for item in left]
        return self._graph.mul(self._graph.total(found), self._graph.constant(0))

    def _apart(self, combination: Tensor, exponent: int) -> Tensor:
        """Times a power of the last challenge, which keeps tensors apart."""
        powers = self._graph.power_vector(CHALLENGES - 1, 1, self._powers)
        return self._graph.mul(combination, self._graph.take(powers, [exponent], (1,)))

    def _parts(self, identity: Identity) -> Iterator[Terms]:
        if identity.kind == "next":
            yield self._next(self._program.next[identity.node])
            return
        node = self._program.nodes[identity.node]
        if identity.kind == "range":
            yield from self._range(identity.node, node)
        elif node.op == "argmax":
            yield from self._argmax(identity.node, node)
        else:
            yield from self._pinned(identity.node, node)

    def _range(self, index: int, node: Node) -> Iterator[Terms]:
        value = self._tensors.value(index)
        if node.kind == "marks":
            yield from self._marks(value, self._weights(node.shape), node)
            return
        signed = node.kind == "signed"
        offset = 1 << (node.width or 0) if signed else 0
        scale = 1 << (self._program.limb_bits - (node.width or 0) - signed)
        whole = self._graph.table(self._tensors.shifted(value, offset))  # an integer, whatever the vector holds
        looked_up = self._graph.table(self._tensors.scaled(whole, scale)) if scale > 1 else whole
        weights = self._shared_weights(index, node.shape)
        yield [(1, self._dense(looked_up, weights)),
               (-scale, self._project.leaf(index, weights)),
               (-scale * offset, self._ones(weights))]  # fmt: skip

    def _marks(self, value: Tensor, weights: Weights, node: Node) -> Iterator[Terms]:
        """Each is 0 or 1, and along the last axis they add up to 1."""
        squares = self._graph.mul(value, value)
        yield [(1, self._dense(squares, weights)), (-1, self._dense(value, weights))]
        rows = Weights((*weights.axes[:-1], Axis(node.shape[-1])))
        yield [(1, self._dense(value, rows)), (-1, self._ones(Weights((*weights.axes[:-1], Axis(1)))))]

    def _pinned(self, index: int, node: Node) -> Iterator[Terms]:
        weights = self._weights(node.shape)
        if node.op in ("round", "divide") and node.limbs == 1:
            self._zero.append(self._graph.table(self._tensors.value(index)))
        if node.op == "round":
            yield self._round(index, node, weights)
            return
        low, high = (item for item in ranges(self._program, index) if not item.quotient)
        q = self._tensors.value(index)
        count = node.count or 0
        first = self._tensors.value(node.inputs[0])
        if node.op == "divide":
            right = self._tensors.value(node.inputs[1])
            product = self._graph.mul(q, right)
            a, b = self._dense(first, weights), self._dense(right, weights)
            # low = 2 a 2^s + b - 2 q b, high = 2 b - 1 - low
            yield [(2 << count, a), (1, b), (-2, self._dense(product, weights)), *self._limbs(index, low, weights, -1)]
            yield [(2, b), (-1, self._ones(weights)), *self._limbs(index, low, weights, -1),
                   *self._limbs(index, high, weights, -1)]  # fmt: skip
            return
        square = self._graph.mul(q, q)
        left = square if node.op == "sqrt" else self._graph.mul(square, first)
        # low = top - left, high = left + step - top: what (q + 1) adds, less one
        step = [(2, self._dense(q, weights))] if node.op == "sqrt" else self._rsqrt_step(q, first, weights)
        top: Terms = (
            [(1, self._dense(first, weights))] if node.op == "sqrt" else [(1 << (2 * count), self._ones(weights))]
        )
        combined = self._dense(left, weights)
        yield [*top, (-1, combined), *self._limbs(index, low, weights, -1)]
        yield [(1, combined), *step, *((-c, item) for c, item in top), *self._limbs(index, high, weights, -1)]

    def _rsqrt_step(self, q: Tensor, value: Tensor, weights: Weights) -> Terms:
        """(q + 1)^2 v - 1 - q^2 v = 2 q v + v - 1."""
        product = self._dense(self._graph.mul(q, value), weights)
        return [(2, product), (1, self._dense(value, weights)), (-1, self._ones(weights))]

    def _round(self, index: int, node: Node, weights: Weights) -> Terms:
        """v + 2^(s-1) - q 2^s - r = 0."""
        count = node.count or 0
        terms = self._project.combine(node.inputs[0], weights)
        terms.append((1 << (count - 1), self._ones(weights)))
        for item in ranges(self._program, index):
            if item.quotient:
                terms += self._limbs(index, item, weights, -(1 << count))
                terms.append((item.offset << count, self._ones(weights)))
            else:
                terms += self._limbs(index, item, weights, -1)
        if node.limbs == 1:
            terms.append((-(1 << count), self._dense(self._tensors.value(index), weights)))
        return terms

    def _argmax(self, index: int, node: Node) -> Iterator[Terms]:
        """Marks are marks; the marked value less each other, less one before the mark, is not negative."""
        weights, marks = self._weights(node.shape), self._tensors.value(index)
        yield from self._marks(marks, weights, node)
        values = self._tensors.value(node.inputs[0])
        size = node.shape[-1]
        rows = values.size // size
        chosen = self._graph.product(
            self._graph.reshape(self._graph.mul(values, marks), (rows, size)), self._graph.constant(1, (size, 1))
        )
        largest = self._dense(self._graph.reshape(chosen, (*node.shape[:-1], 1)), self._one_last(weights))
        spread = self._graph.mul(largest, self._graph.reshape(self._sum_of(weights.axes[-1]), (1,)))
        later = self._graph.constant_tensor([int(i > j) for i in range(size) for j in range(size)], (size, size))
        behind = self._graph.reshape(self._graph.product(self._graph.reshape(marks, (rows, size)), later), marks.shape)
        (gap,) = ranges(self._program, index)
        yield [(1, spread), (-1, self._dense(values, weights)), (-1, self._dense(behind, weights)),
               *self._limbs(index, gap, weights, -1)]  # fmt: skip

    def _next(self, end: Next) -> Terms:
        node = self._program.nodes[end.state]
        weights = self._shared_weights(end.state, node.shape)
        terms = self._project.combine(end.value, weights, -1)
        terms += self._project.stored_state("after", end.state, weights)
        if end.slack:
            item = slack_range(self._program, end.slack)
            terms += self._limbs(end.state, item, weights, -1)
            terms.append((item.offset, self._ones(weights)))
        return terms

    def _shared_weights(self, index: int, shape: list[int]) -> Weights:
        """Challenges of a tensor's axes, chosen so that what was combined before is shared."""
        plain = self._weights(shape)
        if len(shape) != 2:
            return plain
        turned = Weights((Axis(shape[0], 0), Axis(shape[1], 1)))
        done = self._project.contracted
        ways = [(weights, axis) for weights in (plain, turned) for axis in (1, 0)]
        return next((w for w, axis in ways if (index, axis, w.axes[axis]) in done), plain)

    def _weights(self, shape: list[int]) -> Weights:
        """Challenge 0 for the last axis, 1 for the one before, ..; the first axes share one, by larger strides."""
        axes: list[Axis] = []
        number, stride = 0, 1
        for size in reversed(shape):
            axes.append(Axis(size, number, stride) if size != 1 else Axis(1))
            if size != 1:
                stride = stride * size if number == CHALLENGES - 2 else 1
                number = min(number + 1, CHALLENGES - 2)
        return Weights(tuple(reversed(axes)))

    def _one_last(self, weights: Weights) -> Weights:
        return Weights((*weights.axes[:-1], Axis(1)))

    def _limbs(self, index: int, item: Ranged, weights: Weights, coefficient: int) -> Terms:
        return [(coefficient * c, self._dense(limb, weights)) for c, limb in self._tensors.limbs(index, item)]

    def _dense(self, tensor: Tensor, weights: Weights) -> Tensor:
        return self._project.dense(tensor, weights)

    def _sum_of(self, axis: Axis) -> Tensor:
        return self._project.sum_of(axis)

    def _ones(self, weights: Weights) -> Tensor:
        return self._project.ones(weights)

    def _add_up(self, terms: Terms) -> Tensor:
        """Sum of coefficient times element, element by element."""
        found: Tensor | None = None
        for coefficient, item in terms:
            term = self._graph.reshape(item, (1,))
            if found is not None and coefficient == -1:
                found = self._graph.sub(found, term)
                continue
            term = self._tensors.scaled(term, coefficient)
            found = term if found is None else self._graph.add(found, term)
        if found is None:
            raise AssertionError("an identity without terms")
        return found
