"""Trace a PyTorch step: the gradient of a loss of a module, as one graph of ATen operations.

Implements `specs/step-proof.md`, section "Lowering". `make_fx` runs forward and backward once, on one batch of
examples; what came out is a straight line without Python in it. Every operation keeps the line of the model that asked
for it, so that a refusal can name it.

Shows: which operations a step consists of. Does not show: that another batch takes the same path; a model whose
control flow depends on values is refused.
"""

from __future__ import annotations

import linecache
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, get_args

from pot.errors import Malformed, MissingExtra, UsageError
from pot.zk.semantics.batches import field_integers

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

__all__ = [
    "Field", "Loss", "Traced", "fold_constants", "place_of", "step_module", "torch_batch", "trace", "watched",
]  # fmt: skip

Loss = Callable[[Any, dict[str, Any]], Any]
"""loss(module, batch): a scalar tensor. `batch` holds a tensor for every field."""

Kind = Literal["unsigned", "signed", "marks"]

PLACE: Final = "stack_trace"  # fx keeps this entry of its meta data through every pass


@dataclass(frozen=True)
class Field:
    """One field of the records, as a step reads it.

    `unsigned`, `signed`: integers of `width` bits over 2^bits; the model sees floats of `shape`. `marks`: integers
    0 .. shape[-1] - 1; the model sees them as int64 of shape[:-1], as labels or token ids. Raises `UsageError`.
    """

    kind: Kind
    shape: tuple[int, ...]
    bits: int = 0
    width: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"Field {self.kind!r:.60}: give one of {', '.join(get_args(Kind))}; records hold integers")
        if any(length < 1 for length in self.shape) or (self.kind == "marks" and not self.shape):
            raise UsageError(
                f"Field {self.kind} of shape {self.shape}: give lengths from 1 on; marks end in their number"
            )
        if self.width < 1:
            raise UsageError(
                f"Field {self.kind} of width {self.width}: give the bits of its largest integer, 1 or more"
            )


@dataclass(frozen=True)
class Traced:
    """The graph of a step's gradients."""

    graph: GraphModule
    inputs: list[tuple[str, str]]
    """For each input of the graph: ("state" or "batch", name)."""
    outputs: list[str]
    """For each output, the parameter whose gradient it is."""
    shapes: dict[str, Any] = field(default_factory=dict)


def trace(
    module: torch.nn.Module, loss: Loss, fields: Mapping[str, Field], batch: Mapping[str, torch.Tensor],
    trainable: Sequence[str],
) -> Traced:  # fmt: skip
    """The graph of d loss / d parameter for the parameters named. Raises `UsageError`, with the model's line."""
    _torch()
    import torch
    from torch.func import functional_call, functionalize, grad
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.nn.attention import SDPBackend, sdpa_kernel

    parameters = dict(module.named_parameters())
    given = [parameters[name].detach() for name in trainable]
    names = list(batch)
    step = step_module(module, loss)

    def gradients(values: list[torch.Tensor], *tensors: torch.Tensor) -> list[torch.Tensor]:
        def scalar(values: list[torch.Tensor]) -> Any:
            full = {f"module.{name}": value for name, value in zip(trainable, values, strict=True)}
            return functional_call(step, full, (dict(zip(names, tensors, strict=True)),))

        return list(grad(scalar)(values))

    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), watched(module):
        graph = make_fx(functionalize(gradients))(given, *batch.values())
    fold_constants(graph)
    inputs = [("state", name) for name in trainable] + [("batch", name) for name in names]
    return Traced(graph, inputs, list(trainable), _shapes(graph))


def torch_batch(fields: Mapping[str, Field], records: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """What a model sees of these records, which are read as `batches.field_tensors` reads them in training.

    Raises `UsageError` where a record lacks a field, or holds in it anything but integers of its shape and range.
    """
    torch = _torch()
    found = {}
    for name, item in fields.items():
        marks = item.kind == "marks"
        shape = item.shape[:-1] if marks else item.shape
        limit = item.shape[-1] if marks else 1 << item.width
        within = range(-limit if item.kind == "signed" else 0, limit)
        try:
            rows = torch.tensor(field_integers(name, math.prod(shape), within, records), dtype=torch.int64)
        except Malformed as error:
            read = "" if marks else f"; integers v there are read as v / 2^{item.bits}"
            raise UsageError(f"{error}: {name} is a Field of {item.kind} and shape {item.shape}{read}") from None
        rows = rows.reshape(len(records), *shape)
        found[name] = rows if marks else rows.to(torch.float32) / 2.0**item.bits
    return found


def place_of(node: Node) -> str:
    """The line of the model behind an operation; of a backward one, the nearest forward operation's."""
    open_, seen = [node], set[str]()
    while open_:
        at = open_.pop(0)
        if PLACE in at.meta:
            return ("" if at is node else "the gradient of ") + str(at.meta[PLACE])
        if at.name not in seen:
            seen.add(at.name)
            open_ += sorted(at.all_input_nodes, key=lambda one: -_position(one))
    return "a line that is not known"


def _position(node: Node) -> int:
    return list(node.graph.nodes).index(node)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "tracing a PyTorch step") from None
    return torch


