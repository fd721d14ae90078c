"""`Graph`: the operations of a circuit, written once each, with what they cost, and their deterministic ONNX bytes.

Implements `specs/step-proof.md`, section "Circuit". Five kinds of operation that ezkl lays out without rounding: matrix
product, product, sum and difference, and one table, HardSwish at scale 1, which on integers is max(v, 0). Moving
elements is free: `Gather` with constant indices, `Reshape`, `Transpose` and `Concat` take no rows (`Slice` would).
Constants are elements of an input whose point is pinned, so that no optimiser can fold or reorder them.

Shows: nothing alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pot.errors import MissingExtra
from pot.zk.circuits.field import MODULUS

__all__ = ["Constants", "Graph", "Run", "Tensor"]

_COMMUTES: Final = ("Add", "Mul")


Run = tuple[int, int, int]
"""Powers of a challenge: its number, the exponent's stride, and how many, from exponent 0 on."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of field elements in a graph."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Constants:
    """The field elements that the parts of a circuit compute with, in the order in which they were first needed."""

    def __init__(self, values: Sequence[int] = ()) -> None:
        self.values: list[int] = list(values)
        self._places: dict[int, int] = {value: place for place, value in enumerate(values)}

    def extend(self, other: Constants) -> None:
        """Take over those that `other`, which began as a copy of this, was asked for besides."""
        for value in other.values:
            self.place(value)

    def place(self, value: int) -> int:
        """Where this constant stands in the vector."""
        value %= MODULUS
        if value not in self._places:
            self._places[value] = len(self.values)
            self.values.append(value)
        return self._places[value]


