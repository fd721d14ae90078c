"""What a graph of family auto may be, whoever wrote it: known operations, and blinds that no step reads.

Implements `specs/step-proof.md`, section "Family auto". A circuit follows from its graph byte for byte, but ezkl
compiles some operations into others, and a step that read its blinds could be led anywhere by them: nobody else knows
or chose them.

Shows: the next state is made of state and batch, by operations that `pot.zk.auto_onnx` writes. Does not show: that they
are the model's; whoever pins a circuit traces the model again and compares `program_sha256`, which fixes the graph too.
"""

from __future__ import annotations

from typing import Any

from pot.errors import Malformed, MissingExtra, Refused
from pot.zk.auto_onnx import OPSET, WRITTEN

__all__ = ["check_graph"]


def check_graph(data: bytes, blinds: int) -> None:
    """Refuse a graph of other operations, or one whose step reads a blind. Raises `Refused`, `Malformed`."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingExtra("zk", "reading the ONNX of a step") from None
    try:
        model = onnx.load_from_string(data)
        graph = model.graph
        sizes = {one.name: one.type.tensor_type.shape.dim[0].dim_value for one in graph.input}
        constants = {one.name: numpy_helper.to_array(one).reshape(-1).tolist() for one in graph.initializer}
    except Exception as error:  # protobuf's own error classes differ between its implementations
        raise Malformed(f"step.onnx: is no graph of a step: {str(error)[:200]}") from None
    kinds = {f"{node.domain}:{node.op_type}" if node.domain else str(node.op_type) for node in graph.node}
    if strange := sorted(kinds - WRITTEN):
        raise Refused(f"the graph holds {', '.join(strange)[:100]}, which ezkl may compute as something else")
    made = [name for node in graph.node for name in node.output]
    if [(one.domain, one.version) for one in model.opset_import] != [("", OPSET)] or model.functions:
        raise Refused(f"the graph is of other operations than ONNX's of version {OPSET}, or defines its own")
    order = [one.name for one in graph.input], [one.name for one in graph.output]
    known = order == (["before", "batch", "blinds"], ["after"])  # their places are those of the circuit's points
    if not known or sizes.keys() & {*constants, *made} or len(made) != len({*made}):
        raise Refused("the graph is none of a step, which makes after of before, batch and blinds")
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in sizes and not _well_read(node, at, sizes[name] - blinds, constants):
                raise Refused(f"the graph's step reads the blinds of {name}: any next state would be right")


def _well_read(node: Any, at: int, size: int, constants: dict[str, list[int]]) -> bool:
    """Whether an operation reads an input as a step does: a piece before its blinds, or its blinds into `after`."""
    if node.input[at] == "blinds":
        return node.op_type == "Concat" and list(node.output) == ["after"] and at == len(node.input) - 1
    if node.op_type != "Slice" or node.attribute or at != 0 or len(node.input) != 4:
        return False
    start, end, axis = (constants.get(name) for name in node.input[1:])
    return bool(start and end and axis == [0] and len(start) == len(end) == 1 and 0 <= start[0] < end[0] <= size)
