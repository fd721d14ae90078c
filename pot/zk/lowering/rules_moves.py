"""Rules for operations that only move numbers: views, transposes, slices, joins. They cost nothing in a circuit.

Implements `specs/step-proof.md`, section "Lowering". Token ids and labels, which a program holds one-hot, move in the
same way, with their own axis last.

Shows: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pot.errors import UsageError
from pot.zk.lowering.rules import Call, as_value, axes_of, rule
from pot.zk.lowering.values import Arithmetic, Marks, Value

__all__: list[str] = []


def _moved(a: Arithmetic, item: Any, move: Callable[[int, list[int]], int]) -> Any:
    """Apply a move of axes to a tensor, or to marks, whose own axis (the list) stays last."""
    if isinstance(item, Marks):
        return Marks(move(item.at, a.sketch.shape(item.at)[-1:]))
    value = as_value(a, item)
    return Value(move(value.at, []), value.scale)


@rule("view.default", "_unsafe_view.default", "reshape.default", "unsqueeze.default", "squeeze.dim", "squeeze.dims",
      "squeeze.default")  # fmt: skip
def _reshaped(a: Arithmetic, call: Call) -> Any:
    return _moved(a, call.args[0], lambda at, tail: a.sketch.reshape(at, [*call.shape, *tail]))


@rule("clone.default", "detach.default", "alias.default", "_to_copy.default", "lift_fresh_copy.default",
      "lift_fresh.default", "contiguous.default")  # fmt: skip
def _same(a: Arithmetic, call: Call) -> Any:
    return call.args[0]


@rule("permute.default", "t.default", "transpose.int")
def _permuted(a: Arithmetic, call: Call) -> Any:
    item = call.args[0]
    rank = len(a.shape(item if isinstance(item, Marks) else as_value(a, item)))
    order = list(range(rank))
    if call.op == "permute.default":
        order = [dim % rank for dim in call.args[1]]
    else:
        one, two = (0, rank - 1) if call.op == "t.default" else (dim % rank for dim in call.args[1:3])
        order[one], order[two] = order[two], order[one]
    return _moved(a, item, lambda at, tail: a.sketch.permute(at, order + [rank for _ in tail]))


@rule("expand.default")
def _expanded(a: Arithmetic, call: Call) -> Any:
    return _moved(a, call.args[0], lambda at, tail: a.sketch.expand(at, [*call.shape, *tail]))


@rule("slice.Tensor")
def _sliced(a: Arithmetic, call: Call) -> Any:
    item, dim = call.args[0], call.arg(1, 0)
    start, stop, step = call.arg(2) or 0, call.arg(3), call.arg(4, 1)
    if step != 1:
        raise UsageError("slices with a step have no rule: reshape and select instead")
    axis = axes_of(a, item if isinstance(item, Marks) else as_value(a, item), dim)[0]

    def cut(at: int, tail: list[int]) -> int:
        size = a.sketch.shape(at)[axis]
        first, last, _ = slice(start, stop).indices(size)
        return at if (first, last) == (0, size) else a.sketch.slice(at, axis, first, last)

    return _moved(a, item, cut)


@rule("select.int")
def _selected(a: Arithmetic, call: Call) -> Any:
    item, dim, index = call.args
    axis = axes_of(a, item if isinstance(item, Marks) else as_value(a, item), dim)[0]

    def cut(at: int, tail: list[int]) -> int:
        first = index % a.sketch.shape(at)[axis]
        return a.sketch.reshape(a.sketch.slice(at, axis, first, first + 1), [*call.shape, *tail])

    return _moved(a, item, cut)


@rule("unbind.int", "split.Tensor")
def _parts(a: Arithmetic, call: Call) -> Any:
    value = as_value(a, call.args[0])
    split = call.op == "split.Tensor"
    axis = axes_of(a, value, call.arg(2 if split else 1, 0))[0]
    size, each = a.shape(value)[axis], call.args[1] if split else 1
    parts = []
    for first in range(0, size, each):
        cut = a.sketch.slice(value.at, axis, first, min(first + each, size))
        shape = a.sketch.shape(cut)
        parts.append(Value(cut if split else a.sketch.reshape(cut, shape[:axis] + shape[axis + 1 :]), value.scale))
    return parts


@rule("cat.default", "stack.default")
def _joined(a: Arithmetic, call: Call) -> Any:
    values = [as_value(a, item) for item in call.args[0]]
    axis = call.arg(1, 0) % len(call.shape)
    if call.op == "stack.default":
        values = [a.moved(v, lambda at: a.sketch.reshape(at, _with(a.sketch.shape(at), axis, 1))) for v in values]
    return join(a, values, axis)


def join(a: Arithmetic, values: Sequence[Value], axis: int) -> Value:
    """One behind the other, in the finest grid and with one factor among them."""
    held = [a.narrow(value) if a.sketch.virtual[value.at] else value for value in values]
    for at, value in enumerate(held[1:], 1):  # add's way of finding a common factor, without adding
        if value.scale != held[0].scale:
            held[at] = Value(a.number(value))
            held[0] = Value(a.number(held[0]))
    if len({value.scale for value in held}) > 1:
        held = [Value(a.number(value)) for value in held]
    bits = max(a.sketch.bits(value.at) for value in held)
    nodes = [a.sketch.shift(value.at, bits - a.sketch.bits(value.at)) for value in held]
    return Value(nodes[0] if len(nodes) == 1 else a.sketch.concat(nodes, axis), held[0].scale)


def _with(shape: list[int], axis: int, size: int) -> list[int]:
    return [*shape[:axis], size, *shape[axis:]]


@rule("slice_backward.default", "select_backward.default")
def _padded(a: Arithmetic, call: Call) -> Any:
    """The gradient of a slice: zeros around it."""
    value, sizes, dim = as_value(a, call.args[0]), list(call.args[1]), call.args[2]
    axis = dim % len(sizes)
    if call.op == "select_backward.default":
        start = call.args[3] % sizes[axis]
        value = a.moved(value, lambda at: a.sketch.reshape(at, _with(a.sketch.shape(at), axis, 1)))
    else:
        start = slice(call.args[3], call.args[4]).indices(sizes[axis])[0]
        if call.arg(5, 1) != 1:
            raise UsageError("slices with a step have no rule: reshape and select instead")
    stop = start + a.shape(value)[axis]
    parts = [value]
    for size, front in ((start, True), (sizes[axis] - stop, False)):
        if size:
            zeros = Value(a.sketch.constant([0], [*sizes[:axis], size, *sizes[axis + 1 :]], bits=0), value.scale)
            parts.insert(0 if front else len(parts), zeros)
    return join(a, parts, axis)
