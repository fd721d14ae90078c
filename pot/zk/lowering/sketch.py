"""`Sketch`: a `Builder` that knows of every node its bound, its size in floats, and which rounding its bits hang on.

Implements `specs/step-proof.md`, section "Choice of bits". Every rounding keeps as many fraction bits as let the
largest magnitude that was measured, times 2^margin, fit its limbs; a cap lowers that where an update has to fit the
weights' grid without rounding.

Shows: nothing; `Program` checks what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pot.errors import UsageError
from pot.zk.lowering.shadow import shadow
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.program import REFERENCE_BITS, Program
from pot.zk.semantics.shapes import is_virtual

if TYPE_CHECKING:
    from pot.zk.lowering.shadow import Floats

__all__ = ["MARGIN", "MOVES", "Sketch", "TooWide"]

MARGIN: Final = 3
"""Bits between the largest magnitude measured and the end of a limb."""

MOVES: Final = frozenset(("permute", "reshape", "expand", "slice"))
Samples = Sequence[Mapping[str, "Floats"]]


class TooWide(UsageError):
    """A value could leave 64-bit integers."""


class Sketch(Builder):
    """A builder that measures. `samples`: for each of several steps, the numbers of every state and batch tensor."""

    def __init__(self, *, limb_bits: int, samples: Samples, caps: Mapping[int, int], margin: int = MARGIN) -> None:
        super().__init__(limb_bits=limb_bits)
        self.samples, self.caps, self.margin = samples, caps, margin
        self.limit: list[int] = []
        self.virtual: list[bool] = []
        self.numbers: list[list[Floats]] = []
        self.hangs_on: list[frozenset[int]] = []
        """For each node, the roundings that its fraction bits come from."""
        self.roundings: list[int] = []
        """Nodes of the roundings whose bits were chosen, in order; caps go by the position here."""
        self._rounded: dict[tuple[int, int], int] = {}
        # shares the list of nodes: bounds and quotient limits are the program's own
        self._bounds = Program.model_construct(
            version="pot/step-program/v1",
            label="",
            batch=1,
            limb_bits=limb_bits,
            max_steps=1,
            nodes=self.nodes,
            next=[],
        )

    @property
    def limb_limit(self) -> int:
        """Largest magnitude of one limb."""
        return self._bounds.limb_limit

    def quotients(self, limbs: int) -> int:
        """Largest magnitude of a result of so many limbs."""
        return self._bounds.quotient_limit(limbs)

    def peak(self, at: int) -> float:
        """The largest magnitude of a node's numbers over all samples."""
        return max((float(abs(values).max()) for values in self.numbers[at] if values.size), default=0.0)

    def significant(self, rounding: int) -> float:
        """How many bits of a rounding's largest measured value are above its grid."""
        at = self.roundings[rounding]
        return math.log2(max(self.peak(at), 2.0**-60)) + self.bits(at)

    def one_limb(self, at: int) -> bool:
        """Whether a node is known to hold one limb and to be held at all."""
        return not self.virtual[at] and self.limit[at] <= self.limb_limit

    def narrow(self, at: int, *, limbs: int = 1) -> int:
        """The node itself where it has one limb, else its rounding to as many bits as fit so many limbs."""
        if self.one_limb(at):
            return at
        if (at, limbs) not in self._rounded:
            if self.nodes[at].op in MOVES:  # one rounding serves all views of a tensor
                found = self.moved(at, self.narrow(self.nodes[at].inputs[0], limbs=limbs))
            else:
                bits = self.best_bits(self.peak(at), limbs=limbs)
                found = self.chosen(at, min(bits, self.bits(at)), limbs=limbs)
            self._rounded[at, limbs] = found
        return self._rounded[at, limbs]

    def moved(self, at: int, source: int) -> int:
        """What node `at` does with the place of elements, done to another node."""
        node = self.nodes[at]
        if node.op == "permute":
            return self.permute(source, node.axes or [])
        if node.op == "slice":
            axis, start = (node.axes or [0])[0], node.start or 0
            return self.slice(source, axis, start, start + node.shape[axis])
        return self.reshape(source, node.shape) if node.op == "reshape" else self.expand(source, node.shape)

    def chosen(self, at: int, bits: int, *, limbs: int = 1) -> int:
        """A rounding to `bits`, or to fewer where a cap says so; always a node of its own."""
        bits = self._capped(bits)
        return self._chosen(self.round(self.shift(at, max(0, bits + 1 - self.bits(at))), bits, limbs=limbs))

    def ratio(self, left: int, right: int, bits: int) -> int:
        """left / right with `bits` fraction bits, or fewer where a cap says so, in one limb."""
        count = self._capped(bits) - self.bits(left) + self.bits(right)
        right = self.shift(right, max(0, 1 - count))  # the divisor's bits count down, the dividend's up
        return self._chosen(self.divide(left, right, count=max(1, count), limbs=1))

    def inverse_root(self, at: int) -> int:
        """1 / sqrt(at) in one limb, with the bits that its largest value leaves."""
        at = self.shift(at, self.bits(at) % 2)
        least = min(float(numbers.min()) for numbers in self.numbers[at])
        bits = self._capped(self.best_bits(max(least, 2.0**-40) ** -0.5))
        return self._chosen(self.rsqrt(at, count=bits + self.bits(at) // 2, limbs=1))

    def _capped(self, bits: int) -> int:
        return min(bits, self.caps.get(len(self.roundings), bits))

    def _chosen(self, at: int) -> int:
        self.hangs_on[at] = frozenset([len(self.roundings)])
        self.roundings.append(at)
        return at

    def best_bits(self, peak: float, *, limbs: int = 1) -> int:
        """The most fraction bits with which a number of that magnitude fits, the margin included."""
        room = math.log2(self._bounds.quotient_limit(limbs)) - self.margin - math.log2(max(peak, 2.0**-40))
        return math.floor(room)

    def _add(self, op: str, inputs: list[int], shape: Sequence[int], bits: int, **fields: Any) -> int:
        count = len(self.nodes)
        at = super()._add(op, inputs, shape, bits, **fields)
        if at == count:
            self._measure(at)
        return at

    def _measure(self, at: int) -> None:
        node = self.nodes[at]
        state = 2 << (node.width or 0)
        limit = state if node.op == "state" else self._bounds._limit(node, self.limit, self.limb_limit)
        if limit >= 1 << REFERENCE_BITS:
            self.nodes.pop()
            self._known = {key: value for key, value in self._known.items() if value != at}
            raise TooWide(f"a value could have {limit.bit_length()} bits, more than 64-bit integers hold")
        self.limit.append(limit)
        self.virtual.append(is_virtual(node.op, [self.virtual[one] for one in node.inputs]))
        chain = [] if node.op in ("positive", "argmax") else [self.hangs_on[one] for one in node.inputs]
        self.hangs_on.append(frozenset[int]().union(*chain))
        if node.op in ("state", "batch"):
            self.numbers.append([sample[str(node.name)] for sample in self.samples])
            return
        bits = [self.nodes[one].bits for one in node.inputs]
        rows = [[self.numbers[one][sample] for one in node.inputs] for sample in range(len(self.samples))]
        self.numbers.append([shadow(node, row, bits) for row in rows])
