"""The rules of a program's nodes: which fields and inputs an operation has, and what shape and bits follow.

Implements `specs/step-proof.md`, section "Program". Written as one function for each group of operations; a program
whose node breaks a rule cannot be read.

Shows: nothing alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pot.zk.semantics.program import Node, Program

__all__ = ["ATTRIBUTES", "WITNESSED", "check_shape", "is_linear", "is_virtual", "windows"]

ATTRIBUTES: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "state": (0, ("name", "width")), "batch": (0, ("name", "kind", "width")), "constant": (0, ("values",)),
    "add": (2, ()), "sub": (2, ()), "times": (1, ("factor",)), "shift": (1, ("count",)), "relabel": (1, ()),
    "mul": (2, ()), "matmul": (2, ()), "sum": (1, ("axes",)),
    "reshape": (1, ()), "permute": (1, ("axes",)), "expand": (1, ()), "slice": (1, ("axes", "start")),
    "concat": (-1, ("axes",)), "window": (1, ("kernel", "stride", "padding")), "fold": (1, ("kernel", "stride")),
    "relu": (1, ()), "positive": (1, ()), "argmax": (1, ()),
    "round": (1, ("count", "limbs")), "divide": (2, ("count", "limbs")),
    "sqrt": (1, ("limbs",)), "rsqrt": (1, ("count", "limbs")),
}  # fmt: skip
"""For each operation, how many inputs (-1: any number) and which fields of its own."""

WITNESSED: Final = frozenset(("round", "divide", "sqrt", "rsqrt", "argmax"))
"""Operations whose result a circuit takes as a witness, because no sum or product of others gives it."""

_OPTIONAL: Final = (
    "name", "kind", "width", "values", "factor", "count", "limbs", "axes", "start", "kernel", "stride", "padding",
)  # fmt: skip
_LINEAR: Final = frozenset(
    ("add", "sub", "times", "shift", "relabel", "sum", "reshape", "permute", "expand", "slice", "fold")
)


def is_virtual(op: str, inputs: Sequence[bool]) -> bool:
    """Whether a node's elements are sums of products that the circuit only ever meets in random combinations."""
    return op == "matmul" or (op in _LINEAR and any(inputs))


def is_linear(op: str) -> bool:
    """Whether an operation only adds, moves and multiplies by constants."""
    return op in _LINEAR


def windows(size: int, kernel: int, stride: int, padding: int) -> int:
    """How many windows of that kernel fit along one axis."""
    return (size + 2 * padding - kernel) // stride + 1


def check_shape(program: Program, index: int, node: Node, virtual: Sequence[bool]) -> None:
    """Raise `ValueError` where a node breaks a rule."""
    count, attributes = ATTRIBUTES[node.op]
    if (len(node.inputs) != count and count >= 0) or (count < 0 and not node.inputs):
        raise ValueError(f"node {index} ({node.op}) has {len(node.inputs)} inputs")
    for name in _OPTIONAL:
        if (getattr(node, name) is not None) != (name in attributes):
            raise ValueError(f"node {index} ({node.op}): field {name} is {'missing' if name in attributes else 'odd'}")
    if not is_virtual(node.op, [virtual[at] for at in node.inputs]) or node.op == "matmul":
        for at in node.inputs:
            if virtual[at] and node.op != "round":
                raise ValueError(f"node {index} ({node.op}) reads node {at}, products that were not rounded")
    ins = [program.nodes[at] for at in node.inputs]
    expected = _shape(node, ins)
    if expected is None or list(expected) != list(node.shape):
        raise ValueError(f"node {index} ({node.op}): shape {node.shape} does not follow from its inputs")
    bits = _bits(node, ins)
    if bits is not None and bits != node.bits:
        raise ValueError(f"node {index} ({node.op}): {node.bits} bits, {bits} follow from its inputs")


