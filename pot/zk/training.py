"""Integer training: the exact step as an optimizer, recorded like any other, each step ready to be proven.

    trainer = ExactTrainer(program, start, secret=secret, make_points=make_points)
    with record(begun, state=trainer, data=dataset) as run:
        for records in run.batches(dataset):
            run.step(loss=trainer.step(run.done + 1, batch_arrays(program, records)))

Spec: `specs/step-proof.md`, "Integer training". Weights are the checkpoint's component `model`, what the optimizer
remembers besides is `optimizer`; both hold int64 tensors.

Shows: nothing by itself; replay and step proofs are made from what it records.
Does not show: that training in floats would have led to the same model (`pot.zk.runs.slack` measures how far it is).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pot.canonical import read_file
from pot.commitments.state import TensorEntry, entries_from_safetensors
from pot.errors import Malformed, UsageError
from pot.recording.state import MAX_STATE_BYTES, Component, write_components
from pot.recording.transcript import Points
from pot.zk.runs.segment import MakePoints, OpenSegment, StepInputs
from pot.zk.semantics.exact import Run, check_state, run
from pot.zk.semantics.fixed import WEIGHT_BITS, dequantise, quantise
from pot.zk.semantics.program import is_remembered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.semantics.program import Program

    Ints = NDArray[np.int64]

__all__ = [
    "ExactTrainer",
    "float_safetensors",
    "integer_safetensors",
    "read_state",
    "squared_error",
    "weights_from_float",
    "weights_from_integers",
    "weights_of",
]

_FILES: Final = ("model.safetensors", "optimizer.safetensors")


class ExactTrainer:
    """The state source of an integer training run: weights on the grid, one exact step of a program at a time."""

    def __init__(
        self,
        program: Program,
        state: Mapping[str, Ints],
        *,
        secret: bytes,
        make_points: MakePoints | None = None,
        loss: Callable[[Run], float] | None = None,
    ) -> None:
        """`state`: the start, inside the program's start range. `secret`: 32 random bytes of this run alone, which
        blind the points. `make_points`: None only in a replay on a machine that cannot make them; the auditor's result
        then says that the points were not checked. `loss`: what is recorded as a step's loss, such as `squared_error`.

        Raises `UsageError`, `Malformed`, `RangeLeft`.
        """
        _check_exact(program)
        check_state(program, state, start=True)  # the base of the induction that keeps every later state in range
        self.program = program
        self.state: Mapping[str, Ints] = dict(state)
        self._loss = loss
        self._open = OpenSegment(secret, make_points)

    def step(self, number: int, batch: Mapping[str, Ints]) -> float | None:
        """Train on one batch; `number` counts the run's steps from 1. Returns the loss where one is computed.

        Raises `RangeLeft` where a value leaves the circuit's range, `Malformed` for inputs of another form.
        """
        if number > self.program.max_steps:
            raise UsageError(f"step {number}: the program's steps can be proven up to number {self.program.max_steps}")
        result = run(self.program, self.state, batch)
        self._open.steps.append(StepInputs(number, self.state, batch))
        self.state = result.next
        return None if self._loss is None else self._loss(result)

    def points_for_segment(self, steps: list[int]) -> list[Points] | None:
        """See `PointSource` and `OpenSegment.points`."""
        return self._open.points(steps, self.state)

    def capture(self) -> Mapping[str, Component]:
        """The integer weights, and what else the state has."""
        weights = weights_of(self.program, self.state)
        rest = {name: array for name, array in self.state.items() if name not in weights}
        return {"model": _entries(weights), **({"optimizer": _entries(rest)} if rest else {})}

    def save(self, folder: Path) -> None:
        """Write the int64 tensors of the components."""
        write_components(folder, self.capture())

    def load(self, folder: Path) -> None:
        """Put the state in a folder back. Raises `Malformed`, `RangeLeft`."""
        self.state = read_state(self.program, folder)
        self._open.steps = []


def _check_exact(program: Program) -> None:
    late = [item for item in program.next if item.slack]
    if late:
        raise UsageError(
            f"{program.nodes[late[0].state].name}: the program has slack for float steps, which exact ones do not need"
        )


def read_state(program: Program, folder: Path) -> dict[str, Ints]:
    """The state in a checkpoint of integer training. Raises `Malformed`, `RangeLeft`."""
    found: dict[str, Ints] = {}
    for name in _FILES:
        if name == _FILES[0] or (folder / name).exists():
            path = folder / name
            found |= weights_from_integers(read_file(path, limit=MAX_STATE_BYTES), what=str(path))
    check_state(program, found)
    return found


def weights_of(program: Program, state: Mapping[str, Ints]) -> dict[str, Ints]:
    """The tensors of a state that a released model has: not those of the optimizer.

    The optimizer's are named after a weight, such as `0.weight.exp_avg`, or begin with `optimizer.`.
    """
    names = [str(program.nodes[index].name) for index in program.states]
    return {name: state[name] for name in names if not is_remembered(name, names)}


def weights_from_float(
    program: Program, data: bytes, *, what: str, rest: Mapping[str, Ints] | None = None
) -> dict[str, Ints]:
    """A start state: `quantise/1` of the float32 weights in safetensors bytes, and zeros, or `rest`, for all else.

    Raises `UsageError` for a program on another grid, `Malformed` for other tensors.
    """
    import numpy as np

    nodes = {str(program.nodes[index].name): program.nodes[index] for index in program.states}
    state: dict[str, Ints] = {name: np.zeros(node.shape, np.int64) for name, node in nodes.items()} | dict(rest or {})
    wanted = weights_of(program, state)
    entries = _named(data, "F32", what)
    if sorted(entry.name for entry in entries) != sorted(wanted):
        names = ", ".join(entry.name for entry in entries)
        raise Malformed(f"{what}: holds {names[:200]}, expected {', '.join(wanted)[:200]}")
    for entry in entries:
        if (bits := nodes[entry.name].bits) != WEIGHT_BITS:
            raise UsageError(f"{entry.name}: has {bits} fraction bits in the program; quantise/1 makes {WEIGHT_BITS}")
        state[entry.name] = quantise(np.frombuffer(entry.data, dtype="<f4").reshape(entry.shape), what=entry.name)
    check_state(program, state, start=True)
    return state


def weights_from_integers(data: bytes, *, what: str) -> dict[str, Ints]:
    """The int64 tensors in safetensors bytes, as copies. Raises `Malformed`."""
    import numpy as np

    return {
        entry.name: np.frombuffer(entry.data, dtype="<i8").reshape(entry.shape).astype(np.int64)
        for entry in _named(data, "I64", what)
    }


def integer_safetensors(weights: Mapping[str, Ints]) -> bytes:
    """Safetensors bytes of integer tensors, the same for the same tensors."""
    return _serialise(weights)


def float_safetensors(weights: Mapping[str, Ints]) -> bytes:
    """Safetensors bytes of `dequantise/1` of the weights: the file to release."""
    return _serialise({name: dequantise(array, what=name) for name, array in weights.items()})


def squared_error(program: Program) -> Callable[[Run], float]:
    """A loss for `ExactTrainer`: half the squared difference of outputs and marks, per record.

    Read from the step's rounded differences: an exact numerator and one float64 division, so it is the same anywhere.
    Raises `UsageError` for a program without such differences.
    """
    for index, node in enumerate(program.nodes):
        before = program.nodes[node.inputs[0]] if node.inputs else node
        if node.op == "round" and before.op == "sub" and _reads_marks(program, before.inputs[1]):
            unit = float(program.batch << (2 * node.bits + 1))
            return lambda result: sum(v * v for v in result.values[index].reshape(-1).tolist()) / unit
    raise UsageError("the program rounds no difference of outputs and marks; record another loss, or none")


def _reads_marks(program: Program, index: int) -> bool:
    node = program.nodes[index]
    while node.op in ("shift", "times", "relabel", "reshape", "expand"):
        node = program.nodes[node.inputs[0]]
    return node.kind == "marks"


def _entries(arrays: Mapping[str, Ints]) -> list[TensorEntry]:
    return [
        TensorEntry(name, "I64", arrays[name].shape, arrays[name].astype("<i8").tobytes()) for name in sorted(arrays)
    ]


def _serialise(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _named(data: bytes, dtype: str, what: str) -> list[TensorEntry]:
    entries = entries_from_safetensors(data, what=what)
    for entry in entries:
        if entry.dtype != dtype:
            raise Malformed(f"{what}: tensor {entry.name} is {entry.dtype}, expected {dtype}")
    return entries
