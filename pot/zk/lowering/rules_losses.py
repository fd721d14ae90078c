"""Rules for losses: squared error, cross-entropy, and softmax with the exponential that it needs.

Implements `specs/step-proof.md`, section "Softmax". The exponential has no table: it is a polynomial on [-2, 0],
raised to the fourth power, of the distance from the largest score; what lies 8 or more below counts as 0.

Shows: nothing.
"""

from __future__ import annotations

from typing import Any, Final

from pot.errors import UsageError
from pot.zk.lowering.rules import Call, as_value, rule, uniform
from pot.zk.lowering.values import Arithmetic, LogSoftmax, Marks, Value, fraction

__all__ = ["softmax"]

EXPONENTIAL: Final = (65536, 65532, 32715, 10704, 2366, 272)
"""exp(x) on [-2, 0], rising powers, on the grid of 16 bits: its fourth power is within 1e-5 of exp(4 x)."""
REACH: Final = 8  # scores so far below the largest have probability 0
COEFFICIENT_BITS: Final = 16
SCORE_BITS: Final = 7


def softmax(a: Arithmetic, value: Value) -> Value:
    """Probabilities along the last axis, one limb, limb_bits - 1 fraction bits."""
    s = a.sketch
    scores = a.number(value)
    axis = len(s.shape(scores)) - 1
    coarse = s.chosen(scores, _coarse_bits(a, scores))
    largest = s.sum(s.mul(s.argmax(coarse), coarse), [axis])
    reach = s.constant([REACH], s.shape(scores), bits=0)
    below = s.sub(s.sub(largest, scores), reach)
    below = s.chosen(below, _coarse_bits(a, below))  # above 0 where a score is out of reach
    lifted = s.add(s.sub(scores, largest), s.relu(below))
    near = s.chosen(lifted, s.limb_bits - 4)  # -8 .. 0, whatever the scores are
    raw = _exponential(a, s.scaled(near, 2))
    weights = s.sub(raw, s.mul(raw, s.positive(below)))
    return Value(s.ratio(weights, s.sum(weights, [axis]), s.limb_bits - 1))


def _coarse_bits(a: Arithmetic, at: int) -> int:
    """Few: what is compared may grow to 2^7 in training, and its last bits do not matter."""
    return min(a.sketch.limb_bits - SCORE_BITS, a.sketch.best_bits(a.sketch.peak(at)))


def _exponential(a: Arithmetic, x: int) -> int:
    """exp(4 x) for x in [-2, 0], on the grid of limb_bits - 1."""
    s = a.sketch
    square = s.chosen(s.mul(x, x), s.limb_bits - 3)
    c = [s.constant([number], s.shape(x), bits=COEFFICIENT_BITS) for number in EXPONENTIAL]
    upper = s.add(c[4], s.mul(c[5], x))
    middle = s.add(s.add(c[2], s.mul(c[3], x)), s.mul(square, upper))
    lower = s.add(s.add(c[0], s.mul(c[1], x)), s.mul(square, middle))
    root = s.chosen(lower, s.limb_bits - 1)
    twice = s.mul(root, root)
    return s.chosen(s.mul(twice, twice), s.limb_bits - 1)


def _along_last(a: Arithmetic, value: Value, dim: int) -> None:
    if dim % len(a.shape(value)) != len(a.shape(value)) - 1:
        raise UsageError("softmax along another axis than the last has no rule: transpose before")


@rule("_softmax.default", "_safe_softmax.default")
def _probabilities(a: Arithmetic, call: Call) -> Any:
    value = as_value(a, call.args[0])
    _along_last(a, value, call.args[1])
    return softmax(a, value)


@rule("_log_softmax.default")
def _log_probabilities(a: Arithmetic, call: Call) -> Any:
    value = as_value(a, call.args[0])
    _along_last(a, value, call.args[1])
    return LogSoftmax(softmax(a, value))


@rule("_softmax_backward_data.default")
def _softmax_backward(a: Arithmetic, call: Call) -> Any:
    gradient, result = a.narrow(as_value(a, call.args[0])), as_value(a, call.args[1])
    total = a.sum(a.mul(gradient, result), [len(call.shape) - 1])
    return a.mul(result, a.add(gradient, a.narrow(total), -1))


@rule("_log_softmax_backward_data.default")
def _log_softmax_backward(a: Arithmetic, call: Call) -> Any:
    gradient, result = as_value(a, call.args[0]), call.args[1]
    if not isinstance(result, LogSoftmax):
        raise UsageError("the gradient of log_softmax needs its own result")
    if _one_mark(a, gradient.at):  # they sum to 1: no product is needed
        return a.add(gradient, Value(result.probabilities.at, gradient.scale), -1)
    total = a.sum(gradient, [len(call.shape) - 1])
    return a.add(gradient, a.mul(result.probabilities, total), -1)


def _one_mark(a: Arithmetic, at: int) -> bool:
    """Whether a node holds a field's marks, one along the last axis."""
    node = a.sketch.nodes[at]
    if node.op in ("reshape", "slice"):
        before = a.sketch.nodes[node.inputs[0]]
        return before.shape[-1] == node.shape[-1] and _one_mark(a, node.inputs[0])
    return node.op == "batch" and node.kind == "marks"


@rule("nll_loss_forward.default", "mse_loss.default")
def _loss_itself(a: Arithmetic, call: Call) -> Any:
    """The value of a loss moves no weight: only its gradient is part of a step."""
    return [None, None]


@rule("nll_loss_backward.default")
def _nll_backward(a: Arithmetic, call: Call) -> Any:
    """Minus the marks of the labels, over the number of labels where the loss is a mean."""
    gradient, _, target, weight, reduction = call.args[:5]
    factor = uniform(gradient)
    if not isinstance(target, Marks) or weight is not None or reduction not in (1, 2) or factor is None:
        raise UsageError("cross_entropy takes labels of a field of kind marks, no class weights, reduction mean or sum")
    count = a.sketch.shape(target.at)[0] if reduction == 1 else 1
    return a.scaled(Value(target.at), -fraction(factor) / count)


@rule("mse_loss_backward.default")
def _mse_backward(a: Arithmetic, call: Call) -> Any:
    factor, reduction = uniform(call.args[0]), call.args[3]
    if factor is None or reduction not in (1, 2):
        raise UsageError("mse_loss with reduction none has no rule: use mean or sum")
    difference = a.add(as_value(a, call.args[1]), as_value(a, call.args[2]), -1)
    count = a.sketch.nodes[difference.at].size if reduction == 1 else 1
    return a.scaled(difference, 2 * fraction(factor) / count)
