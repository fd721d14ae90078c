"""Rules for layers: convolution, pooling, embedding, layer normalisation, and their gradients.

Implements `specs/step-proof.md`, section "Lowering". A convolution is a product with the windows of its input; what
pools does it on rounded values only where it has to compare them.

Shows: nothing.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Final

from pot.errors import UsageError
from pot.zk.lowering.rules import Call, as_value, rule
from pot.zk.lowering.values import Arithmetic, Fixed, Marks, Value

__all__: list[str] = []

EPSILON_BITS: Final = 24  # a variance keeps at least so many fraction bits, so that eps is not lost


def _pair(item: Any) -> list[int]:
    return [item, item] if isinstance(item, int) else (list(item) * 2)[:2]


def _convolution_form(call: Call, first: int) -> tuple[list[int], list[int]]:
    """Stride and padding, where the rest is plain."""
    stride, padding, dilation, transposed, _, groups = call.args[first : first + 6]
    if len(stride) != 2 or transposed or groups != 1 or list(dilation) != [1, 1]:
        raise UsageError("only Conv2d with groups=1 and dilation=1 has a rule")
    return _pair(stride), _pair(padding)


def _windows(a: Arithmetic, value: Value, kernel: list[int], stride: list[int], padding: list[int]) -> Value:
    """(B OH OW, C kh kw)"""
    cut = a.sketch.window(value.at, kernel, stride, padding)
    shape = a.sketch.shape(cut)
    return Value(a.sketch.reshape(cut, [math.prod(shape[:3]), shape[3]]), value.scale)


@rule("convolution.default")
def _convolution(a: Arithmetic, call: Call) -> Any:
    stride, padding = _convolution_form(call, 3)
    s, image, weight = a.sketch, a.narrow(as_value(a, call.args[0])), as_value(a, call.args[1])
    out, _, kh, kw = s.shape(weight.at)
    rows = _windows(a, image, [kh, kw], stride, padding)
    columns = a.moved(weight, lambda at: s.permute(s.reshape(at, [out, s.nodes[at].size // out]), [1, 0]))
    batch, _, height, width = call.shape
    result = a.moved(
        a.matmul(rows, columns), lambda at: s.permute(s.reshape(at, [batch, height, width, out]), [0, 3, 1, 2])
    )
    if call.args[2] is None:
        return result
    return a.add(result, a.moved(as_value(a, call.args[2]), lambda at: s.reshape(at, [1, out, 1, 1])))


@rule("convolution_backward.default")
def _convolution_backward(a: Arithmetic, call: Call) -> Any:
    stride, padding = _convolution_form(call, 4)
    s, wanted = a.sketch, call.args[10]
    gradient, image, weight = (as_value(a, item) for item in call.args[:3])
    gradient, image = a.narrow(gradient), a.narrow(image)
    out, channels, kh, kw = s.shape(weight.at)
    batch, _, height, width = s.shape(gradient.at)
    rows = a.moved(gradient, lambda at: s.reshape(s.permute(at, [0, 2, 3, 1]), [batch * height * width, out]))
    found: list[Value | None] = [None, None, None]
    if wanted[0]:
        flat = a.moved(weight, lambda at: s.reshape(at, [out, channels * kh * kw]))
        cut = [batch, height, width, channels * kh * kw]
        size = [n + 2 * p for n, p in zip(s.shape(image.at)[2:], padding, strict=True)]
        whole = [batch, channels, *size]
        found[0] = a.moved(
            a.matmul(rows, flat), lambda at: _inner(a, s.fold(s.reshape(at, cut), whole, [kh, kw], stride), padding)
        )
    if wanted[1]:
        windows = _windows(a, image, [kh, kw], stride, padding)
        total = a.matmul(a.moved(rows, lambda at: s.permute(at, [1, 0])), windows)
        found[1] = a.moved(total, lambda at: s.reshape(at, [out, channels, kh, kw]))
    if wanted[2]:
        found[2] = a.moved(a.sum(gradient, [0, 2, 3]), lambda at: s.reshape(at, [out]))
    return found


def _inner(a: Arithmetic, at: int, padding: list[int]) -> int:
    """Without the padding."""
    for axis, each in zip((2, 3), padding, strict=True):
        if each:
            at = a.sketch.slice(at, axis, each, a.sketch.shape(at)[axis] - each)
    return at


def _pool_form(call: Call, first: int, what: str) -> tuple[list[int], list[int]]:
    kernel = _pair(call.arg(first))
    stride = _pair(call.arg(first + 1) or kernel)
    if any(_pair(call.arg(first + 2, 0))):
        raise UsageError(f"{what} with padding has no rule: pad before, or use a kernel that fits")
    return kernel, stride


@rule("avg_pool2d.default")
def _average(a: Arithmetic, call: Call) -> Any:
    kernel, stride = _pool_form(call, 1, "avg_pool2d")
    if call.arg(4, False) or call.arg(6) is not None:
        raise UsageError("avg_pool2d with ceil_mode or divisor_override has no rule: leave them out")
    s, value = a.sketch, as_value(a, call.args[0])
    batch, channels, height, width = call.shape
    if kernel == stride:  # linear, also of products that were not rounded
        for axis, size in ((2, height * kernel[0]), (3, width * kernel[1])):
            if s.shape(value.at)[axis] != size:
                value = a.moved(value, lambda at, axis=axis, size=size: s.slice(at, axis, 0, size))  # type: ignore[misc]
        parts = [batch, channels, height, kernel[0], width, kernel[1]]
        total = a.sum(a.moved(value, lambda at: s.reshape(at, parts)), [3, 5])
    else:
        value = a.narrow(value)
        cut = s.reshape(s.window(value.at, kernel, stride, [0, 0]), [batch, height, width, channels, math.prod(kernel)])
        total = Value(s.permute(s.sum(cut, [4]), [0, 3, 1, 2, 4]), value.scale)
    return a.scaled(a.moved(total, lambda at: s.reshape(at, call.shape)), Fraction(1, math.prod(kernel)))


@rule("avg_pool2d_backward.default")
def _average_backward(a: Arithmetic, call: Call) -> Any:
    kernel, stride = _pool_form(call, 2, "avg_pool2d")
    s, gradient = a.sketch, as_value(a, call.args[0])
    batch, channels, height, width = s.shape(gradient.at)
    spread = [batch, channels, height, kernel[0], width, kernel[1]]
    if kernel == stride and call.shape[2:] == [height * kernel[0], width * kernel[1]]:
        whole = a.moved(gradient, lambda at: s.expand(s.reshape(at, [batch, channels, height, 1, width, 1]), spread))
        whole = a.moved(whole, lambda at: s.reshape(at, call.shape))
    else:
        whole = a.moved(gradient, lambda at: _unpooled(a, s.reshape(at, [*s.shape(at), 1]), call.shape, kernel, stride))
    return a.scaled(whole, Fraction(1, math.prod(kernel)))


def _unpooled(a: Arithmetic, at: int, shape: list[int], kernel: list[int], stride: list[int]) -> int:
    """(B, C, OH, OW, k or 1) added back to an image, where each pooled number came from."""
    s = a.sketch
    batch, channels, height, width = s.shape(at)[:4]
    count = math.prod(kernel)
    windows = s.expand(s.permute(at, [0, 2, 3, 1, 4]), [batch, height, width, channels, count])
    return s.fold(s.reshape(windows, [batch, height, width, channels * count]), shape, kernel, stride)


def _choices(a: Arithmetic, value: Value, kernel: list[int], stride: list[int]) -> tuple[int, int]:
    """The numbers under each window, (B, OH, OW, C, k), and 1 at the first largest of them."""
    s = a.sketch
    cut = s.window(value.at, kernel, stride, [0, 0])
    batch, height, width, both = s.shape(cut)
    count = math.prod(kernel)
    parts = s.reshape(cut, [batch, height, width, both // count, count])
    return parts, s.argmax(parts)


@rule("max_pool2d_with_indices.default")
def _largest(a: Arithmetic, call: Call) -> Any:
    kernel, stride = _pool_form(call, 1, "max_pool2d")
    if call.arg(4, 1) not in (1, [1, 1]) or call.arg(5, False):
        raise UsageError("max_pool2d with dilation or ceil_mode has no rule: leave them out")
    s, value = a.sketch, a.narrow(a.positive_scale(as_value(a, call.args[0])))
    parts, choice = _choices(a, value, kernel, stride)
    chosen = s.permute(s.sum(s.mul(parts, choice), [4]), [0, 3, 1, 2, 4])
    return [Value(s.reshape(chosen, call.shape), value.scale), None]


@rule("max_pool2d_with_indices_backward.default")
def _largest_backward(a: Arithmetic, call: Call) -> Any:
    kernel, stride = _pool_form(call, 2, "max_pool2d")
    s, gradient = a.sketch, a.narrow(as_value(a, call.args[0]))
    value = a.narrow(a.positive_scale(as_value(a, call.args[1])))
    _, choice = _choices(a, value, kernel, stride)
    shape = s.shape(gradient.at)
    spread = s.mul(s.permute(choice, [0, 3, 1, 2, 4]), s.reshape(gradient.at, [*shape, 1]))
    return Value(_unpooled(a, spread, call.shape, kernel, stride), gradient.scale)


@rule("embedding.default")
def _embedding(a: Arithmetic, call: Call) -> Any:
    table, ids = as_value(a, call.args[0]), call.args[1]
    rows = _one_hot_rows(a, ids, a.sketch.shape(table.at)[0])
    return a.moved(a.matmul(Value(rows), table), lambda at: a.sketch.reshape(at, call.shape))


@rule("embedding_dense_backward.default")
def _embedding_backward(a: Arithmetic, call: Call) -> Any:
    gradient, ids, count, padding, by_frequency = call.args
    if padding >= 0 or by_frequency:
        raise UsageError("an embedding with padding_idx or scale_grad_by_freq has no rule: leave them out")
    s, value = a.sketch, as_value(a, gradient)
    rows = _one_hot_rows(a, ids, count)
    flat = a.moved(a.narrow(value), lambda at: s.reshape(at, [s.shape(rows)[0], s.shape(value.at)[-1]]))
    return a.matmul(Value(s.permute(rows, [1, 0])), flat)


def _one_hot_rows(a: Arithmetic, ids: Any, count: int) -> int:
    """(ids, count) of 0 and 1."""
    s = a.sketch
    if isinstance(ids, Marks):
        if s.shape(ids.at)[-1] != count:
            raise UsageError(f"an embedding of {count} rows is read with a field of {s.shape(ids.at)[-1]} marks")
        return s.reshape(ids.at, [s.nodes[ids.at].size // count, count])
    if isinstance(ids, Fixed):
        flat = [int(one) for one in ids.tensor.reshape(-1)]
        return s.constant([int(one == row) for one in flat for row in range(count)], [len(flat), count], bits=0)
    raise UsageError("an embedding is read with ids of a field of kind marks")


@rule("rsqrt.default")
def _inverse_root(a: Arithmetic, call: Call) -> Any:
    """Of a variance or a mean of squares, which must be positive."""
    number = a.number(as_value(a, call.args[0]))
    if a.sketch.virtual[number]:
        number = a.sketch.narrow(number, limbs=2)
    return Value(a.sketch.inverse_root(a.sketch.shift(number, max(0, EPSILON_BITS - a.sketch.bits(number)))))


@rule("native_layer_norm.default")
def _layer_norm(a: Arithmetic, call: Call) -> Any:
    item, shape, weight, bias, epsilon = call.args
    if len(shape) != 1:
        raise UsageError("LayerNorm over more than the last axis has no rule: flatten it before")
    s, value = a.sketch, Value(a.number(as_value(a, item)))
    last = [len(s.shape(value.at)) - 1]
    centered = Value(a.number(a.narrow(a.add(value, a.mean(value, last), -1))))
    variance = a.number(a.mean(a.mul(centered, centered), last))
    variance = s.shift(variance, max(0, EPSILON_BITS - s.bits(variance)))
    least = max(1, round(epsilon * 2.0 ** s.bits(variance)))
    variance = s.add(variance, s.constant([least], s.shape(variance), bits=s.bits(variance)))
    inverse = Value(s.inverse_root(variance))
    normal = a.narrow(a.mul(centered, inverse))
    result = normal if weight is None else a.mul(normal, as_value(a, weight))
    if bias is not None:
        result = a.add(result, as_value(a, bias))
    return [result, normal, inverse]


@rule("native_layer_norm_backward.default")
def _layer_norm_backward(a: Arithmetic, call: Call) -> Any:
    """In the place of the mean stands what was normalised: see `_layer_norm`."""
    gradient, _, _, normal, inverse, weight, _, wanted = call.args
    last = [len(a.shape(normal)) - 1]
    gradient = a.narrow(as_value(a, gradient))
    found: list[Value | None] = [None, None, None]
    rows = list(range(last[0]))
    if wanted[1]:
        found[1] = a.moved(
            a.sum(a.mul(gradient, normal), rows), lambda at: a.sketch.reshape(at, a.sketch.shape(at)[-1:])
        )
    if wanted[2]:
        found[2] = a.moved(a.sum(gradient, rows), lambda at: a.sketch.reshape(at, a.sketch.shape(at)[-1:]))
    if wanted[0]:
        inner = gradient if weight is None else a.narrow(a.mul(gradient, as_value(a, weight)))
        along = a.narrow(a.mean(a.mul(inner, normal), last))
        rest = a.add(a.add(inner, a.mean(inner, last), -1), a.mul(normal, along), -1)
        found[0] = a.mul(a.narrow(rest), inverse)
    return found
