"""The exact step: a program run on integers, fast, in NumPy; the specification that a circuit must meet.

Implements `specs/step-proof.md`, section "Program". Every operation has one right result, so the same integers come out
on any hardware. A value outside the range that the circuit can hold stops the step with an error that names it.

Shows: what one step is. Does not show: that anybody executed it (the step proof and replay do).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pot.errors import Malformed, Refused, UsageError
from pot.zk.semantics.integers import argmax, divide, fold, largest, matmul, reciprocal_root, root, rounded, window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.semantics.program import Node, Program

    Ints = NDArray[np.int64]

__all__ = ["RangeLeft", "Run", "advance", "check_batch", "check_state", "run"]


class RangeLeft(Refused):
    """A value of this step lies outside the circuit's range; the step cannot be proven as it is."""


@dataclass(frozen=True)
class Run:
    """What one step computed. The arrays may be views of each other and of the inputs: they are to be read only."""

    values: list[Ints]
    """The tensor of every node."""
    next: dict[str, Ints]
    """The next value of every state tensor: the recorded one where it was given, else the computed one."""


def run(
    program: Program,
    state: Mapping[str, Ints],
    batch: Mapping[str, Ints],
    *,
    after: Mapping[str, Ints] | None = None,
) -> Run:
    """One step from `state` on `batch`, int64 tensors by name.

    `after`: the next state that was recorded, for programs with slack. Raises `Malformed` for tensors of another form,
    `RangeLeft` when a value leaves its range, `Refused` where `after` lies farther away than the slack.
    """
    check_state(program, state)
    check_batch(program, batch)
    inputs = {"state": state, "batch": batch}
    values: list[Ints] = []
    for index, node in enumerate(program.nodes):
        if node.op in inputs:
            values.append(inputs[node.op][node.name or ""])
        else:
            values.append(_value(program, index, node, [values[at] for at in node.inputs]))
    computed = {str(program.nodes[item.state].name): values[item.value] for item in program.next}
    check_state(program, computed, what="the next value of ")
    if after is None:
        return Run(values, computed)
    check_state(program, after, what="the recorded next value of ")
    _check_slack(program, computed, after)
    return Run(values, {name: after[name] for name in computed})


def advance(program: Program, state: Mapping[str, Ints]) -> dict[str, Ints]:
    """The next values of some state tensors that follow from these alone, such as the powers of Adam's betas.

    Raises `UsageError` where they depend on anything else.
    """
    ends = {str(program.nodes[item.state].name): item.value for item in program.next}
    known: dict[int, Ints] = {}
    for index in sorted(_needed(program, [ends[name] for name in state])):
        node = program.nodes[index]
        if node.op == "batch" or (node.op == "state" and node.name not in state):
            raise UsageError(f"{node.name}: {', '.join(state)} cannot be followed without it")
        known[index] = (
            state[str(node.name)]
            if node.op == "state"
            else _value(program, index, node, [known[at] for at in node.inputs])
        )
    return {name: known[ends[name]] for name in state}


def _needed(program: Program, ends: Sequence[int]) -> set[int]:
    seen, open_ = set[int](), list(ends)
    while open_:
        at = open_.pop()
        if at not in seen:
            seen.add(at)
            open_ += program.nodes[at].inputs
    return seen


def check_state(program: Program, state: Mapping[str, Ints], *, start: bool = False, what: str = "") -> None:
    """Names, shapes, dtype, and |v| < 2^(width+1); with `start`, the state a run begins with, |v| < 2^width.

    Raises `Malformed`, `RangeLeft`.
    """
    nodes = [program.nodes[index] for index in program.states]
    _names(state, [str(node.name) for node in nodes], "state")
    for node in nodes:
        name = str(node.name)
        _array(state[name], node.shape, f"{what}{name}")
        bits = (node.width or 0) + (0 if start else 1)
        if (found := largest(state[name])) >= 1 << bits:
            raise RangeLeft(
                f"{what}{name} has an entry of magnitude {found / 2.0**node.bits:.6g}, {2.0 ** (bits - node.bits):.6g}"
                " is the limit: lower the learning rate or rescale the model"
            )


def check_batch(program: Program, batch: Mapping[str, Ints]) -> None:
    """Names, shapes, dtypes and ranges of one batch. Raises `Malformed`."""
    nodes = [program.nodes[index] for index in program.batches]
    _names(batch, [str(node.name) for node in nodes], "batch")
    for node in nodes:
        name, values = str(node.name), batch[str(node.name)]
        _array(values, node.shape, name)
        if not values.size:
            continue
        low, high = int(values.min()), int(values.max())
        if node.kind == "marks":
            if low < 0 or high > 1 or (values.sum(axis=-1) != 1).any():
                raise Malformed(f"{name}: marks are 0 or 1, with exactly one 1 along the last axis")
            continue
        limit = 1 << (node.width or 0)
        least = 0 if node.kind == "unsigned" else -limit
        if low < least or high >= limit:
            raise Malformed(f"{name}: holds {low if low < least else high}, allowed is {least}..{limit - 1}")


def _names(given: Mapping[str, Any], wanted: Sequence[str], what: str) -> None:
    if sorted(given) != sorted(wanted):
        raise Malformed(f"{what}: holds {', '.join(given)[:200] or 'nothing'}, expected {', '.join(wanted)[:200]}")