class Graph:
    """One part of a circuit. `inputs` are the vectors that it reads, in order of first use."""

    def __init__(self, constants: Constants) -> None:
        self.inputs: dict[str, int] = {"challenge": 0}
        self.powers: dict[Run, int] = {}
        """The runs that stand in the vector `challenge`, with their places."""
        self.work: list[tuple[int, int, int]] = []
        """Rows as (results, products of each, rows besides): an elementwise operation on n elements is (1, n, 0)."""
        self._constants = constants
        self._nodes: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = []
        self._indices: dict[tuple[int, ...], str] = {}
        self._known: dict[Any, Tensor] = {}

    def rows(self, columns: int) -> int:
        """Rows that the operations take with so many inner columns."""
        return sum(results * -(-length // columns) + besides for results, length, besides in self.work)

    def vector(self, name: str, length: int) -> Tensor:
        """An input vector."""
        self.inputs[name] = length
        return Tensor(name, (length,))

    def power_vector(self, challenge: int, stride: int, size: int) -> Tensor:
        """1, c^stride, c^(2 stride), .. as elements of the vector `challenge`.

        They come in and go out again as public outputs, which the verifier computes: powers that were computed here
        would be joined from pieces, and ezkl takes every product with joined pieces apart.
        """
        run = (challenge, stride, size)
        if run not in self.powers:
            self.powers[run] = self.inputs["challenge"]
            self.inputs["challenge"] += size
        start = self.powers[run]
        return self.take(Tensor("challenge", (0,)), range(start, start + size), (size,))

    def constant(self, value: int, shape: Sequence[int] = (1,)) -> Tensor:
        """One constant for every element of a shape."""
        place = self._constants.place(value)
        return self.take(Tensor("constants", (0,)), [place] * math.prod(shape), shape)

    def constant_tensor(self, values: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Constants, one an element."""
        return self.take(Tensor("constants", (0,)), [self._constants.place(value) for value in values], shape)

    def take(self, source: Tensor, places: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Elements of a vector by their places."""
        if source.name == "constants":
            self.inputs.setdefault("constants", 0)
        if len(source.shape) == 1 and source.shape[0] == len(places) and list(places) == list(range(len(places))):
            return self.reshape(source, shape)
        flat = self._op("Gather", [source.name, self._index(places)], (len(places),), axis=0)
        return self.reshape(flat, shape)

    def reshape(self, at: Tensor, shape: Sequence[int]) -> Tensor:
        """The same elements in another shape."""
        if tuple(shape) == at.shape:
            return at
        return self._op("Reshape", [at.name, self._index(shape)], tuple(shape))

    def permute(self, at: Tensor, axes: Sequence[int]) -> Tensor:
        """Axes in another order."""
        if list(axes) == list(range(len(at.shape))):
            return at
        return self._op("Transpose", [at.name], tuple(at.shape[axis] for axis in axes), perm=list(axes))

    def concat(self, items: Sequence[Tensor], axis: int = 0) -> Tensor:
        """Tensors one behind the other."""
        if len(items) == 1:
            return items[0]
        shape = list(items[0].shape)
        shape[axis] = sum(item.shape[axis] for item in items)
        return self._op("Concat", [item.name for item in items], tuple(shape), axis=axis)

    def table(self, at: Tensor) -> Tensor:
        """max(v, 0), and the demand that v lies in the table."""
        return self._op("HardSwish", [at.name], at.shape, work=(1, at.size, 0))

    def add(self, left: Tensor, right: Tensor) -> Tensor:
        """Elementwise, equal shapes."""
        return self._op("Add", [left.name, right.name], left.shape, work=(1, left.size, 0))

    def sub(self, left: Tensor, right: Tensor) -> Tensor:
        """Elementwise, equal shapes."""
        return self._op("Sub", [left.name, right.name], left.shape, work=(1, left.size, 0))

    def mul(self, left: Tensor, right: Tensor) -> Tensor:
        """Elementwise, equal shapes."""
        return self._op("Mul", [left.name, right.name], left.shape, work=(1, left.size, 0))

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """(M, K) times (K, N)."""
        (m, k), n = left.shape, right.shape[1]
        besides = 2 if m * n == 1 else 0  # measured: a single sum of products is aligned to rows
        return self._op("MatMul", [left.name, right.name], (m, n), work=(m * n, k, besides))

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Sum of products of two tensors of one size: one element."""
        size = left.size
        found = self.product(self.reshape(left, (1, size)), self.reshape(right, (size, 1)))
        return self.reshape(found, (1,))

    def total(self, items: Sequence[Tensor]) -> Tensor:
        """Sum of single elements."""
        found = items[0]
        for item in items[1:]:
            found = self.add(found, item)
        return found

    @property
    def has_table(self) -> bool:
        """Whether anything is looked up."""
        return any(kind == "HardSwish" for kind, _, _, _ in self._nodes)

    def needed(self, ends: Sequence[Tensor]) -> set[str]:
        """Names of everything that these tensors are computed from, themselves included."""
        found = {item.name for item in ends}
        for _, ins, name, _ in reversed(self._nodes):
            if name in found:
                found.update(ins)
        return found

    def onnx(self, inputs: Sequence[tuple[str, int]], output: Tensor) -> bytes:
        """ONNX bytes, equal for equal graphs. Raises `MissingExtra` without onnx."""
        try:
            from onnx import TensorProto, helper, numpy_helper
        except ImportError:
            raise MissingExtra("zk", "building the circuit of a step") from None
        import numpy as np

        nodes = [helper.make_node(kind, list(ins), [name], **rest) for kind, ins, name, rest in self._nodes]
        nodes.append(helper.make_node("Identity", [output.name], ["public"]))
        integers = [numpy_helper.from_array(np.array(places, np.int64), name) for places, name in self._indices.items()]

        def info(name: str, size: int) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, [size])

        ends = [info("public", output.size)]
        graph = helper.make_graph(nodes, "step", [info(name, size) for name, size in inputs], ends, integers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _index(self, places: Sequence[int]) -> str:
        return self._indices.setdefault(tuple(places), f"i{len(self._indices)}")

    def _op(
        self,
        kind: str,
        ins: Sequence[str],
        shape: tuple[int, ...],
        work: tuple[int, int, int] | None = None,
        **rest: Any,
    ) -> Tensor:
        names = tuple(sorted(ins)) if kind in _COMMUTES else tuple(ins)
        key = (kind, names, shape, repr(rest))
        if key not in self._known:
            name = f"n{len(self._nodes)}"
            self._nodes.append((kind, names, name, rest))
            self._known[key] = Tensor(name, shape)
            if work is not None:
                self.work.append(work)
        return self._known[key]