def _shape(node: Node, ins: Sequence[Node]) -> Sequence[int] | None:
    op, first = node.op, list(ins[0].shape) if ins else []
    if op in ("state", "batch"):
        return node.shape
    if op == "constant":
        return node.shape if len(node.values or ()) in (1, node.size) else None
    if op in ("add", "sub", "mul", "divide"):
        return first if ins[0].shape == ins[1].shape else None
    if op == "argmax":
        return first or None
    if op in ("times", "shift", "relabel", "relu", "positive", "round", "sqrt", "rsqrt"):
        return first
    if op == "matmul":
        return _matmul(first, list(ins[1].shape))
    if op == "reshape":
        return node.shape if node.size == ins[0].size else None
    return _moved(node, ins, first)


def _matmul(left: list[int], right: list[int]) -> list[int] | None:
    """(..., M, K) with (..., K, N), the same leading axes."""
    if len(left) < 2 or len(left) != len(right) or left[:-2] != right[:-2] or left[-1] != right[-2]:
        return None
    return [*left[:-1], right[-1]]


def _moved(node: Node, ins: Sequence[Node], first: list[int]) -> Sequence[int] | None:
    op, axes = node.op, list(node.axes or ())
    if op == "sum":
        known = axes == sorted(set(axes)) and all(axis < len(first) for axis in axes)
        return [1 if at in axes else size for at, size in enumerate(first)] if known else None
    if op == "permute":
        return [first[axis] for axis in axes] if sorted(axes) == list(range(len(first))) else None
    if op == "expand":
        fits = len(first) == len(node.shape) and all(a in (1, b) for a, b in zip(first, node.shape, strict=False))
        return node.shape if fits else None
    if op in ("slice", "concat"):
        return _cut_or_joined(node, ins, first, axes)
    return _windowed(node, first)


def _cut_or_joined(node: Node, ins: Sequence[Node], first: list[int], axes: list[int]) -> Sequence[int] | None:
    if len(axes) != 1 or axes[0] >= len(first):
        return None
    axis = axes[0]
    rest = [first[:axis] + first[axis + 1 :]]
    rest += [list(node.shape[:axis]) + list(node.shape[axis + 1 :])]
    rest += [list(item.shape[:axis]) + list(item.shape[axis + 1 :]) for item in ins]
    if any(one != rest[0] for one in rest) or any(len(item.shape) != len(first) for item in ins):
        return None
    if node.op == "slice":
        return node.shape if (node.start or 0) + node.shape[axis] <= first[axis] else None
    return node.shape if sum(item.shape[axis] for item in ins) == node.shape[axis] else None


def _windowed(node: Node, first: list[int]) -> Sequence[int] | None:
    """window: (B, C, H, W) to (B, OH, OW, C * kh * kw). fold: back, elements that overlap added, without padding."""
    (kh, kw), (sh, sw) = node.kernel or (0, 0), node.stride or (0, 0)
    ph, pw = node.padding or (0, 0)
    image = first if node.op == "window" else list(node.shape)
    if len(image) != 4 or min(kh, kw, sh, sw) < 1 or image[2] + 2 * ph < kh or image[3] + 2 * pw < kw:
        return None
    cut = [image[0], windows(image[2], kh, sh, ph), windows(image[3], kw, sw, pw), image[1] * kh * kw]
    if node.op == "window":
        return cut
    return node.shape if first == cut else None


def _bits(node: Node, ins: Sequence[Node]) -> int | None:
    """The bits that follow from the inputs'; None where they are free (inputs, constants, relabel)."""
    op = node.op
    if op in ("state", "batch", "constant", "relabel"):
        return 0 if node.kind == "marks" else None
    if op in ("positive", "argmax"):
        return 0
    first = ins[0].bits
    if op in ("add", "sub", "concat"):
        return first if all(item.bits == first for item in ins) else 999
    if op in ("mul", "matmul"):
        return first + ins[1].bits
    if op == "shift":
        return first + (node.count or 0)
    if op == "round":
        return first - (node.count or 0)
    if op == "divide":
        return first - ins[1].bits + (node.count or 0)
    if op == "sqrt":
        return first // 2 if first % 2 == 0 else 999
    if op == "rsqrt":
        return (node.count or 0) - first // 2 if first % 2 == 0 else 999
    return first