def step_module(module: torch.nn.Module, loss: Loss) -> torch.nn.Module:
    """A module whose forward pass is the loss of `module` on a batch: what is traced, and differentiated."""
    torch = _torch()

    class Step(torch.nn.Module):  # type: ignore[misc, name-defined]
        """Module and loss as one module, whose parameters `functional_call` can replace."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, batch: dict[str, Any]) -> Any:
            from torch.fx import traceback as notes

            result = loss(self.module, _Batch(batch))
            if not isinstance(result, torch.Tensor) or result.numel() != 1:
                raise UsageError("the loss must be one number: take its mean or sum")
            result = result.reshape(())
            notes.current_meta.pop(PLACE, None)  # what follows is the backward pass, of no line
            return result

    return Step()


class _Batch(dict[str, Any]):
    """A batch that says which Field is missing where the loss asks for one that there is not."""

    def __missing__(self, name: object) -> NoReturn:
        raise UsageError(f"the loss reads {name!r:.60} of a batch, which has {', '.join(self)[:200]}: give it a Field")


@contextmanager
def watched(module: torch.nn.Module, instead: Mapping[Any, Callable[..., Any]] | None = None) -> Iterator[None]:
    """Note the model's line at every call, and call other functions in the place of some.

    `instead`: those functions; by default one_hot, spelled without reading values.
    """
    torch = _torch()
    from torch.fx import traceback as notes
    from torch.overrides import TorchFunctionMode

    own = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    names = {id(one): name for name, one in module.named_modules() if name}
    replaced = instead or {torch.nn.functional.one_hot: _one_hot, torch._C._nn.one_hot: _one_hot}

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if place := _place(own, names):
                notes.current_meta[PLACE] = place
            return replaced.get(func, func)(*args, **(kwargs or {}))

    try:
        with notes.preserve_node_meta(), Watch():
            yield
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise UsageError(f"the step cannot be traced: {_reason(error)}") from None


def _place(own: tuple[str, str], names: Mapping[int, str]) -> str | None:
    """The nearest caller outside PyTorch, and the submodule that it runs in."""
    frame: FrameType | None = sys._getframe(2)
    inside = ""
    while frame is not None:
        name = names.get(id(frame.f_locals.get("self")))
        if name and not inside:
            inside = f" (in {name}, {type(frame.f_locals['self']).__name__})"
        file = frame.f_code.co_filename
        if file == __file__:  # nobody called loss: the backward pass
            return None
        if not file.startswith(own):
            code = linecache.getline(file, frame.f_lineno).strip()
            return f"{file}, line {frame.f_lineno}: {code}{inside}"
        frame = frame.f_back
    return None


def _one_hot(ids: Any, num_classes: int = -1) -> Any:
    torch = _torch()
    if num_classes < 1:
        raise UsageError("one_hot needs num_classes, the number of marks of the field")
    return (ids.unsqueeze(-1) == torch.arange(num_classes)).to(torch.int64)


def _reason(error: Exception) -> str:
    """The error's first line, and the last line outside PyTorch that led to it."""
    torch = _torch()
    own = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own)]
    text = str(error).strip().splitlines()
    reason = text[0][:200] if text else type(error).__name__
    if "trying to get value out of a tracing tensor" in reason:
        reason = "a value decides what Python does next; write it with tensors only"
    if "mutate a captured Tensor" in reason:
        reason = "a layer keeps statistics while it trains (BatchNorm does): use LayerNorm"
    place = f" at {frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
    return f"{reason}{place}"


def fold_constants(graph: GraphModule) -> None:
    """Put constants in the place of `ones_like` and its kind, and leave out what then serves nothing."""
    torch = _torch()
    numbers = {"aten.ones_like.default": 1.0, "aten.zeros_like.default": 0.0, "aten.full_like.default": None}
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and (name := str(node.target)) in numbers:
            with graph.graph.inserting_before(node):
                number = node.args[1] if numbers[name] is None else numbers[name]
                made = graph.graph.call_function(torch.ops.aten.full.default, (list(node.meta["val"].shape), number))
                made.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(made)
    graph.graph.eliminate_dead_code()


def _shapes(graph: GraphModule) -> dict[str, Any]:
    """The shape of every node's result; of the first, where there are several."""
    found = {}
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        while isinstance(value, (list, tuple)):
            value = next((one for one in value if one is not None), None)
        found[node.name] = list(value.shape) if hasattr(value, "shape") else []
    return found
