"""`Program`: one training step as integer operations, each with a single right result.

Implements `specs/step-proof.md`, section "Program". A program is data: a list of nodes, each an operation on tensors
of integers that earlier nodes made, and for every tensor of the state the node that is its next value. `pot.zk.lower`
makes one from a PyTorch step, `pot.zk.semantics.exact` runs it, `pot.zk.circuit` turns it into a circuit. An integer v
of a node with `bits` b stands for the number v / 2^b; `bits` say what integers mean and never change what they are.

Shows: what a step is. Does not show: that anybody executed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from pot.canonical import Document
from pot.zk.semantics.shapes import check_shape, is_linear, is_virtual

__all__ = ["LIMB_MARGIN", "MAX_ELEMENTS", "MAX_NODES", "OPTIMIZER", "Next", "Node", "Op", "Program", "is_remembered"]

MAX_NODES: Final = 4096
MAX_ELEMENTS: Final = 1 << 26  # of one tensor
MAX_DIMS: Final = 6
LIMB_MARGIN: Final = 16  # ends of the table that a value may not touch: ezkl keeps a few rows of it for itself
REFERENCE_BITS: Final = 62  # the reference computes in int64
MAX_CHAIN: Final = 100  # linear operations one behind the other, without a rounding
_ENDLESS: Final = 1 << 512  # bounds beyond it are not told apart: a hostile program squares them without end

Op = Literal[
    "state", "batch", "constant",
    "add", "sub", "times", "shift", "relabel", "mul", "matmul", "sum",
    "reshape", "permute", "expand", "slice", "concat", "window", "fold",
    "relu", "positive", "argmax", "round", "divide", "sqrt", "rsqrt",
]  # fmt: skip
Size = Annotated[int, Field(ge=1, le=MAX_ELEMENTS)]
Place = Annotated[int, Field(ge=0, le=MAX_ELEMENTS)]
Name = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_.\-]{1,200}\z")]
Integer = Annotated[str, StringConstraints(pattern=r"\A(0|-?[1-9][0-9]{0,18})\z")]


OPTIMIZER: Final = "optimizer."  # what an optimizer keeps beside the slots of its weights: powers of its betas


def is_remembered(name: str, states: Collection[str]) -> bool:
    """Whether a state tensor is the optimizer's: named after another one, as `0.weight.exp_avg`, or `optimizer.` so."""
    return name.startswith(OPTIMIZER) or name.rpartition(".")[0] in states


