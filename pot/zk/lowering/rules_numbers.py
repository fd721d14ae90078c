"""Rules for arithmetic: sums, products, powers, matrix products, relu, constants.

Implements `specs/step-proof.md`, section "Lowering". What is linear is written down as it is; a product needs factors
that are held in about one limb, which is where roundings come from.

Shows: nothing.
"""

from __future__ import annotations

import math
from typing import Any

from pot.errors import UsageError
from pot.zk.lowering.rules import Call, as_value, axes_of, rule, uniform
from pot.zk.lowering.values import Arithmetic, Fixed, Marks, Value, fraction

__all__: list[str] = []


@rule("add.Tensor", "sub.Tensor", "add.Scalar", "sub.Scalar", "rsub.Scalar")
def _added(a: Arithmetic, call: Call) -> Any:
    one, two = call.args[:2]
    if call.op == "rsub.Scalar":
        one, two = two, one
    for mask, other in ((one, two), (two, one)):
        if isinstance(mask, Fixed) and _hides(mask) and call.op == "add.Tensor":
            return _hidden(a, as_value(a, other), mask)
    left, right = (_number_or_tensor(a, item, call.shape) for item in (one, two))
    right = a.scaled(right, fraction(float(call.kwargs.get("alpha", 1))))
    return a.add(left, right, -1 if "sub" in call.op else 1)


def _hides(item: Fixed) -> bool:
    return bool((item.tensor == -math.inf).any())


def _number_or_tensor(a: Arithmetic, item: Any, shape: list[int]) -> Value:
    if isinstance(item, (int, float)):
        scale = fraction(float(item))
        return Value(a.sketch.constant([int(scale != 0)], shape, bits=0), scale or fraction(1.0))
    return as_value(a, item)


def _hidden(a: Arithmetic, value: Value, mask: Fixed) -> Value:
    """value + mask, with a number below all others in the place of -inf: softmax makes it exactly 0."""
    node = a.number(value)
    low = -(1 << math.ceil(math.log2(4 * a.sketch.peak(node) + 16)))
    finite = mask.tensor.clone().double()
    finite[finite == -math.inf] = low
    return a.add(Value(node), a.constant(finite))


@rule("mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar")
def _multiplied(a: Arithmetic, call: Call) -> Any:
    left, right = call.args
    divided = call.op.startswith("div")
    if not divided and uniform(left) is not None:
        left, right = right, left
    factor = uniform(right)
    if factor is not None:
        if factor == 0 and divided:
            raise UsageError("divides by zero")
        value = a.scaled(as_value(a, left), 1 / fraction(factor) if divided else fraction(factor))
        return a.moved(value, lambda at: a.sketch.expand(at, call.shape))
    if divided:
        raise UsageError("dividing by a tensor that is no constant has no rule: use LayerNorm or softmax, or divide "
                         "by a constant")  # fmt: skip
    return a.mul(as_value(a, left), as_value(a, right))


@rule("masked_fill.Scalar", "where.self")
def _masked(a: Arithmetic, call: Call) -> Any:
    """A constant mask: -inf in its places makes softmax give 0 there, 0 takes gradients away."""
    import torch

    if call.op == "where.self":
        mask, item, filling = call.args
        if isinstance(item, Fixed):
            item, filling, mask = filling, item, _turned(mask)
        mask, number = _turned(mask), uniform(filling)
    else:
        item, mask, number = call.args
    if not isinstance(mask, Fixed) or isinstance(item, Fixed) or number not in (0, -math.inf):
        raise UsageError("only a constant mask that fills in 0 or -inf has a rule")
    places = mask.tensor.bool().expand(call.shape)
    if number == 0:
        return a.mul(as_value(a, item), a.constant((~places).double()))
    return _hidden(a, as_value(a, item), Fixed(torch.zeros(call.shape).masked_fill(places, -math.inf)))


def _turned(mask: Any) -> Any:
    return Fixed(~mask.tensor.bool()) if isinstance(mask, Fixed) else mask


@rule("neg.default")
def _negated(a: Arithmetic, call: Call) -> Any:
    return a.scaled(as_value(a, call.args[0]), fraction(-1.0))


@rule("pow.Tensor_Scalar")
def _power(a: Arithmetic, call: Call) -> Any:
    value, exponent = as_value(a, call.args[0]), call.args[1]
    if exponent not in (1, 2, 3):
        raise UsageError(f"a power of {exponent} has no rule: exponents 1, 2 and 3 have")
    result = value
    for _ in range(int(exponent) - 1):
        result = a.mul(result, value)
    return result


