"""A traced float step as ONNX bytes, operation by operation, by a white list of what ezkl computes.

Implements `specs/step-proof.md`, section "Family auto". Division becomes a product with a reciprocal, the gradient of
relu a product with a sign, the exponential of a log-softmax the softmax itself. `Pow` is never written: ezkl computes
something else for negative exponents.

Shows: nothing alone.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pot.errors import Malformed, MissingExtra, UsageError
from pot.zk.trace import place_of

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["WRITTEN", "onnx_of", "operations_of"]

OPSET: Final = 17
IR_VERSION: Final = 8
END: Final = (1 << 31) - 1  # of a slice without an end
HIDDEN: Final = -32.0  # in the place of -inf, which no grid holds: softmax makes 1e-14 of it
Tensors = Sequence[tuple[str, list[int]]]
ONES: Final = {  # operations of one input
    "relu": "Relu", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sigmoid": "Sigmoid", "tanh": "Tanh", "erf": "Erf",
    "neg": "Neg", "reciprocal": "Reciprocal", "abs": "Abs", "sign": "Sign", "sgn": "Sign",
}  # fmt: skip
TWOS: Final = {"add": "Add", "sub": "Sub", "mul": "Mul", "mm": "MatMul", "bmm": "MatMul"}
WRITTEN: Final = frozenset((
    *ONES.values(), *TWOS.values(), "Softmax", "ReduceSum", "Reshape", "Slice", "Transpose", "Expand", "Concat",
))  # fmt: skip
"""Every kind of operation that is written here."""
SAME: Final = ("clone", "detach", "alias", "_to_copy", "lift_fresh_copy")
SHAPED: Final = ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze")


def onnx_of(
    graph: GraphModule, state: Tensors, batch: Tensors, ranges: Mapping[str, tuple[float, float]], blinds: int
) -> bytes:
    """The model of a graph whose inputs are the tensors of `state` and `batch`, and its outputs those of `state`.

    `before` and `batch` end in as many unused elements as there are blinds; a third input, `blinds`, ends `after`.
    Batch tensors are cut to their `ranges`: the field elements behind a point might be anything.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise MissingExtra("zk", "writing the ONNX of a step") from None
    return _Writer(graph).model({"before": state, "batch": batch}, ranges, blinds)


def operations_of(data: bytes) -> list[str]:
    """The kind of every operation of a graph. Raises `MissingExtra`, `Malformed`."""
    try:
        import onnx
    except ImportError:
        raise MissingExtra("zk", "reading the ONNX of a step") from None
    try:
        return [str(node.op_type) for node in onnx.load_from_string(data).graph.node]
    except Exception as error:  # protobuf's own error classes differ between its implementations
        raise Malformed(f"step.onnx: is no ONNX model: {str(error)[:200]}") from None


