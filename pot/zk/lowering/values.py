"""What the edges of a traced graph become: tensors of a program with a rational factor, token ids, constants.

Implements `specs/step-proof.md`, section "Lowering". A factor that is no power of two stays beside its tensor, through
every linear operation, until two factors meet or the update is written: so 1/80 of a loss costs nothing and is
rounded once, together with the learning rate.

Shows: nothing; `Program` checks what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from pot.errors import UsageError
from pot.zk.lowering.sketch import MOVES, TooWide
from pot.zk.semantics.program import REFERENCE_BITS

if TYPE_CHECKING:
    from pot.zk.lowering.sketch import Sketch

__all__ = ["FACTOR_BITS", "Arithmetic", "Fixed", "LogSoftmax", "Marks", "Value", "dyadic", "fraction"]

FACTOR_BITS: Final = 12
"""A factor that is no small multiple of a power of two is replaced by the nearest one of so many bits."""
LEAST_FACTOR_BITS: Final = 8
SIMPLE_BITS: Final = 4
SPARE_BITS: Final = 6  # an operand of a product may exceed one limb by so much
MAX_CONSTANT: Final = 1 << 16


@dataclass(frozen=True)
class Value:
    """The numbers of node `at`, times `scale`."""

    at: int
    scale: Fraction = Fraction(1)


@dataclass(frozen=True)
class Marks:
    """Token ids or labels: node `at` holds them one-hot, along one more axis."""

    at: int


@dataclass(frozen=True)
class Fixed:
    """A tensor that depends on no input of the step."""

    tensor: Any


@dataclass(frozen=True)
class LogSoftmax:
    """The logarithm of `probabilities`; only its gradient can be lowered."""

    probabilities: Value


def fraction(number: float) -> Fraction:
    """The simple fraction that a float32 or float64 stands for, or the float itself."""
    if not math.isfinite(number):
        raise UsageError(f"a factor of {number} has no place in integers")
    simple = Fraction(number).limit_denominator(4096)
    return simple if abs(float(simple) - number) <= abs(number) * 2.0**-23 else Fraction(number)


def dyadic(scale: Fraction, bits: int = FACTOR_BITS) -> tuple[int, int]:
    """(m, k), m odd, |m| < 2^bits, so that m / 2^k is nearest to `scale`, which is not 0."""
    if abs(scale.numerator) < 1 << bits and scale.denominator & (scale.denominator - 1) == 0:
        m, k = scale.numerator, scale.denominator.bit_length() - 1
    else:
        k = bits - 1 - math.floor(math.log2(abs(scale)))
        m = round(scale * Fraction(2) ** k)
    while m % 2 == 0:
        m, k = m // 2, k - 1
    return m, k


class Arithmetic:
    """Operations on `Value`s that keep the rules of programs: what is multiplied is held, and is not too wide."""

    def __init__(self, sketch: Sketch) -> None:
        self.sketch = sketch
        self._narrowed: dict[Value, Value] = {}

    def shape(self, value: Value | Marks) -> list[int]:
        """Shape as the traced graph sees it: without the axis of the marks."""
        shape = self.sketch.shape(value.at)
        return shape[:-1] if isinstance(value, Marks) else shape

    def number(self, value: Value) -> int:
        """A node with the factor multiplied in."""
        m, k = dyadic(value.scale)
        return self.sketch.scaled(self.sketch.times(value.at, m), k)

    def narrow(self, value: Value) -> Value:
        """In one limb. A factor is multiplied in before the rounding, where there is room: it costs nothing there."""
        sketch = self.sketch
        if sketch.one_limb(value.at):
            return value
        if value not in self._narrowed:
            node = sketch.nodes[value.at]
            if node.op in MOVES:  # one rounding serves all views of a tensor
                before = self.narrow(Value(node.inputs[0], value.scale))
                found = Value(sketch.moved(value.at, before.at), before.scale)
            else:
                found = self._narrow(value)
            self._narrowed[value] = found
        return self._narrowed[value]

    def settled(self, value: Value) -> Value:
        """The rounded numbers where there are some already, else the value."""
        if value in self._narrowed:
            return self._narrowed[value]
        node = self.sketch.nodes[value.at]
        if node.op in MOVES:
            before = Value(node.inputs[0], value.scale)
            after = self.settled(before)
            return value if after == before else Value(self.sketch.moved(value.at, after.at), after.scale)
        return value

    def _narrow(self, value: Value) -> Value:
        sketch = self.sketch
        room = min(FACTOR_BITS, REFERENCE_BITS - 1 - sketch.limit[value.at].bit_length())
        if _simple(value.scale) or room < LEAST_FACTOR_BITS:
            return Value(sketch.narrow(value.at), value.scale)
        m, k = dyadic(value.scale, room)
        return Value(sketch.narrow(sketch.scaled(sketch.times(value.at, m), k)))

    def positive_scale(self, value: Value) -> Value:
        """The same numbers with a factor above 0."""
        if value.scale > 0:
            return value
        return Value(self.sketch.times(value.at, -1), -value.scale)

    def constant(self, tensor: Any) -> Value:
        """A constant tensor; one that is no multiple of a small power of two is rounded to one limb."""
        import numpy as np

        values = np.asarray(tensor.detach().cpu().numpy(), np.float64)
        if not np.isfinite(values).all():
            raise UsageError("a constant holds infinity or NaN, which have no place in integers")
        first = float(values.flat[0]) if values.size else 0.0
        if (values == first).all():
            scale = fraction(first) if first else Fraction(1)
            return Value(self.sketch.constant([int(first != 0)], values.shape, bits=0), scale)
        if values.size > MAX_CONSTANT:
            raise UsageError(
                f"a constant of {values.size} numbers is too large for a program: give the features it makes as a field"
            )
        limit = self.sketch.limb_limit
        bits = math.floor(math.log2(limit / np.abs(values).max()))
        while bits > 0 and (np.rint(values * 2.0 ** (bits - 1)) == values * 2.0 ** (bits - 1)).all():
            bits -= 1  # exact with fewer
        scaled = np.rint(values * 2.0**bits).astype(np.int64)
        return Value(self.sketch.constant(scaled.reshape(-1).tolist(), values.shape, bits=bits))

    def add(self, left: Value, right: Value, sign: int = 1) -> Value:
        """left + sign * right."""
        left, right = self._same_scale(left, right)
        two = self.sketch.add if sign == 1 else self.sketch.sub
        try:
            return Value(two(left.at, right.at), left.scale)
        except TooWide:
            wide = left if self.sketch.bits(left.at) >= self.sketch.bits(right.at) else right
            slim = self.narrow(wide)
            if slim == wide:
                raise
            return self.add(slim if wide is left else left, slim if wide is right else right, sign)

    def mul(self, left: Value, right: Value) -> Value:
        """left * right, elementwise."""
        one, two, scale = self._factors(left, right, 1)
        return Value(self.sketch.mul(one, two), scale)

    def matmul(self, left: Value, right: Value) -> Value:
        """left @ right."""
        one, two, scale = self._factors(left, right, self.sketch.shape(left.at)[-1])
        return Value(self.sketch.matmul(one, two), scale)

    def sum(self, value: Value, axes: Sequence[int]) -> Value:
        """Sum over axes, which become 1; of the rounded numbers where there are some."""
        value = self.settled(value)
        return Value(self.sketch.sum(value.at, axes), value.scale)

    def mean(self, value: Value, axes: Sequence[int]) -> Value:
        """Mean over axes, which become 1."""
        count = math.prod(self.sketch.shape(value.at)[axis] for axis in axes)
        return self.scaled(self.sum(value, axes), Fraction(1, count))

    def scaled(self, value: Value, factor: Fraction) -> Value:
        """Times a number."""
        if factor == 0:
            return Value(self.sketch.constant([0], self.sketch.shape(value.at), bits=0))
        return Value(value.at, value.scale * factor)

    def moved(self, value: Value, move: Callable[[int], int]) -> Value:
        """The same numbers in another place."""
        return Value(move(value.at), value.scale)

    def _same_scale(self, left: Value, right: Value) -> tuple[Value, Value]:
        if left.scale == right.scale:
            return left, right
        ratio = right.scale / left.scale
        if abs(ratio) > 1:
            right, left = self._same_scale(right, left)
            return left, right
        m, k = dyadic(ratio)
        return left, Value(self.sketch.scaled(self.sketch.times(right.at, m), k), left.scale)

    def _factors(self, left: Value, right: Value, terms: int) -> tuple[int, int, Fraction]:
        """Nodes that may be multiplied: held, at most one of them wider than a limb, no product beyond 62 bits.

        With them the factor of their product.
        """
        sketch = self.sketch
        left, right = (item if self._held(item) else self.narrow(item) for item in (left, right))
        one, two = left.at, right.at
        wide = 1 << (sketch.limb_bits + SPARE_BITS)
        if min(sketch.limit[one], sketch.limit[two]) > wide:  # both: the smaller tensor costs less to round
            if math.prod(sketch.shape(one)) <= math.prod(sketch.shape(two)):
                one = sketch.narrow(one)
            else:
                two = sketch.narrow(two)
        if sketch.limit[one] * sketch.limit[two] * terms >= 1 << 62:
            one, two = (sketch.narrow(at) if sketch.limit[at] > wide else at for at in (one, two))
        return one, two, left.scale * right.scale

    def _held(self, value: Value) -> bool:
        """Weights and constants as they are; what was computed in about one limb, with a simple factor."""
        sketch = self.sketch
        if sketch.virtual[value.at]:
            return False
        slim = sketch.limit[value.at] <= 1 << (sketch.limb_bits + SPARE_BITS)
        return (slim and _simple(value.scale)) or not sketch.hangs_on[value.at]


def _simple(scale: Fraction) -> bool:
    """Whether a factor may stay beside its tensor until the update."""
    return abs(scale.numerator) < 1 << SIMPLE_BITS and scale.denominator & (scale.denominator - 1) == 0
