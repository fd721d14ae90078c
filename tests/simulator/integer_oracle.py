"""A program run by the book: Python integers, one element at a time, from the text of `specs/step-proof.md` alone.

It shares nothing with `pot.zk.semantics.exact` but the document's fields. Slow, and meant to be read beside the spec.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pot.zk.semantics.program import Node, Program


class OutOfRange(Exception):
    """The step does not exist: a value lies outside the range that the spec gives it."""


@dataclass(frozen=True)
class Tensor:
    """Integers by index."""

    shape: tuple[int, ...]
    at: dict[tuple[int, ...], int]

    @classmethod
    def filled(cls, shape: Any, element: Callable[[tuple[int, ...]], int]) -> Tensor:
        """`element` of every index."""
        return cls(tuple(shape), {index: element(index) for index in places(shape)})

    @classmethod
    def of(cls, shape: Any, flat: list[int]) -> Tensor:
        """From elements in row-major order."""
        return cls(tuple(shape), dict(zip(places(shape), flat, strict=True)))

    def flat(self) -> list[int]:
        """Elements in row-major order."""
        return [self.at[index] for index in places(self.shape)]


def places(shape: Any) -> list[tuple[int, ...]]:
    """All indices in row-major order."""
    return list(itertools.product(*(range(size) for size in shape)))


def run_slowly(program: Program, state: Mapping[str, Any], batch: Mapping[str, Any]) -> list[list[int]]:
    """Every node's elements in row-major order. `state` and `batch`: arrays or nested lists. Raises `OutOfRange`."""
    tensors: list[Tensor] = []
    for node in program.nodes:
        if node.op == "state" or node.op == "batch":
            source = state if node.op == "state" else batch
            tensors.append(Tensor.of(node.shape, flattened(source[str(node.name)])))
        elif node.op == "constant":
            values = [int(value) for value in node.values or []]
            tensors.append(Tensor.of(node.shape, values if len(values) == node.size else values * node.size))
        else:
            tensors.append(OPERATIONS[node.op](program, node, [tensors[at] for at in node.inputs]))
    for item in program.next:
        width = program.nodes[item.state].width or 0
        if any(abs(value) >= 2 ** (width + 1) for value in tensors[item.value].flat()):
            raise OutOfRange(f"next value of {program.nodes[item.state].name}")
    return [tensor.flat() for tensor in tensors]