class _Writer:
    """Collects operations; a tensor that depends on no input stays a PyTorch tensor until it is needed."""

    def __init__(self, graph: GraphModule) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.known: dict[str, Any] = {}

    def model(self, inputs: dict[str, Tensors], ranges: Mapping[str, tuple[float, float]], blinds: int) -> bytes:
        """The bytes of the model."""
        import onnx
        from onnx import TensorProto, helper

        nodes = list(self.graph.graph.nodes)
        places = iter([node for node in nodes if node.op == "placeholder"])
        for source, tensors in inputs.items():
            start = 0
            for name, shape in tensors:
                end = start + math.prod(shape)
                part = self._op("Slice", source, self._ints(start), self._ints(end), self._ints(0))
                part = self._cut_to(part, *ranges[name]) if source == "batch" else part
                self.known[next(places).name] = self._reshaped(part, shape)
                start = end
        for node in nodes:
            if node.op not in ("placeholder", "output"):
                self.known[node.name] = self._result(node)
        after = [self._reshaped(self._tensor(self.known[one.name]), [-1]) for one in nodes[-1].args[0]]
        self.nodes.append(helper.make_node("Concat", [*after, "blinds"], ["after"], axis=0))
        sizes = {name: sum(math.prod(shape) for _, shape in tensors) + blinds for name, tensors in inputs.items()}
        sizes["blinds"] = blinds
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name, size in sizes.items()]
        out = [helper.make_tensor_value_info("after", TensorProto.FLOAT, [sizes["before"]])]
        kept, constants = self._needed()
        body = helper.make_graph(kept, "step", made, out, constants)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="pot")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _needed(self) -> tuple[list[Any], list[Any]]:
        """Operations and constants that the output depends on."""
        wanted, kept = {"after"}, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        return kept[::-1], [one for one in self.constants if one.name in wanted]

    def _result(self, node: Node) -> Any:
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.graph).detach()
        args, kwargs = self._resolved(list(node.args)), self._resolved(list(node.kwargs.values()))
        if node.target is operator.getitem:
            return args[0][args[1]]
        name = str(node.target).removeprefix("aten.").split(".")[0]
        place = f"{place_of(node)}: operation {name}"
        _refuse_random(node, place)
        if not any(isinstance(one, str) and one.startswith("t") for one in _flat([args, kwargs])):
            return node.target(*args, **dict(zip(node.kwargs, kwargs, strict=True)))  # type: ignore[operator]
        for rules in (self._plain, self._composed, self._placed):
            if (found := rules(name, args, node)) is not None:
                return found
        raise UsageError(f"{place} cannot be written as ONNX that ezkl computes: use another")

    def _plain(self, name: str, args: list[Any], node: Node) -> Any:
        if name in SAME:
            return args[0]
        if name in SHAPED:
            return self._reshaped(args[0], _shape(node))
        if name == "exp" and str(node.all_input_nodes[0].target).startswith("aten._log_softmax"):
            source = node.all_input_nodes[0]
            return self._op("Softmax", self.known[source.all_input_nodes[0].name], axis=source.args[1])
        if name in ONES:
            return self._op(ONES[name], args[0])
        if name in TWOS and node.kwargs.get("alpha", 1) == 1:
            return self._op(TWOS[name], *args[:2])
        return None

    def _composed(self, name: str, args: list[Any], node: Node) -> Any:
        if name == "addmm":
            return self._op("Add", self._op("MatMul", args[1], args[2]), args[0])
        if name == "div" and len(args) == 2:
            other = self._op("Reciprocal", args[1]) if isinstance(args[1], str) else 1 / args[1]
            return self._op("Mul", args[0], other)
        if name == "rsqrt":
            return self._op("Reciprocal", self._op("Sqrt", args[0]))
        if name == "pow" and args[1] in (0.5, 1, 2, 3):
            return self._op("Sqrt", args[0]) if args[1] == 0.5 else self._product([args[0]] * int(args[1]))
        if name == "threshold_backward" and args[2] == 0:
            return self._op("Mul", self._op("Sign", args[1]), args[0])  # the second is a relu's result
        if name == "gelu" and node.kwargs.get("approximate", "none") == "none":
            bent = self._op("Erf", self._op("Mul", args[0], 0.5**0.5))
            return self._op("Mul", self._op("Mul", args[0], 0.5), self._op("Add", bent, 1.0))
        if name in ("_softmax", "_safe_softmax", "_log_softmax"):
            found = self._op("Softmax", args[0], axis=args[1])
            return self._op("Log", found) if name == "_log_softmax" else found
        if name == "native_layer_norm" and len(args[1]) == 1:
            return self._normalised(*args)
        return None

    def _normalised(self, item: Any, shape: list[int], weight: Any, bias: Any, epsilon: float) -> list[Any]:
        share = 1 / shape[0]
        mean = self._op("Mul", self._summed(item, [-1]), share)
        centered = self._op("Sub", item, mean)
        spread = self._op("Mul", self._summed(self._op("Mul", centered, centered), [-1]), share)
        inverse = self._op("Reciprocal", self._op("Sqrt", self._op("Add", spread, epsilon)))
        found = self._op("Mul", centered, inverse)
        found = found if weight is None else self._op("Mul", found, weight)
        return [found if bias is None else self._op("Add", found, bias), mean, inverse]

    def _placed(self, name: str, args: list[Any], node: Node) -> Any:
        item, shape = args[0], _shape(node)
        if name == "permute":
            return self._op("Transpose", item, perm=[dim % len(shape) for dim in args[1]])
        if name == "expand":
            return self._op("Expand", item, self._ints(*shape))
        if name in ("sum", "mean"):
            whole = _shape(node.all_input_nodes[0])
            axes = args[1] if len(args) > 1 and args[1] else list(range(len(whole)))
            found = self._summed(item, axes)
            if name == "mean":
                found = self._op("Mul", found, 1 / math.prod(whole[axis] for axis in axes))
            return self._reshaped(found, shape)
        if name == "cat":
            return self._op("Concat", *item, axis=args[1] if len(args) > 1 else 0)
        if name == "slice" and (len(args) < 5 or args[4] == 1):
            dim, start, stop = (args[at] if len(args) > at else 0 for at in (1, 2, 3))
            return self._op("Slice", item, self._ints(start or 0), self._ints(min(stop or END, END)), self._ints(dim))
        if name == "select":
            return self._reshaped(self._cut(item, args[1], args[2]), shape)
        if name == "unbind":
            axis = args[1] if len(args) > 1 else 0
            return [self._reshaped(self._cut(item, axis, at), shape) for at in range(len(node.meta["val"]))]
        return None

    def _cut_to(self, item: Any, low: float, high: float) -> str:
        """The nearest number from `low` to `high`; ezkl's relu holds for small integers only, and so checks for one."""
        above = self._op("Relu", item if low == 0 else self._op("Sub", item, low))
        beyond = self._op("Relu", self._op("Sub", item, high))
        found = self._op("Sub", above, beyond)
        return found if low == 0 else self._op("Add", found, low)

    def _cut(self, item: Any, axis: int, at: int) -> str:
        return self._op("Slice", item, self._ints(at), self._ints(at + 1 or END), self._ints(axis))

    def _product(self, items: list[Any]) -> Any:
        found = items[0]
        for item in items[1:]:
            found = self._op("Mul", found, item)
        return found

    def _summed(self, item: Any, axes: Sequence[int]) -> str:
        return self._op("ReduceSum", item, self._ints(*axes), keepdims=1)

    def _reshaped(self, item: Any, shape: Sequence[int]) -> str:
        return self._op("Reshape", item, self._ints(*shape))

    def _op(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        from onnx import helper

        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self._tensor(item) for item in inputs], [name], **attributes))
        return name

    def _ints(self, *values: int) -> str:
        import numpy as np

        return self._initializer(np.array(values, np.int64))

    def _tensor(self, item: Any) -> str:
        """The name of a tensor; of a constant, once it is entered."""
        import numpy as np

        if isinstance(item, str):
            return item
        values = np.asarray(item.numpy() if hasattr(item, "numpy") else item, np.float32)
        return self._initializer(np.where(values == -math.inf, np.float32(HIDDEN), values))

    def _initializer(self, values: Any) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def _resolved(self, item: Any) -> Any:
        if isinstance(item, (list, tuple)):
            return [self._resolved(one) for one in item]
        return self.known[item.name] if hasattr(item, "all_input_nodes") else item


def _shape(node: Node) -> list[int]:
    """Of the result, or of the first of several."""
    value = node.meta["val"]
    return list((value[0] if isinstance(value, (list, tuple)) else value).shape)


def _flat(item: Any) -> list[Any]:
    return [leaf for one in item for leaf in _flat(one)] if isinstance(item, list) else [item]


def _refuse_random(node: Node, place: str) -> None:
    import torch

    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise UsageError(f"{place}: random numbers have no place in a step: set dropout to 0, or call eval()")
