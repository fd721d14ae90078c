"""From a PyTorch module, loss and optimizer to a `Program`: one training step as integers with one right result each.

Implements `specs/step-proof.md`, section "Lowering". The step is traced, run in floats over example records to see how
large its values get, and written down operation by operation; what has no rule is refused with the line of the model.
Everything that was chosen is in the program: two people who lower the same model with the same examples may differ,
two who run the same program cannot.

Shows: what the integer step is. Does not show: how close it stays to float training (measure it with `drift`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pot.errors import Malformed, UsageError
from pot.zk.lowering import rules_layers, rules_losses, rules_moves, rules_numbers
from pot.zk.lowering.arguments import check_numbers, check_trainable, check_widths
from pot.zk.lowering.optimizers import POWERS, Settings, advance_powers, first_values, float_update, settings_of
from pot.zk.lowering.rules import RULES, Call
from pot.zk.lowering.sketch import MARGIN, Sketch, TooWide
from pot.zk.lowering.updates import Pressure, Updates
from pot.zk.lowering.values import Arithmetic, Fixed, LogSoftmax, Marks, Value
from pot.zk.semantics.exact import check_state
from pot.zk.semantics.fixed import WEIGHT_BITS
from pot.zk.semantics.program import Next, Program
from pot.zk.trace import Field, Loss, Traced, place_of, torch_batch, trace

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch.fx import Node

__all__ = ["Lowered", "lower_step", "start_state", "step_program"]

CALIBRATION_STEPS: Final = 64
SAMPLES: Final = 16  # of those steps
LEAST_SIGNIFICANT: Final = 6  # a rounding keeps so many bits of its largest value, or updates are rounded instead
GRADIENT_YIELDS: Final = 2  # bits
FEW: Final = 32  # of all the elements that do not fit, the part that is rounded at once
ATTEMPTS: Final = 40
RULE_MODULES: Final = (rules_moves, rules_numbers, rules_layers, rules_losses)  # importing them fills RULES
INSTEAD: Final = {
    "gelu": "use ReLU", "silu": "use ReLU", "tanh": "use ReLU", "sigmoid": "use ReLU, or softmax over two scores",
    "elu": "use ReLU", "hardtanh": "use ReLU", "exp": "use softmax", "log": "use cross_entropy",
    "native_batch_norm": "use LayerNorm, or freeze the part below and give its features as a field",
    "native_group_norm": "use LayerNorm", "sqrt": "use LayerNorm", "native_dropout": "set dropout to 0, or call eval()",
    "bernoulli": "set dropout to 0, or call eval()", "rand_like": "leave random numbers out of the step",
    "_adaptive_avg_pool2d": "use avg_pool2d with a kernel that divides the image",
    "abs": "use mse_loss", "sgn": "use mse_loss", "eq": "leave label_smoothing and ignore_index out",
}  # fmt: skip
"""For an operation without a rule, the nearest thing that has one."""


@dataclass(frozen=True)
class Lowered:
    """A program and what a person should know about it."""

    program: Program
    notes: list[str]
    """What differs from the float step: rates and factors that were put on the grid, updates that are rounded."""


def step_program(
    module: torch.nn.Module, loss: Loss, optimizer: Any, fields: Mapping[str, Field],
    examples: Sequence[Mapping[str, Any]], *, batch: int, **options: Any,
) -> Program:  # fmt: skip
    """One training step of `module` as a program; see `lower_step` for the arguments."""
    return lower_step(module, loss, optimizer, fields, examples, batch=batch, **options).program


def lower_step(
    module: torch.nn.Module,
    loss: Loss,
    optimizer: Any,
    fields: Mapping[str, Field],
    examples: Sequence[Mapping[str, Any]],
    *,
    batch: int,
    trainable: Sequence[str] | None = None,
    label: str | None = None,
    weight_bits: int = WEIGHT_BITS,
    limb_bits: int = 14,
    margin: int = MARGIN,
    max_steps: int = 1 << 16,
    slack: int = 0,
    calibration_steps: int = CALIBRATION_STEPS,
    nearest_rate: bool = False,
) -> Lowered:
    """Trace, calibrate and lower one step.

    `loss(module, batch)`: a number from tensors by field name. `optimizer`: a torch.optim instance, `Sgd` or `Adam`.
    `examples`: at least `batch` records; magnitudes are measured on `calibration_steps` float steps over them.
    `trainable`: names of parameters; those that require a gradient by default. `margin`: bits that values may outgrow
    what was measured before a run stops. `nearest_rate`: take the nearest learning rate instead of refusing.
    Raises `UsageError` with the line of the model, `Malformed` where a bound of programs is broken.
    """
    parameters = dict(module.named_parameters())
    names = list(trainable) if trainable is not None else [n for n, p in parameters.items() if p.requires_grad]
    check_trainable(names, parameters)
    check_numbers(Program, batch=batch, limb_bits=limb_bits, max_steps=max_steps)
    check_numbers(Next, slack=slack)
    check_widths(fields, limb_bits, "limb_bits")
    if calibration_steps < 1:
        raise UsageError(f"calibration_steps is {calibration_steps}: give 1 or more, magnitudes are measured there")
    if len(examples) < batch:
        raise UsageError(f"{len(examples)} examples are given, a batch takes {batch}")
    settings = settings_of(optimizer, {name: parameters[name] for name in names})
    inputs = torch_batch(fields, examples[:batch])
    traced = trace(module, loss, fields, inputs, names)
    samples = _samples(module, traced, fields, settings, examples, batch, calibration_steps)
    job = _Job(traced, fields, settings, samples, weight_bits, limb_bits, margin, nearest_rate, slack)
    sketch, notes = job.lowered()
    text = label or f"{type(module).__name__}, {type(next(iter(settings.values()))).__name__}, batch {batch}"
    return Lowered(sketch.program(label=text, batch=batch, max_steps=max_steps), notes)


def start_state(program: Program, module: torch.nn.Module) -> dict[str, NDArray[np.int64]]:
    """The state a run of `program` begins with: the module's parameters on the grid, the optimizer's slots unused.

    Raises `Malformed` for a parameter that is not finite or too large for the grid.
    """
    import numpy as np

    parameters = {name: value.detach().cpu().double().numpy() for name, value in module.named_parameters()}
    found = {}
    for index in program.states:
        node = program.nodes[index]
        name = str(node.name)
        values = parameters.get(name, np.full(node.shape, 1.0 if name in POWERS else 0.0))
        if not np.isfinite(values).all():
            raise Malformed(f"{name}: holds NaN or infinity, which have no place on the integer grid")
        found[name] = np.rint(values * 2.0**node.bits).astype(np.int64)
    check_state(program, found, start=True)
    return found


@dataclass(frozen=True)
class _Job:
    traced: Traced
    fields: Mapping[str, Field]
    settings: Mapping[str, Settings]
    samples: Sequence[Mapping[str, Any]]
    weight_bits: int
    limb_bits: int
    margin: int
    nearest_rate: bool
    slack: int

    def lowered(self) -> tuple[Sketch, list[str]]:
        """Attempt until every update fits the weights' grid, or may be rounded."""
        caps: dict[int, int] = {}
        rounded: list[str] = []
        for _ in range(ATTEMPTS):
            sketch, updates = self._attempt(caps, rounded)
            if not updates.pressures:
                return sketch, updates.notes
            _tighten(sketch, updates.pressures, caps, rounded)
        raise UsageError("no bits were found with which the updates fit the grid: raise weight_bits")

    def _attempt(self, caps: Mapping[int, int], rounded: Sequence[str]) -> tuple[Sketch, Updates]:
        sketch = Sketch(limb_bits=self.limb_bits, samples=self.samples, caps=caps, margin=self.margin)
        a = Arithmetic(sketch)
        weights: dict[str, int] = {}
        known: dict[str, Any] = {}
        nodes = list(self.traced.graph.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        for node, (source, name) in zip(placeholders, self.traced.inputs, strict=True):
            if source == "state":
                weights[name] = self._weight(sketch, name)
                known[node.name] = Value(weights[name])
            else:
                known[node.name] = self._field(sketch, name)
        for node in nodes:
            if node.op not in ("placeholder", "output"):
                known[node.name] = self._operation(a, node, known)
        gradients = _resolved(nodes[-1].args[0], known)
        updates = Updates(a, self.weight_bits, self.nearest_rate, rounded, self.slack)
        for name, gradient in zip(self.traced.outputs, gradients, strict=True):
            value = a.constant(gradient.tensor) if isinstance(gradient, Fixed) else gradient
            try:
                updates.write(self.settings[name], name, weights[name], value)
            except TooWide as error:
                raise UsageError(f"{name}: its update is too wide ({error}): lower weight_bits or limb_bits") from None
        return sketch, updates

    def _weight(self, sketch: Sketch, name: str) -> int:
        largest = max(float(abs(sample[name]).max(initial=0)) for sample in self.samples)
        extra = max(3, math.ceil(math.log2(max(largest, 2.0**-20))) + 2)
        shape = self.samples[0][name].shape
        return sketch.state(name, shape, bits=self.weight_bits, width=self.weight_bits + extra)

    def _field(self, sketch: Sketch, name: str) -> Value | Marks:
        item = self.fields[name]
        shape = list(self.samples[0][name].shape)
        if item.kind == "marks":
            return Marks(sketch.batch(name, shape, kind="marks"))
        return Value(sketch.batch(name, shape, kind=item.kind, bits=item.bits, width=item.width))

    def _operation(self, a: Arithmetic, node: Node, known: Mapping[str, Any]) -> Any:
        if node.op == "get_attr":
            return Fixed(operator.attrgetter(str(node.target))(self.traced.graph).detach())
        args, kwargs = _resolved(node.args, known), _resolved(node.kwargs, known)
        if node.target is operator.getitem:
            return args[0][args[1]]
        op = str(node.target).removeprefix("aten.")
        try:
            if (made := _constant(node, args, kwargs)) is not None:
                return made
            if op not in RULES:
                instead = INSTEAD.get(op.split(".")[0].removesuffix("_backward"), "use an operation that has one")
                raise UsageError(f"operation {op} has no rule: {instead}")
            return RULES[op](a, Call(op, args, kwargs, self.traced.shapes[node.name]))
        except UsageError as error:
            raise UsageError(f"{place_of(node)}: {error}{'' if op in str(error) else f' ({op})'}") from None


def _resolved(item: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(item, (list, tuple)):
        return [_resolved(one, known) for one in item]
    if isinstance(item, dict):
        return {key: _resolved(one, known) for key, one in item.items()}
    return known[item.name] if hasattr(item, "all_input_nodes") else item


def _constant(node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Fixed | None:
    """The result of an operation that reads constants only."""
    import torch

    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        name = str(node.target).removeprefix("aten.").split(".")[0]
        raise UsageError(f"random numbers have no place in a step: {INSTEAD.get(name, 'leave them out')}")
    flat = [one for arg in [*args, *kwargs.values()] for one in (arg if isinstance(arg, list) else [arg])]
    if any(isinstance(one, (Value, Marks, LogSoftmax)) for one in flat):
        return None

    def bare(item: Any) -> Any:
        if isinstance(item, list):
            return [bare(one) for one in item]
        return item.tensor if isinstance(item, Fixed) else item

    result = node.target(*bare(list(args)), **{key: bare(item) for key, item in kwargs.items()})  # type: ignore[operator]
    return Fixed(result) if isinstance(result, torch.Tensor) else None


def _tighten(sketch: Sketch, pressures: Sequence[Pressure], caps: dict[int, int], rounded: list[str]) -> None:
    """Take the excess of each update from the roundings it hangs on, a bit at a time from the one with most bits.

    An update that would leave too few bits is rounded instead, and so is one of few elements: that costs little.
    """
    lost = dict.fromkeys(range(len(sketch.roundings)), 0)
    few = sum(pressure.size for pressure in pressures) // FEW
    for pressure in pressures:
        trial = dict(lost)
        least = math.inf if pressure.size <= few else LEAST_SIGNIFICANT
        for _ in range(max(0, pressure.excess - sum(lost[one] for one in pressure.roundings))):
            left = {one: sketch.significant(one) - trial[one] for one in sorted(pressure.roundings)}
            last = max(left)  # the gradient's own rounding: the forward pass needs its bits for the signs of relus
            most = max(left, key=lambda one: left[one] + (GRADIENT_YIELDS if one == last else 0))
            if left[most] <= least:
                rounded.append(pressure.name)
                break
            trial[most] += 1
        else:
            lost = trial
    for one, bits in lost.items():
        if bits:
            caps[one] = sketch.bits(sketch.roundings[one]) - bits


def _samples(
    module: torch.nn.Module, traced: Traced, fields: Mapping[str, Field], settings: Mapping[str, Settings],
    examples: Sequence[Mapping[str, Any]], batch: int, steps: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """State and batch, as float64 arrays, at each of some steps of float training over the examples."""
    import numpy as np
    import torch

    parameters = dict(module.named_parameters())
    state = {name: parameters[name].detach().cpu().double().numpy().copy() for name in traced.outputs}
    for name in traced.outputs:
        state |= first_values(settings[name], name, np.zeros_like(state[name]), np.ones(1))
    found: list[dict[str, Any]] = []
    for step in range(steps):
        records = [examples[(step * batch + at) % len(examples)] for at in range(batch)]
        tensors = torch_batch(fields, records)
        inputs = {name: _numbers(fields[name], tensors[name]) for name in tensors}
        if step % max(1, steps // SAMPLES) == 0 or step == steps - 1:
            found.append(state | inputs)
        state = dict(state)
        weights = [torch.from_numpy(state[name]).to(parameters[name].dtype) for name in traced.outputs]
        with torch.no_grad():
            gradients = traced.graph(weights, *tensors.values())
        for name, gradient in zip(traced.outputs, gradients, strict=True):
            float_update(settings[name], name, state, gradient.double().numpy())
        advance_powers(settings, state)
        if not all(np.isfinite(value).all() for value in state.values()):
            raise UsageError(f"float training over the examples diverges at step {step}: lower the learning rate")
    return found


def _numbers(field: Field, tensor: Any) -> Any:
    import numpy as np

    if field.kind != "marks":
        return tensor.double().numpy()
    return (tensor.numpy()[..., None] == np.arange(field.shape[-1])).astype(np.float64)