def flattened(value: Any) -> list[int]:
    """Row-major elements of an array or of nested lists."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [one for item in value for one in flattened(item)] if isinstance(value, list) else [int(value)]


def _each(function: Callable[..., int]) -> Callable[[Program, Node, list[Tensor]], Tensor]:
    return lambda program, node, ins: Tensor.filled(
        node.shape, lambda index: function(node, *(tensor.at[index] for tensor in ins))
    )


def _quotient(function: Callable[..., int]) -> Callable[[Program, Node, list[Tensor]], Tensor]:
    def operation(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
        result = _each(function)(program, node, ins)
        single = 2**program.limb_bits - 16
        limit = single if node.limbs == 1 else 2 ** ((node.limbs or 0) * program.limb_bits - 1) - 1
        if any(abs(value) > limit for value in result.flat()):
            raise OutOfRange(node.op)
        return result

    return operation


def _divide(node: Node, a: int, b: int) -> int:
    if b < 1:
        raise OutOfRange("divide")
    return (2 * a * 2 ** (node.count or 0) + b) // (2 * b)


def _sqrt(node: Node, v: int) -> int:
    if v < 0:
        raise OutOfRange("sqrt")
    return _largest(lambda q: q * q <= v)


def _rsqrt(node: Node, v: int) -> int:
    if v < 1:
        raise OutOfRange("rsqrt")
    # q <= 2^s / sqrt(v) is q^2 v <= 2^(2 s) for q >= 0
    return _largest(lambda q: q * q * v <= 4 ** (node.count or 0))


def _largest(holds: Callable[[int], bool]) -> int:
    """The largest q >= 0 for which a condition holds that holds for 0 and, once it fails, fails for good."""
    high = 1
    while holds(high):
        high *= 2
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _matmul(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    a, b = ins

    def element(index: tuple[int, ...]) -> int:
        *lead, m, n = index
        return sum(a.at[(*lead, m, k)] * b.at[(*lead, k, n)] for k in range(a.shape[-1]))

    return Tensor.filled(node.shape, element)


def _sum(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    total = dict.fromkeys(places(node.shape), 0)
    for index, value in ins[0].at.items():
        total[tuple(0 if axis in (node.axes or ()) else at for axis, at in enumerate(index))] += value
    return Tensor(tuple(node.shape), total)


def _reshape(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    return Tensor.of(node.shape, ins[0].flat())


def _permute(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    axes = node.axes or []
    return Tensor(tuple(node.shape), {tuple(index[axis] for axis in axes): v for index, v in ins[0].at.items()})


def _expand(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    def element(index: tuple[int, ...]) -> int:
        return ins[0].at[tuple(0 if size == 1 else at for at, size in zip(index, ins[0].shape, strict=True))]

    return Tensor.filled(node.shape, element)


def _slice(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    axis, start = (node.axes or [0])[0], node.start or 0
    return Tensor.filled(node.shape, lambda index: ins[0].at[(*index[:axis], index[axis] + start, *index[axis + 1 :])])


def _concat(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    axis, found, begins = (node.axes or [0])[0], dict[tuple[int, ...], int](), 0
    for tensor in ins:
        for index, value in tensor.at.items():
            found[(*index[:axis], index[axis] + begins, *index[axis + 1 :])] = value
        begins += tensor.shape[axis]
    return Tensor(tuple(node.shape), found)


def _taken(node: Node, index: tuple[int, ...], padding: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixel behind element (b, oh, ow, e) of a tensor of windows."""
    (kh, kw), (sh, sw) = node.kernel or (), node.stride or ()
    b, oh, ow, e = index
    channel, row, column = e // (kh * kw), e // kw % kh, e % kw
    return b, channel, oh * sh + row - padding[0], ow * sw + column - padding[1]


def _window(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    ph, pw = node.padding or ()
    return Tensor.filled(node.shape, lambda index: ins[0].at.get(_taken(node, index, (ph, pw)), 0))


def _fold(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    total = dict.fromkeys(places(node.shape), 0)
    for index, value in ins[0].at.items():
        total[_taken(node, index, (0, 0))] += value
    return Tensor(tuple(node.shape), total)


def _argmax(program: Program, node: Node, ins: list[Tensor]) -> Tensor:
    def element(index: tuple[int, ...]) -> int:
        row = [ins[0].at[(*index[:-1], at)] for at in range(node.shape[-1])]
        return int(row.index(max(row)) == index[-1])

    return Tensor.filled(node.shape, element)


OPERATIONS: dict[str, Callable[[Program, Node, list[Tensor]], Tensor]] = {
    "add": _each(lambda node, a, b: a + b),
    "sub": _each(lambda node, a, b: a - b),
    "times": _each(lambda node, a: a * int(node.factor)),
    "shift": _each(lambda node, a: a * 2**node.count),
    "relabel": _each(lambda node, a: a),
    "mul": _each(lambda node, a, b: a * b),
    "matmul": _matmul,
    "sum": _sum,
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "slice": _slice,
    "concat": _concat,
    "window": _window,
    "fold": _fold,
    "relu": _each(lambda node, a: max(a, 0)),
    "positive": _each(lambda node, a: int(a > 0)),
    "argmax": _argmax,
    "round": _quotient(lambda node, a: math.floor((a + 2 ** (node.count - 1)) // 2**node.count)),
    "divide": _quotient(_divide),
    "sqrt": _quotient(_sqrt),
    "rsqrt": _quotient(_rsqrt),
}