def _array(array: Any, shape: Sequence[int], name: str) -> None:
    import numpy as np

    if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != tuple(shape):
        found = f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}"
        raise Malformed(f"{name}: an int64 array of shape {tuple(shape)} is needed, this is {found}")


def _check_slack(program: Program, computed: Mapping[str, Ints], after: Mapping[str, Ints]) -> None:
    """-2^n <= recorded - computed < 2^n where the slack n is not 0, else equal."""
    for item in program.next:
        node = program.nodes[item.state]
        name, limit = str(node.name), (1 << item.slack) - 1
        distance = after[name] - computed[name]
        if largest(distance + (distance < 0) if item.slack else distance) > limit:
            raise Refused(
                f"{name}: the recorded next value is {largest(distance)} / 2^{node.bits} away from the exact step's, "
                f"{limit} / 2^{node.bits} is allowed"
            )


def _value(program: Program, index: int, node: Node, ins: list[Ints]) -> Ints:
    import numpy as np

    return np.asarray(_result(program, index, node, ins))  # NumPy makes a scalar of what has no axes


def _result(program: Program, index: int, node: Node, ins: list[Ints]) -> Ints:
    op = node.op
    if op in ("round", "divide", "sqrt", "rsqrt"):
        return _quotient(program, index, node, ins)
    if op == "constant":
        return _constant(node)
    if op in ("add", "sub", "times", "shift", "mul", "matmul", "sum"):
        return _arithmetic(node, ins)
    if op in ("relu", "positive", "argmax"):
        return _choice(node, ins[0])
    return _moved(node, ins)


def _constant(node: Node) -> Ints:
    import numpy as np

    values = np.array([int(value) for value in node.values or ()], np.int64)
    return np.broadcast_to(values[0], node.shape) if len(values) == 1 else values.reshape(node.shape)


def _arithmetic(node: Node, ins: list[Ints]) -> Ints:
    """`Program` has bounded every result of these, from the inputs' ranges, by 2^62."""
    op = node.op
    if op == "add":
        return ins[0] + ins[1]
    if op == "sub":
        return ins[0] - ins[1]
    if op == "times":
        return ins[0] * int(node.factor or "0")
    if op == "shift":
        return ins[0] << (node.count or 0)
    if op == "mul":
        return ins[0] * ins[1]
    if op == "matmul":
        return matmul(ins[0], ins[1])
    total: Ints = ins[0].sum(axis=tuple(node.axes or ()), keepdims=True)
    return total


def _choice(node: Node, values: Ints) -> Ints:
    import numpy as np

    if node.op == "relu":
        return np.maximum(values, 0)
    if node.op == "positive":
        return (values > 0).astype(np.int64)
    return argmax(values)


def _moved(node: Node, ins: list[Ints]) -> Ints:
    import numpy as np

    op, first, axes = node.op, ins[0], list(node.axes or ())
    if op == "relabel":
        return first
    if op == "reshape":
        return first.reshape(node.shape)
    if op == "permute":
        return first.transpose(axes)
    if op == "expand":
        return np.broadcast_to(first, node.shape)
    if op == "slice":
        start = node.start or 0
        return first[(slice(None),) * axes[0] + (slice(start, start + node.shape[axes[0]]),)]
    if op == "concat":
        return np.concatenate(ins, axis=axes[0])
    if op == "window":
        return window(first, node.kernel or (), node.stride or (), node.padding or ())
    return fold(first, node.shape, node.kernel or (), node.stride or ())


def _quotient(program: Program, index: int, node: Node, ins: list[Ints]) -> Ints:
    """The operations that make new limbs; `Program` cannot bound what they are given, so it is looked at here."""
    limit, count = program.quotient_limit(node.limbs or 1), node.count or 0
    if node.op == "round":
        result = rounded(ins[0], count)
    elif node.op == "divide":
        _at_least(program, index, ins[1], 1, "the divisor")
        result = divide(ins[0], ins[1], count, limit)
    elif node.op == "sqrt":
        _at_least(program, index, ins[0], 0, "the argument")
        result = root(ins[0])
    else:
        _at_least(program, index, ins[0], 1, "the argument")
        result = reciprocal_root(ins[0], count, limit)
    if (found := largest(result)) > limit:
        raise RangeLeft(
            f"{_place(program, index)}: a result of {found} or more units of 2^-{node.bits} leaves the range of "
            f"+-{limit}: lower the learning rate, rescale the model, or calibrate on records with larger values"
        )
    return result


def _at_least(program: Program, index: int, values: Ints, least: int, what: str) -> None:
    if values.size and (found := int(values.min())) < least:
        raise RangeLeft(f"{_place(program, index)}: {what} is {found}, the least allowed is {least}")


def _place(program: Program, index: int) -> str:
    """A node by its operation and the named tensors that reach it through nothing but linear operations."""
    names, open_ = set[str](), list(program.nodes[index].inputs)
    while open_:
        node = program.nodes[open_.pop()]
        if node.name is not None:
            names.add(node.name)
        elif node.op not in ("round", "divide", "sqrt", "rsqrt"):
            open_ += node.inputs
    reads = f" of {', '.join(sorted(names))}" if names else ""
    return f"node {index} ({program.nodes[index].op}{reads})"
