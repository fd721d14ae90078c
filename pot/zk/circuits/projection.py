"""Random combinations of a program's tensors in a graph, without ever computing a product of whole tensors.

Implements `specs/step-proof.md`, section "Random combination": Freivalds' check (1977). With weights u over rows and v
over columns, the combination of A B is (u A)(B v): M K + K N products instead of M K N. The challenges come after all
committed vectors (`pot.zk.circuits.challenge`), so a tensor that differs from the right one in any element changes the
combination except with probability below 2^-220.

Shows: nothing alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pot.errors import UsageError
from pot.zk.circuits.graph import Graph, Tensor
from pot.zk.circuits.layout import state_offset
from pot.zk.circuits.tensors import Tensors
from pot.zk.circuits.weights import (
    Axis,
    Weights,
    through_expand,
    through_fold,
    through_reshape,
    through_slice,
    vector_of,
)
from pot.zk.semantics.program import Node
from pot.zk.semantics.shapes import windows

__all__ = ["Projector"]

MAX_COMBINATIONS: Final = 50_000  # of one part; LeNet takes 200

Terms = list[tuple[int, Tensor]]
"""Coefficients and single elements."""


class Projector:
    """Combinations of nodes under weights, and of the vectors behind them."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._graph: Graph = tensors.graph
        self._nodes = tensors.program.nodes
        self._combined: dict[tuple[int, Weights], Terms] = {}
        self.contracted: set[tuple[int, int, Axis]] = set()
        """(node, axis, weights) of the two-dimensional tensors that were combined along one axis."""

    def combine(self, index: int, weights: Weights, coefficient: int = 1) -> Terms:
        """The combination of a node as a sum of elements with coefficients, each element once."""
        key = (index, weights)
        if key not in self._combined:
            if len(self._combined) > MAX_COMBINATIONS:
                raise UsageError("the program adds up too many moved copies of products; round between them")
            found: dict[Tensor, int] = {}
            for factor, element in self._through(index, weights):
                found[element] = found.get(element, 0) + factor
            self._combined[key] = [(factor, element) for element, factor in found.items()]
        return [(coefficient * factor, element) for factor, element in self._combined[key]]

    def _through(self, index: int, weights: Weights) -> Terms:
        """The combinations of a linear node's inputs, or that of the node itself."""
        node, graph = self._nodes[index], self._graph
        first = node.inputs[0] if node.inputs else -1
        if node.op in ("add", "sub"):
            sign = 1 if node.op == "add" else -1
            return self.combine(first, weights) + self.combine(node.inputs[1], weights, sign)
        if node.op == "times":
            return self.combine(first, weights, int(node.factor or "0"))
        if node.op == "shift":
            return self.combine(first, weights, 1 << (node.count or 0))
        if node.op == "relabel":
            return self.combine(first, weights)
        before = list(self._nodes[first].shape) if node.inputs else []
        if node.op == "reshape":
            return self.combine(first, through_reshape(weights, before))
        if node.op == "permute":
            axes = node.axes or []
            moved = tuple(weights.axes[axes.index(at)] for at in range(len(axes)))
            return self.combine(first, Weights(moved, weights.factors))
        if node.op == "expand":
            return self.combine(first, through_expand(graph, weights, before))
        if node.op == "sum":
            return self.combine(first, _through_sum(weights, before, node.axes or []))
        if node.op == "slice":
            axis = (node.axes or [0])[0]
            cut = through_slice(graph, weights, before, axis, node.start or 0)
            return self.combine(first, cut)
        if node.op == "fold":
            kernel, stride = node.kernel or [], node.stride or []
            return self.combine(first, through_fold(weights, kernel, stride, before))
        if node.op == "matmul":
            return [(1, self._product(node, weights))]
        if node.op == "state" and len(node.shape) != 2:
            return self.stored_state("before", index, weights)
        return [(1, self.leaf(index, weights))]

    def stored_state(self, name: str, index: int, weights: Weights) -> Terms:
        """The combination of a state tensor that stands in its vectors with an offset."""
        stored = self.dense(self._tensors.stored(name, "state", index), weights)
        return [(1, stored), (-state_offset(self._tensors.program, index), self.ones(weights))]

    def ones(self, weights: Weights) -> Tensor:
        """The combination of a tensor of ones."""
        found = self._graph.constant(1)
        for axis in weights.axes:
            found = self._graph.mul(found, self.sum_of(axis))
        return self._scaled(found, weights)

    def leaf(self, index: int, weights: Weights) -> Tensor:
        """The combination of a node that the circuit holds; along the axis of an earlier one, if there was one."""
        if len(weights.axes) != 2:
            return self.dense(self._tensors.value(index), weights)
        done = [axis for axis in (0, 1) if (index, axis, weights.axes[axis]) in self.contracted]
        axis = done[0] if done else 1
        first = self._contract(index, axis, weights.axes[axis])
        return self._scaled(self._along(first, weights.axes[1 - axis]), weights)

    def dense(self, tensor: Tensor, weights: Weights) -> Tensor:
        """The combination of a tensor whose elements the graph holds, the last axis first."""
        found = tensor
        for axis in reversed(weights.axes):
            found = self._last(found, axis)
        return self._scaled(self._graph.reshape(found, (1,)), weights)

    def sum_of(self, axis: Axis) -> Tensor:
        """The sum of an axis's weights."""
        if axis.size == 1 and axis.given is None:
            return self._graph.constant(1)
        vector = vector_of(self._graph, axis)
        return self._graph.dot(vector, self._graph.constant(1, (vector.size,)))

    def _last(self, tensor: Tensor, axis: Axis) -> Tensor:
        """Combine along the last axis; it goes away."""
        rest = tensor.shape[:-1]
        if axis.size == 1 and axis.given is None:
            return self._graph.reshape(tensor, rest)
        vector = vector_of(self._graph, axis)
        flat = self._graph.reshape(tensor, (math.prod(rest), axis.size))
        return self._graph.reshape(self._graph.product(flat, self._graph.reshape(vector, (axis.size, 1))), rest)

    def _along(self, vector: Tensor, axis: Axis) -> Tensor:
        return self._last(self._graph.reshape(vector, (vector.size,)), axis)

    def _scaled(self, found: Tensor, weights: Weights) -> Tensor:
        found = self._graph.reshape(found, (1,))
        for factor in weights.factors:
            found = self._graph.mul(found, self._graph.reshape(factor, (1,)))
        return found

    def _contract(self, index: int, axis: int, weights: Axis) -> Tensor:
        """A two-dimensional node combined along one axis: a vector. Follows permutations, so that work is shared."""
        node = self._nodes[index]
        if node.op == "permute" and node.axes == [1, 0]:
            return self._contract(node.inputs[0], 1 - axis, weights)
        self.contracted.add((index, axis, weights))
        window = self._window_behind(index)
        if window is not None:
            return self._contract_rows(window, weights) if axis == 0 else self._contract_inner(window, weights)
        graph, is_state = self._graph, node.op == "state"
        tensor = self._tensors.stored("before", "state", index) if is_state else self._tensors.value(index)
        vector = vector_of(graph, weights)
        if axis == 1:
            found = graph.product(tensor, graph.reshape(vector, (vector.size, 1)))
        else:
            found = graph.product(graph.reshape(vector, (1, vector.size)), tensor)
        found = graph.reshape(found, (found.size,))
        if not is_state:
            return found
        offset = graph.mul(self.sum_of(weights), graph.constant(state_offset(self._tensors.program, index)))
        return graph.sub(found, graph.take(offset, [0] * found.size, (found.size,)))

    def _product(self, node: Node, weights: Weights) -> Tensor:
        """(u A)(B v), for every leading index; then the leading axes."""
        graph = self._graph
        left, right = node.inputs
        *lead, rows, columns = weights.axes
        if not lead:
            one = self._contract(left, 0, rows)
            two = self._contract(right, 1, columns)
            return self._scaled(graph.dot(one, two), weights)
        a, b = self._tensors.value(left), self._tensors.value(right)
        count, inner = math.prod(a.shape[:-2]), a.shape[-1]
        flat_a = graph.permute(graph.reshape(a, (count, rows.size, inner)), (0, 2, 1))
        one = self._last(flat_a, rows)
        two = self._last(graph.reshape(b, (count, inner, columns.size)), columns)
        found = graph.mul(one, two)
        for axis in reversed([*lead, Axis(inner)]):
            found = self._last(graph.reshape(found, (found.size // axis.size, axis.size)), axis)
        return self._scaled(found, weights)

    def _window_behind(self, index: int) -> Node | None:
        """A window, where a two-dimensional node is the window's rows one behind the other."""
        node = self._nodes[index]
        if node.op != "reshape":
            return None
        window = self._nodes[node.inputs[0]]
        fits = window.op == "window" and node.shape == [math.prod(window.shape[:3]), window.shape[3]]
        return window if fits else None

    def _contract_rows(self, window: Node, weights: Axis) -> Tensor:
        """Combine over records before windows are cut: the combination of windows is the windows of the combination."""
        graph = self._graph
        b, oh, ow, inner = window.shape
        spread = through_reshape(Weights((weights,)), [b, oh, ow])
        pixels = self._tensors.value(window.inputs[0])
        flat = graph.permute(graph.reshape(pixels, (b, pixels.size // b)), (1, 0))
        one = graph.reshape(self._last(flat, spread.axes[0]), (1, *pixels.shape[1:]))
        cut = graph.permute(graph.reshape(cut_windows(graph, one, window), (oh, ow, inner)), (2, 0, 1))
        return self._last(self._last(cut, spread.axes[2]), spread.axes[1])

    def _contract_inner(self, window: Node, weights: Axis) -> Tensor:
        """Combine windows along width, then height, then channels: kw + kh products instead of kw times kh."""
        graph = self._graph
        b, oh, ow, _ = window.shape
        pixels = self._tensors.value(window.inputs[0])
        _, c, h, w = pixels.shape
        (kh, kw), (sh, sw), (ph, pw) = window.kernel or (0, 0), window.stride or (0, 0), window.padding or (0, 0)
        spread = through_reshape(Weights((weights,)), [c, kh, kw])
        along = graph.reshape(pixels, (b * c * h, 1, 1, w))
        found = self._last(cut_places(graph, along, (1, kw), (1, sw), (0, pw)), spread.axes[2])  # (b c h, 1, ow)
        turned = graph.permute(graph.reshape(found, (b * c, h, ow)), (0, 2, 1))
        along = graph.reshape(turned, (b * c * ow, 1, 1, h))
        found = self._last(cut_places(graph, along, (1, kh), (1, sh), (0, ph)), spread.axes[1])
        channels = graph.permute(graph.reshape(found, (b, c, ow, oh)), (0, 3, 2, 1))
        found = self._last(channels, spread.axes[0])
        return graph.reshape(found, (b * oh * ow,))


def cut_windows(graph: Graph, image: Tensor, window: Node) -> Tensor:
    """(B, C, H, W) to (B, OH, OW, C kh kw): only moves elements."""
    return cut_places(graph, image, window.kernel or (), window.stride or (), window.padding or ())


def cut_places(
    graph: Graph, image: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Windows of an image, zeros around it."""
    b, c, h, w = image.shape
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    oh, ow = windows(h, kh, sh, ph), windows(w, kw, sw, pw)
    flat = graph.reshape(image, (image.size,))
    if ph or pw:
        flat = graph.concat([flat, graph.constant(0)])

    def place(record: int, channel: int, y: int, x: int) -> int:
        inside = 0 <= y < h and 0 <= x < w
        return ((record * c + channel) * h + y) * w + x if inside else image.size

    places = [
        place(record, channel, i * sh + di - ph, j * sw + dj - pw)
        for record in range(b)
        for i in range(oh)
        for j in range(ow)
        for channel in range(c)
        for di in range(kh)
        for dj in range(kw)
    ]
    return graph.take(flat, places, (b, oh, ow, c * kh * kw))


def _through_sum(weights: Weights, before: Sequence[int], axes: Sequence[int]) -> Weights:
    factors = list(weights.factors)
    found = []
    for at, axis in enumerate(weights.axes):
        if at in axes and before[at] != 1:
            if axis.given is not None:
                factors.append(axis.given)
            found.append(Axis(before[at]))
        else:
            found.append(axis)
    return Weights(tuple(found), tuple(factors))
