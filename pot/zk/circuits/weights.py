"""Weights of a random combination of a tensor's elements: one vector an axis, and what moving elements does to them.

Implements `specs/step-proof.md`, section "Random combination". Element (i, j, ..) has weight u_i v_j ..; the vector of
an axis is 1, c, c^2, .. for a challenge c of that axis, so different elements have different monomials. Pushing a
combination through an operation that moves or adds elements changes the vectors and not the elements; nothing large is
ever made.

Shows: nothing alone; soundness is the Schwartz-Zippel lemma for the polynomial in the challenges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pot.errors import UsageError
from pot.zk.circuits.graph import Graph, Tensor

__all__ = ["Axis", "Weights", "through_expand", "through_fold", "through_reshape", "through_slice", "vector_of"]


@dataclass(frozen=True)
class Axis:
    """Weights along one axis: powers of `challenge` ** `stride`, or `given` ones, or products of those of `parts` (the
    first part varies slowest), or all 1.
    """

    size: int
    challenge: int | None = None
    stride: int = 1
    given: Tensor | None = None
    parts: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class Weights:
    """One `Axis` for every axis of a tensor, and single elements that all weights are multiplied with."""

    axes: tuple[Axis, ...]
    factors: tuple[Tensor, ...] = ()


def vector_of(graph: Graph, axis: Axis) -> Tensor:
    """The weights of an axis as a vector."""
    if axis.given is not None:
        return axis.given
    if axis.parts:
        found = vector_of(graph, axis.parts[0])
        for part in axis.parts[1:]:
            right = graph.reshape(vector_of(graph, part), (1, part.size))
            product = graph.product(graph.reshape(found, (found.size, 1)), right)
            found = graph.reshape(product, (product.size,))
        return found
    if axis.challenge is None or axis.size == 1:
        return graph.constant(1, (axis.size,))
    return graph.power_vector(axis.challenge, axis.stride, axis.size)


def through_expand(graph: Graph, weights: Weights, shape: Sequence[int]) -> Weights:
    """Weights of a tensor of `shape` that was broadcast to the weighted one."""
    axes, factors = [], list(weights.factors)
    for axis, size in zip(weights.axes, shape, strict=True):
        if size == axis.size:
            axes.append(axis)
            continue
        vector = vector_of(graph, axis)
        factors.append(graph.dot(vector, graph.constant(1, (vector.size,))))
        axes.append(Axis(1))
    return Weights(tuple(axes), tuple(factors))


def through_reshape(weights: Weights, shape: Sequence[int]) -> Weights:
    """Weights of the tensor of `shape` that was reshaped to the weighted one. Raises `UsageError` where none exist."""
    factors = list(weights.factors)
    factors += [axis.given for axis in weights.axes if axis.size == 1 and axis.given is not None]
    left = [part for axis in weights.axes if axis.size != 1 for part in axis.parts or (axis,)]
    axes: list[Axis] = []
    for want in shape:
        block: list[Axis] = []
        size = 1
        while size < want:
            part = left.pop(0)
            if size * part.size > want:
                part, rest = _split(part, want // size)
                left.insert(0, rest)
            block.append(part)
            size *= part.size
        axes.append(_merged(block))
    return Weights(tuple(axes), tuple(factors))


def _split(axis: Axis, front: int) -> tuple[Axis, Axis]:
    """Two axes in place of one: the front one takes the larger stride."""
    if axis.given is not None or front < 2 or axis.size % front:
        raise UsageError("products are reshaped as no random combination can follow; round them first")
    rest = axis.size // front
    return Axis(front, axis.challenge, axis.stride * rest), Axis(rest, axis.challenge, axis.stride)


def _merged(parts: Sequence[Axis]) -> Axis:
    """One axis in place of several: powers stay powers where their strides fit."""
    found: list[Axis] = []
    for part in [item for axis in parts for item in axis.parts or (axis,)]:
        last = found[-1] if found else None
        if last is not None and _fit(last, part):
            found[-1] = Axis(last.size * part.size, part.challenge, part.stride)
        else:
            found.append(part)
    if len(found) < 2:
        return found[0] if found else Axis(1)
    size = 1
    for part in found:
        size *= part.size
    return Axis(size, parts=tuple(found))


def _fit(one: Axis, two: Axis) -> bool:
    """Whether one behind the other they are powers again."""
    plain = one.given is None and two.given is None and one.challenge == two.challenge
    return plain and (one.challenge is None or one.stride == two.stride * two.size)


def through_slice(graph: Graph, weights: Weights, shape: Sequence[int], axis: int, start: int) -> Weights:
    """Weights of the tensor of `shape` that was cut along `axis`: zeros where nothing was taken."""
    axes = list(weights.axes)
    vector = vector_of(graph, axes[axis])
    size = vector.size
    with_zero = graph.concat([vector, graph.constant(0)])
    places = [at - start if start <= at < start + size else size for at in range(shape[axis])]
    axes[axis] = Axis(shape[axis], given=graph.take(with_zero, places, (shape[axis],)))
    return Weights(tuple(axes), weights.factors)


def through_fold(
    weights: Weights, kernel: Sequence[int], stride: Sequence[int],
    cut: Sequence[int],
) -> Weights:  # fmt: skip
    """Weights of the windows (B, OH, OW, C kh kw) that were folded to the weighted image (B, C, H, W)."""
    b, c, h, w = weights.axes
    if any(axis.given is not None or axis.parts for axis in (h, w)):
        raise UsageError("folded products are moved on as no random combination can follow; round them first")
    rows = Axis(cut[1], h.challenge, h.stride * stride[0])
    columns = Axis(cut[2], w.challenge, w.stride * stride[1])
    inner = _merged([c, Axis(kernel[0], h.challenge, h.stride), Axis(kernel[1], w.challenge, w.stride)])
    return Weights((b, rows, columns, inner), weights.factors)
