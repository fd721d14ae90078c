"""`Builder`: writes a program node by node, with shapes, bits and broadcasting worked out.

Spec: `specs/step-proof.md`, section "Program". Handles are indices of nodes. Binary operations broadcast as NumPy does
and align `bits` by exact shifts; nothing is rounded except where `round`, `divide`, `sqrt` or `rsqrt` is asked for.

Shows: nothing; `Program` checks what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pot.errors import UsageError
from pot.zk.semantics.program import Next, Node, Program
from pot.zk.semantics.shapes import windows

__all__ = ["Builder"]


class Builder:
    """Collects nodes; equal nodes are written once."""

    def __init__(self, *, limb_bits: int) -> None:
        self.limb_bits = limb_bits
        self.nodes: list[Node] = []
        self._known: dict[bytes, int] = {}
        self._next: list[Next] = []

    def program(self, *, label: str, batch: int, max_steps: int) -> Program:
        """The program; nodes that nothing needs are left out. Raises `Malformed` where a rule is broken."""
        kept = self._needed()
        new = {old: at for at, old in enumerate(kept)}
        nodes = [
            self.nodes[old].model_copy(update={"inputs": [new[at] for at in self.nodes[old].inputs]}) for old in kept
        ]
        ends = [Next(state=new[item.state], value=new[item.value], slack=item.slack) for item in self._next]
        value = {
            "version": "pot/step-program/v1", "label": label, "batch": batch, "limb_bits": self.limb_bits,
            "max_steps": max_steps, "nodes": [node.model_dump(exclude_none=True) for node in nodes],
            "next": [item.model_dump() for item in ends],
        }  # fmt: skip
        return Program.from_value(value, what=f"program {label}")

    def shape(self, at: int) -> list[int]:
        """Shape of a node."""
        return list(self.nodes[at].shape)

    def bits(self, at: int) -> int:
        """Fraction bits of a node."""
        return self.nodes[at].bits

    def state(self, name: str, shape: Sequence[int], *, bits: int, width: int) -> int:
        """A tensor of the state, |v| < 2^width at the start."""
        return self._add("state", [], shape, bits, name=name, width=width)

    def batch(self, name: str, shape: Sequence[int], *, kind: str, bits: int = 0, width: int = 1) -> int:
        """A field of the records: `unsigned`, `signed` or `marks`."""
        return self._add("batch", [], shape, bits, name=name, kind=kind, width=width)

    def constant(self, values: Sequence[int], shape: Sequence[int], *, bits: int) -> int:
        """Integers: one for all elements, or all of them."""
        return self._add("constant", [], shape, bits, values=[str(value) for value in values])

    def set_next(self, state: int, value: int, *, slack: int = 0) -> None:
        """Name the next value of a state tensor; it is aligned to the state's bits, by shifts only."""
        gap = self.bits(state) - self.bits(value)
        if gap < 0:
            raise UsageError(f"{self.nodes[state].name}: its next value has {-gap} bits too many; round it first")
        self._next.append(Next(state=state, value=self.shift(value, gap), slack=slack))

    def add(self, left: int, right: int) -> int:
        """left + right."""
        left, right = self._aligned(*self._same(left, right))
        return self._add("add", [left, right], self.shape(left), self.bits(left))

    def sub(self, left: int, right: int) -> int:
        """left - right."""
        left, right = self._aligned(*self._same(left, right))
        return self._add("sub", [left, right], self.shape(left), self.bits(left))

    def mul(self, left: int, right: int) -> int:
        """left * right, elementwise; bits add."""
        left, right = self._same(left, right)
        return self._add("mul", [left, right], self.shape(left), self.bits(left) + self.bits(right))

    def matmul(self, left: int, right: int) -> int:
        """(..., M, K) @ (..., K, N), equal leading axes; bits add."""
        shape = [*self.shape(left)[:-1], self.shape(right)[-1]]
        return self._add("matmul", [left, right], shape, self.bits(left) + self.bits(right))

    def times(self, at: int, factor: int) -> int:
        """Times an integer."""
        return at if factor == 1 else self._add("times", [at], self.shape(at), self.bits(at), factor=str(factor))

    def shift(self, at: int, count: int) -> int:
        """The same number with `count` more fraction bits."""
        return at if count == 0 else self._add("shift", [at], self.shape(at), self.bits(at) + count, count=count)

    def scaled(self, at: int, count: int) -> int:
        """The number times 2^-count, without touching its integers."""
        return at if count == 0 else self._add("relabel", [at], self.shape(at), self.bits(at) + count)

    def sum(self, at: int, axes: Sequence[int]) -> int:
        """Sum over axes, which become 1."""
        shape = [1 if axis in axes else size for axis, size in enumerate(self.shape(at))]
        return self._add("sum", [at], shape, self.bits(at), axes=sorted(axes))

    def reshape(self, at: int, shape: Sequence[int]) -> int:
        """The same elements in another shape."""
        return at if list(shape) == self.shape(at) else self._add("reshape", [at], shape, self.bits(at))

    def permute(self, at: int, axes: Sequence[int]) -> int:
        """Axes in another order."""
        shape = [self.shape(at)[axis] for axis in axes]
        return self._add("permute", [at], shape, self.bits(at), axes=list(axes))

    def expand(self, at: int, shape: Sequence[int]) -> int:
        """Broadcast to a shape; axes are added in front as needed."""
        own = self.shape(at)
        at = self.reshape(at, [1] * (len(shape) - len(own)) + own)
        return at if self.shape(at) == list(shape) else self._add("expand", [at], shape, self.bits(at))

    def slice(self, at: int, axis: int, start: int, stop: int) -> int:
        """Elements start..stop-1 of one axis."""
        shape = self.shape(at)
        shape[axis] = stop - start
        return self._add("slice", [at], shape, self.bits(at), axes=[axis], start=start)

    def concat(self, items: Sequence[int], axis: int) -> int:
        """Tensors one behind the other along an axis; bits must be equal."""
        shape = self.shape(items[0])
        shape[axis] = sum(self.shape(at)[axis] for at in items)
        return self._add("concat", list(items), shape, self.bits(items[0]), axes=[axis])

    def window(self, at: int, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> int:
        """(B, C, H, W) to (B, OH, OW, C kh kw), zeros around."""
        b, c, h, w = self.shape(at)
        oh, ow = (windows(n, k, s, p) for n, k, s, p in zip((h, w), kernel, stride, padding, strict=True))
        shape = [b, oh, ow, c * math.prod(kernel)]
        fields = {"kernel": list(kernel), "stride": list(stride), "padding": list(padding)}
        return self._add("window", [at], shape, self.bits(at), **fields)

    def fold(self, at: int, shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> int:
        """Back from windows to (B, C, H, W), adding what overlaps; no padding."""
        return self._add("fold", [at], shape, self.bits(at), kernel=list(kernel), stride=list(stride))

    def relu(self, at: int) -> int:
        """max(v, 0) of one-limb values."""
        return self._add("relu", [at], self.shape(at), self.bits(at))

    def positive(self, at: int) -> int:
        """1 where v > 0, else 0, of one-limb values."""
        return self._add("positive", [at], self.shape(at), 0)

    def argmax(self, at: int) -> int:
        """1 at the first largest value along the last axis, else 0, of one-limb values."""
        return self._add("argmax", [at], self.shape(at), 0)

    def round(self, at: int, bits: int, *, limbs: int) -> int:
        """To `bits` fraction bits: floor(v / 2^count + 1/2) of the integers; shifted up where it has fewer."""
        count = self.bits(at) - bits
        if count <= 0:
            return self.shift(at, -count)
        return self._add("round", [at], self.shape(at), bits, count=count, limbs=limbs)

    def divide(self, left: int, right: int, *, count: int, limbs: int) -> int:
        """floor((2 left 2^count + right) / (2 right)) of the integers; right must be positive."""
        left, right = self._same(left, right)
        bits = self.bits(left) - self.bits(right) + count
        return self._add("divide", [left, right], self.shape(left), bits, count=count, limbs=limbs)

    def sqrt(self, at: int, *, limbs: int) -> int:
        """floor(sqrt(v)) of the integers, which must not be negative; bits must be even."""
        return self._add("sqrt", [at], self.shape(at), self.bits(at) // 2, limbs=limbs)

    def rsqrt(self, at: int, *, count: int, limbs: int) -> int:
        """floor(2^count / sqrt(v)) of the integers, which must be positive; bits must be even."""
        return self._add("rsqrt", [at], self.shape(at), count - self.bits(at) // 2, count=count, limbs=limbs)

    def _add(self, op: str, inputs: list[int], shape: Sequence[int], bits: int, **fields: Any) -> int:
        value = {"op": op, "inputs": inputs, "shape": list(shape), "bits": bits, **fields}
        node = Node.from_value(value, what=f"operation {op}")
        key = node.to_bytes()
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(node)
        return self._known[key]

    def _same(self, left: int, right: int) -> tuple[int, int]:
        """Broadcast to one shape."""
        one, two = self.shape(left), self.shape(right)
        dims = max(len(one), len(two))
        one, two = [1] * (dims - len(one)) + one, [1] * (dims - len(two)) + two
        if any(a != b and 1 not in (a, b) for a, b in zip(one, two, strict=True)):
            raise UsageError(f"shapes {one} and {two} do not broadcast")
        shape = [max(a, b) if min(a, b) else 0 for a, b in zip(one, two, strict=True)]
        return self.expand(left, shape), self.expand(right, shape)

    def _aligned(self, left: int, right: int) -> tuple[int, int]:
        gap = self.bits(left) - self.bits(right)
        return self.shift(left, max(0, -gap)), self.shift(right, max(0, gap))

    def _needed(self) -> list[int]:
        open_, seen = [at for item in self._next for at in (item.state, item.value)], set[int]()
        while open_:
            at = open_.pop()
            if at not in seen:
                seen.add(at)
                open_ += self.nodes[at].inputs
        batches = {at for at, node in enumerate(self.nodes) if node.op == "batch"}
        return sorted(seen | batches)
