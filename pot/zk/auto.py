"""Family "auto": a training step as float ONNX, which ezkl quantises itself; for models that `pot.zk.lower` refuses.

Implements `specs/step-proof.md`, section "Family auto". Forward, backward and update are traced together and written
as ONNX operations that ezkl computes; what has no table or product there is refused with the line of the model. The
state is one vector and the batch another, so that a point for each vector binds them.

Every rescale inside such a circuit is right to one unit in the last place, in either direction: the step is no
function, and a prover may steer each by that unit. ezkl's `Pow` with a negative exponent computes something else: no
`Pow` is written.

Shows (a proof of it): the next state is the float step's, up to one unit at every rescale.
Does not show: exact integers, or that nobody steered; a replay with ezkl itself does (`pot.zk.auto_training`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pot.canonical import sha256_hex
from pot.errors import UsageError
from pot.zk.auto_family import BLINDS
from pot.zk.auto_onnx import onnx_of
from pot.zk.auto_program import AutoField, AutoProgram, AutoStep
from pot.zk.lowering.arguments import check_numbers, check_trainable
from pot.zk.lowering.optimizers import POWERS, Adam, Settings, advance_powers, float_update, settings_of, slots
from pot.zk.trace import Field, Loss, fold_constants, step_module, watched

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

__all__ = ["AutoStep", "auto_step"]


def auto_step(
    module: torch.nn.Module, loss: Loss, optimizer: Any, fields: Mapping[str, Field], *, batch: int,
    trainable: Sequence[str] | None = None, label: str | None = None, scale: int = 12, lookup_bits: int = 15,
    limb_bits: int = 14, limbs: int = 2, max_steps: int = 65536,
) -> AutoStep:  # fmt: skip
    """Trace one step of `batch` records and write it down. Arguments as of `pot.zk.lower.lower_step`.

    `scale`: fraction bits of every value. A table reaches to 2^lookup_bits, a value to 2^(limb_bits limbs); a circuit
    needs more than 2^limb_bits rows. Raises `UsageError` with the line of the model where an operation cannot be
    written.
    """
    parameters = dict(module.named_parameters())
    names = list(trainable) if trainable is not None else [n for n, p in parameters.items() if p.requires_grad]
    check_trainable(names, parameters)
    check_numbers(
        AutoProgram, batch=batch, max_steps=max_steps, scale=scale, lookup_bits=lookup_bits, limb_bits=limb_bits,
        limbs=limbs,
    )  # fmt: skip
    for item in fields.values():
        check_numbers(AutoField, bits=item.bits, width=item.width)
    settings = settings_of(optimizer, {name: parameters[name] for name in names})
    _check_eps(settings, scale)
    state = [(name, list(parameters[name].shape)) for name in names]
    state += [(slot, list(parameters[name].shape)) for name in names for slot in slots(settings[name], name)]
    if any(isinstance(item, Adam) for item in settings.values()):
        state += [(power, [1]) for power in POWERS]
    inputs = [(name, [batch, *item.shape]) for name, item in fields.items()]
    graph = _traced(module, loss, settings, names, state, inputs, fields)
    onnx = onnx_of(graph, state, inputs, {name: _range(item) for name, item in fields.items()}, BLINDS)
    described = [
        {
            "name": name,
            "shape": shape,
            "kind": fields[name].kind,
            "bits": fields[name].bits,
            "width": fields[name].width,
        }
        for name, shape in inputs
    ]
    value = {
        "version": "pot/auto-program/v1", "label": label or f"{type(module).__name__}, batch {batch}", "batch": batch,
        "max_steps": max_steps, "state": [{"name": name, "shape": shape} for name, shape in state],
        "fields": described, "scale": scale, "lookup_bits": lookup_bits, "limb_bits": limb_bits, "limbs": limbs,
        "onnx_sha256": sha256_hex(onnx),
    }  # fmt: skip
    return AutoStep(AutoProgram.from_value(value, what="step"), onnx)


def _check_eps(settings: Mapping[str, Settings], scale: int) -> None:
    """Refuse an eps that the grid does not hold: a root of 0 would be divided by. Raises `UsageError`."""
    for name, item in settings.items():
        if isinstance(item, Adam) and item.eps < 2.0**-scale:
            raise UsageError(
                f"{name}: eps is {item.eps:g}, which is nothing on a grid of 2^-{scale}; give the optimizer one of at"
                f" least {2.0**-scale:.3g}"
            )


def _traced(
    module: torch.nn.Module, loss: Loss, settings: Mapping[str, Settings], names: Sequence[str],
    state: Sequence[tuple[str, list[int]]], inputs: Sequence[tuple[str, list[int]]], fields: Mapping[str, Field],
) -> GraphModule:  # fmt: skip
    import torch
    from torch._decomp import core_aten_decompositions
    from torch.func import functional_call, functionalize, grad
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.nn.attention import SDPBackend, sdpa_kernel

    step = step_module(module, loss)

    def after(before: list[torch.Tensor], *tensors: torch.Tensor) -> list[torch.Tensor]:
        values: dict[str, Any] = dict(zip([name for name, _ in state], before, strict=True))
        given = {name: _seen(fields[name], item) for (name, _), item in zip(inputs, tensors, strict=True)}

        def scalar(weights: dict[str, torch.Tensor]) -> Any:
            return functional_call(step, {f"module.{name}": value for name, value in weights.items()}, (given,))

        gradients = grad(scalar)({name: values[name] for name in names})
        for name in names:
            float_update(settings[name], name, values, gradients[name])
        advance_powers(settings, values)
        return [values[name] for name, _ in state]

    table: Any = core_aten_decompositions()
    for kept in (torch.ops.aten.threshold_backward.default, torch.ops.aten._safe_softmax.default):
        table.pop(kept, None)  # these have a shorter form in ONNX
    examples = [torch.full(shape, 0.5) for _, shape in inputs]
    start = [torch.full(shape, 0.5) for _, shape in state]
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), watched(module, _by_marks()):
        graph = make_fx(functionalize(after), decomposition_table=table)(start, *examples)
    fold_constants(graph)
    return graph


def _range(field: Field) -> tuple[float, float]:
    """The least and the largest number of a field."""
    if field.kind == "marks":
        return 0.0, 1.0
    low = -(1 << field.width) if field.kind == "signed" else 0
    return low / 2.0**field.bits, ((1 << field.width) - 1) / 2.0**field.bits


def _seen(field: Field, tensor: Any) -> Any:
    """What the model sees of a field: ids, as a sum over the marks, or the numbers."""
    import torch

    return (tensor * torch.arange(field.shape[-1])).sum(-1) if field.kind == "marks" else tensor


def _by_marks() -> dict[Any, Callable[..., Any]]:
    """Functions that read ids, written with marks: 1 - |id - k|, cut at 0, is the mark of k for whole numbers."""
    import torch
    from torch.nn import functional

    def marks(ids: Any, count: int) -> Any:
        return torch.relu(1 - (ids.unsqueeze(-1) - torch.arange(count)).abs())

    def one_hot(ids: Any, num_classes: int = -1) -> Any:
        return marks(ids, num_classes)

    def cross_entropy(values: Any, target: Any, *args: Any, reduction: str = "mean", **others: Any) -> Any:
        plain = all(not value or name == "ignore_index" for name, value in others.items())
        if args or not plain or values.dim() != 2 or reduction not in ("mean", "sum"):
            raise UsageError("cross_entropy takes (records, classes), labels, and reduction mean or sum")
        target = marks(target, values.shape[-1]) if target.dim() == 1 else target
        total = -(functional.log_softmax(values, -1) * target).sum()
        return total / values.shape[0] if reduction == "mean" else total

    def embedding(ids: Any, table: Any, padding_idx: int | None = None, max_norm: float | None = None, **_: Any) -> Any:
        if padding_idx is not None or max_norm is not None:
            raise UsageError("an embedding with padding_idx or max_norm has no rule: leave them out")
        return marks(ids, table.shape[0]) @ table

    return {functional.one_hot: one_hot, functional.cross_entropy: cross_entropy, functional.embedding: embedding}
