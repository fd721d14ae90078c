"""What a node of a program would be in float64 if nothing were rounded: how lowering measures magnitudes.

Spec: `specs/step-proof.md`, section "Choice of bits". Numbers here decide how many fraction bits a rounding keeps,
never what a program computes.

Shows: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pot.zk.semantics.integers import argmax, fold, window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.semantics.program import Node

    Floats = NDArray[np.float64]

__all__ = ["shadow"]


def shadow(node: Node, ins: Sequence[Floats], bits: Sequence[int]) -> Floats:
    """The numbers of one node from those of its inputs, whose fraction bits are `bits`."""
    import numpy as np

    if node.op == "constant":
        values = np.array([int(value) for value in node.values or ()], np.float64) * 2.0**-node.bits
        return (
            np.broadcast_to(values if values.size > 1 else values.reshape(()), node.shape)
            if values.size == 1
            else (values.reshape(node.shape))
        )
    if node.op in ("shift", "round"):
        return ins[0]
    with np.errstate(all="ignore"):
        found = _arithmetic(node, ins, bits)
    return _moved(node, ins[0]) if found is None else found


def _arithmetic(node: Node, ins: Sequence[Floats], bits: Sequence[int]) -> Floats | None:
    import numpy as np

    two: dict[str, Any] = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "divide": np.divide, "matmul": np.matmul
    }  # fmt: skip
    found: Floats | None = None
    if node.op in two:
        found = two[node.op](*ins)
    elif node.op == "times":
        found = ins[0] * float(int(node.factor or "0"))
    elif node.op == "relabel":
        found = ins[0] * 2.0 ** (bits[0] - node.bits)
    elif node.op == "relu":
        found = np.maximum(ins[0], 0)
    elif node.op == "positive":
        found = (ins[0] > 0).astype(np.float64)
    elif node.op == "argmax":
        found = argmax(ins[0]).astype(np.float64)  # type: ignore[arg-type]
    elif node.op == "sqrt":
        found = np.sqrt(ins[0])
    elif node.op == "rsqrt":
        found = 1 / np.sqrt(ins[0])
    elif node.op == "concat":
        found = np.concatenate(ins, axis=(node.axes or [0])[0])
    return found


def _moved(node: Node, values: Floats) -> Floats:
    import numpy as np

    axes = node.axes or []
    if node.op == "sum":
        total: Floats = values.sum(axis=tuple(axes), keepdims=True)
        return total
    if node.op == "permute":
        return values.transpose(axes)
    if node.op == "expand":
        return np.broadcast_to(values, node.shape)
    if node.op == "slice":
        start = node.start or 0
        return np.take(values, np.arange(start, start + node.shape[axes[0]]), axis=axes[0])
    if node.op == "window":
        return window(values, node.kernel or (), node.stride or (), node.padding or ())  # type: ignore[arg-type, return-value]
    if node.op == "fold":
        return fold(values, node.shape, node.kernel or (), node.stride or ())  # type: ignore[arg-type, return-value]
    return values.reshape(node.shape)