class Node(Document):
    """One tensor of integers. Which optional fields an operation has, and what it computes: `specs/step-proof.md`."""

    op: Op
    inputs: Annotated[list[Annotated[int, Field(ge=0, lt=MAX_NODES)]], Field(max_length=64)]
    shape: Annotated[list[Size], Field(max_length=MAX_DIMS)]
    bits: Annotated[int, Field(ge=-64, le=128)]
    name: Name | None = None
    """state, batch: the tensor's name, or the record's field."""
    kind: Literal["unsigned", "signed", "marks"] | None = None
    """batch: what its integers are; `marks` are 0 or 1, exactly one 1 along the last axis."""
    width: Annotated[int, Field(ge=1, le=62)] | None = None
    """state: |v| < 2^width at the start of a run; batch: 0 <= v < 2^width, or |v| < 2^width where signed."""
    values: Annotated[list[Integer], Field(max_length=1 << 16)] | None = None
    """constant: one integer for all elements, or all of them."""
    factor: Integer | None = None
    """times: the integer."""
    count: Annotated[int, Field(ge=1, le=62)] | None = None
    """shift: times 2^count. round, divide, rsqrt: bits that are dropped or gained."""
    limbs: Annotated[int, Field(ge=1, le=3)] | None = None
    """round, divide, sqrt, rsqrt: how many limbs the result may take; see `quotient_limit`."""
    axes: Annotated[list[Annotated[int, Field(ge=0, lt=MAX_DIMS)]], Field(max_length=MAX_DIMS)] | None = None
    """sum: the axes that become 1. permute: the order of the input's axes. slice, concat: one axis."""
    start: Place | None = None
    """slice: first index."""
    kernel: Annotated[list[Size], Field(min_length=2, max_length=2)] | None = None
    stride: Annotated[list[Size], Field(min_length=2, max_length=2)] | None = None
    padding: Annotated[list[Place], Field(min_length=2, max_length=2)] | None = None
    """window, fold: height and width, of zeros on each side; fold has no padding."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Next(Document):
    """The next value of one tensor of the state."""

    state: Annotated[int, Field(ge=0, lt=MAX_NODES)]
    value: Annotated[int, Field(ge=0, lt=MAX_NODES)]
    slack: Annotated[int, Field(ge=0, le=40)] = 0
    """0: the next value is `value`. n: it lies within 2^n - 1 of it (a step that was taken in floats)."""


class Program(Document):
    """One step. `label` is for people; everything else decides what a step is."""

    version: Literal["pot/step-program/v1"]
    label: Annotated[str, StringConstraints(max_length=200)]
    batch: Annotated[int, Field(ge=1, le=4096)]
    """Records of a step: the first axis of every batch tensor."""
    limb_bits: Annotated[int, Field(ge=8, le=18)]
    max_steps: Annotated[int, Field(ge=1, le=1 << 20)]
    nodes: Annotated[list[Node], Field(min_length=1, max_length=MAX_NODES)]
    next: Annotated[list[Next], Field(min_length=1, max_length=1024)]

    @property
    def limb_limit(self) -> int:
        """A value v with |v| <= limb_limit is one limb with a sign."""
        return (1 << self.limb_bits) - LIMB_MARGIN

    def quotient_limit(self, limbs: int) -> int:
        """The largest |q| that a result of so many limbs may have."""
        return self.limb_limit if limbs == 1 else (1 << (limbs * self.limb_bits - 1)) - 1

    @property
    def states(self) -> list[int]:
        """Indices of the state's nodes, in the order in which a state is packed."""
        return [item.state for item in self.next]

    @property
    def batches(self) -> list[int]:
        """Indices of the batch's nodes, in the order in which a batch is packed."""
        return [index for index, node in enumerate(self.nodes) if node.op == "batch"]

    @property
    def parameters(self) -> int:
        """Integers in a state."""
        return sum(self.nodes[index].size for index in self.states)

    def virtual(self) -> list[bool]:
        """For each node, whether it is a sum of products of whole tensors, which the circuit never holds."""
        found: list[bool] = []
        for node in self.nodes:
            found.append(is_virtual(node.op, [found[index] for index in node.inputs]))
        return found

    def limits(self, *, state: Callable[[int], int], limb: int) -> list[int]:
        """A bound on the magnitude of every node, from a bound on each state tensor and on a value of one limb.

        `state(index)`: the bound of that state node. `limb`: what a result of one limb may reach.
        """
        found: list[int] = []
        for index, node in enumerate(self.nodes):
            found.append(state(index) if node.op == "state" else min(self._limit(node, found, limb), _ENDLESS))
        return found

    def reference_limits(self) -> list[int]:
        """The bounds within which the reference stays: it refuses a state beyond twice the start's range."""
        return self.limits(state=lambda index: 2 << (self.nodes[index].width or 0), limb=self.limb_limit)

    def _limit(self, node: Node, found: Sequence[int], limb: int) -> int:
        ins = [found[index] for index in node.inputs]
        op = node.op
        if op == "batch":
            return 1 if node.kind == "marks" else 1 << (node.width or 0)
        if op == "constant":
            return max(abs(int(value)) for value in node.values or ["0"])
        if op in ("add", "sub"):
            return ins[0] + ins[1]
        if op == "times":
            return ins[0] * abs(int(node.factor or "0"))
        if op == "shift":
            return ins[0] << (node.count or 0)
        if op == "mul":
            return ins[0] * ins[1]
        if op == "matmul":
            return ins[0] * ins[1] * self.nodes[node.inputs[0]].shape[-1]
        if op == "sum":
            return ins[0] * math.prod(self.nodes[node.inputs[0]].shape[axis] for axis in node.axes or ())
        if op == "fold":
            return ins[0] * math.prod(node.kernel or ())
        if op in ("positive", "argmax"):
            return 1
        if op in ("sqrt", "rsqrt"):
            return (1 << (node.limbs or 1) * self.limb_bits) - 1
        if op in ("round", "divide"):
            return limb if node.limbs == 1 else self.quotient_limit(node.limbs or 1)
        return max(ins)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if any(max(item.state, item.value) >= len(self.nodes) for item in self.next):
            raise ValueError("a next value names a node that there is not")
        for index, node in enumerate(self.nodes):
            if any(before >= index for before in node.inputs):
                raise ValueError(f"node {index} reads a later node")
            if node.size > MAX_ELEMENTS:
                raise ValueError(f"node {index} has more than {MAX_ELEMENTS} elements")
        virtual = self.virtual()
        for index, node in enumerate(self.nodes):
            check_shape(self, index, node, virtual)
        self._check_chains()
        self._check_ends()
        self._check_limits()
        return self

    def _check_chains(self) -> None:
        depth: list[int] = []
        for index, node in enumerate(self.nodes):
            linear = is_linear(node.op)
            depth.append(1 + max((depth[at] for at in node.inputs), default=0) if linear else 0)
            if depth[index] > MAX_CHAIN:
                raise ValueError(f"node {index}: more than {MAX_CHAIN} linear operations in a row; round between them")

    def _check_ends(self) -> None:
        if not self.batches:
            raise ValueError("a step reads a batch")
        for index in self.batches:
            if not self.nodes[index].shape or self.nodes[index].shape[0] != self.batch:
                raise ValueError(f"node {index}: the first axis of a batch tensor counts its {self.batch} records")
            if self.nodes[index].kind == "marks" and len(self.nodes[index].shape) < 2:
                raise ValueError(f"node {index}: marks stand along an axis of their own")
        states = [index for index, node in enumerate(self.nodes) if node.op == "state"]
        if self.parameters > MAX_ELEMENTS or sum(self.nodes[index].size for index in self.batches) > MAX_ELEMENTS:
            raise ValueError(f"state or batch has more than {MAX_ELEMENTS} elements")
        if sorted(self.states) != states or len({self.nodes[index].name for index in states}) != len(states):
            raise ValueError("every tensor of the state has one name and one next value")
        if len({self.nodes[index].name for index in self.batches}) != len(self.batches):
            raise ValueError("two tensors of the batch have one name")
        for item in self.next:
            state, value = self.nodes[item.state], self.nodes[item.value]
            if state.shape != value.shape or state.bits != value.bits:
                raise ValueError(f"{state.name}: its next value has another shape or other bits")

    def _check_limits(self) -> None:
        """The reference stays inside int64, and what must be one limb is one."""
        limits = self.reference_limits()
        for index, (node, limit) in enumerate(zip(self.nodes, limits, strict=True)):
            if limit >= 1 << REFERENCE_BITS:
                raise ValueError(f"node {index} ({node.op}) could leave 64-bit integers")
            if node.op in ("relu", "positive", "argmax") and limits[node.inputs[0]] > self.limb_limit:
                raise ValueError(f"node {index} ({node.op}) reads values of more than one limb")
            if node.op == "batch" and node.kind != "marks" and (node.width or 99) >= self.limb_bits:
                raise ValueError(f"node {index}: width must be below limb_bits")