@rule("sum.default", "sum.dim_IntList", "mean.default", "mean.dim")
def _totalled(a: Arithmetic, call: Call) -> Any:
    value = as_value(a, call.args[0])
    axes = axes_of(a, value, call.arg(1))
    total = a.sum(value, axes) if call.op.startswith("sum") else a.mean(value, axes)
    return a.moved(total, lambda at: a.sketch.reshape(at, call.shape))


@rule("mm.default", "bmm.default")
def _product(a: Arithmetic, call: Call) -> Any:
    return a.matmul(as_value(a, call.args[0]), as_value(a, call.args[1]))


@rule("addmm.default", "baddbmm.default")
def _affine(a: Arithmetic, call: Call) -> Any:
    bias, left, right = (as_value(a, item) for item in call.args[:3])
    if {call.kwargs.get("beta", 1), call.kwargs.get("alpha", 1)} != {1}:
        raise UsageError("addmm with factors has no rule: multiply before")
    return a.add(a.matmul(left, right), bias)


@rule("relu.default")
def _relu(a: Arithmetic, call: Call) -> Any:
    value = a.narrow(a.positive_scale(as_value(a, call.args[0])))
    return Value(a.sketch.relu(value.at), value.scale)


@rule("leaky_relu.default")
def _leaky(a: Arithmetic, call: Call) -> Any:
    value = a.narrow(a.positive_scale(as_value(a, call.args[0])))
    slope = fraction(float(call.arg(1, 0.01)))
    above = a.scaled(Value(a.sketch.relu(value.at), value.scale), 1 - slope)
    return a.add(above, a.scaled(value, slope))


@rule("leaky_relu_backward.default")
def _leaky_backward(a: Arithmetic, call: Call) -> Any:
    gradient, value, slope, of_result = as_value(a, call.args[0]), as_value(a, call.args[1]), *call.args[2:4]
    value = a.narrow(a.positive_scale(value))
    if of_result:
        raise UsageError("leaky_relu in place has no rule: leave inplace out")
    gradient, slope = a.narrow(gradient), fraction(float(slope))
    above = a.mul(Value(a.sketch.positive(value.at)), gradient)
    return a.add(a.scaled(above, 1 - slope), a.scaled(gradient, slope))


@rule("threshold_backward.default")
def _relu_backward(a: Arithmetic, call: Call) -> Any:
    gradient, result = as_value(a, call.args[0]), as_value(a, call.args[1])
    if call.args[2] != 0:
        raise UsageError("a threshold other than 0 has no rule: use relu")
    return a.mul(Value(sign(a, result.at)), a.narrow(gradient))


def sign(a: Arithmetic, at: int) -> int:
    """1 where a relu let its input pass: read from the input, whose sign the circuit has already found."""
    path, node = [], at
    while a.sketch.nodes[node].op in ("reshape", "permute"):
        path.append(node)
        node = a.sketch.nodes[node].inputs[0]
    if a.sketch.nodes[node].op != "relu":
        return a.sketch.positive(a.sketch.narrow(at))
    found = a.sketch.positive(a.sketch.nodes[node].inputs[0])
    for step in reversed(path):
        item = a.sketch.nodes[step]
        found = (
            a.sketch.reshape(found, item.shape) if item.op == "reshape" else a.sketch.permute(found, item.axes or [])
        )
    return found


@rule("ones_like.default", "full_like.default", "zeros_like.default", "zeros.default", "full.default",
      "new_zeros.default")  # fmt: skip
def _filled(a: Arithmetic, call: Call) -> Any:
    import torch

    number = {"ones": 1.0, "zero": 0.0, "new_": 0.0}.get(call.op[:4])
    return Fixed(torch.full(call.shape, float(call.args[1]) if number is None else number))


@rule("eq.Tensor")
def _one_hot(a: Arithmetic, call: Call) -> Any:
    """What one_hot is traced to: ids along one more axis, compared with 0, 1, 2, ..."""
    import torch

    for ids, numbers in (call.args[:2], call.args[1::-1]):
        if isinstance(ids, Marks) and isinstance(numbers, Fixed) and a.shape(ids)[-1:] == [1]:
            classes = a.sketch.shape(ids.at)[-1]
            if numbers.tensor.shape != (classes,) or not torch.equal(numbers.tensor, torch.arange(classes)):
                raise UsageError(f"one_hot needs num_classes={classes}, as the field says")
            return Value(a.sketch.reshape(ids.at, call.shape))
    raise UsageError("only one_hot may compare: comparisons between values have no rule")
