"""Integer training: the exact step as an optimizer, recorded like any other, each step ready to be proven.

    trainer = ExactTrainer(program, start, secret=secret, make_points=make_points)
    with record(begun, state=trainer, data=dataset) as run:
        for records in run.batches(dataset):
            run.step(loss=trainer.step(run.done + 1, batch_arrays(program, records)))

Spec: `specs/step-proof.md`, "Integer training" and "Frozen tensors". The checkpoint's component `model` is what will be
released: the weights that the program trains, int64, and beside them the frozen tensors, which it never sees. What the
optimizer remembers besides is `optimizer`.

    start, frozen = from_release(program, parent_bytes, what="the parent's weights")     # a program over some tensors
    trainer = ExactTrainer(program, start, frozen=frozen, secret=secret, make_points=make_points)
    ...
    write_file("release/model.safetensors", trainer.released())

Shows: nothing by itself; replay and step proofs are made from what it records.
Does not show: that training in floats would have led to the same model (`pot.zk.runs.slack` measures how far it is);
that the records' fields, or the program's constants, are what the frozen tensors compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pot.canonical import read_file
from pot.commitments.state import TensorEntry, entries_from_safetensors
from pot.errors import Malformed, Refused, UsageError
from pot.recording.state import MAX_STATE_BYTES, Component, safetensors_parts, write_components
from pot.recording.transcript import Points
from pot.zk.frozen import check_frozen, first_change
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
    "from_release",
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
        frozen: Sequence[TensorEntry] = (),
    ) -> None:
        """`state`: the start, inside the program's start range. `secret`: 32 random bytes of this run alone, which
        blind the points. `make_points`: None only in a replay on a machine that cannot make them; the auditor's result
        then says that the points were not checked. `loss`: what is recorded as a step's loss, such as `squared_error`.
        `frozen`: tensors of the model that the program does not train, of any dtype; see `from_release`.

        Raises `UsageError`, `Malformed`, `RangeLeft`.
        """
        _check_exact(program)
        check_state(program, state, start=True)  # the base of the induction that keeps every later state in range
        self.program = program
        self.state: Mapping[str, Ints] = dict(state)
        self.frozen = sorted(frozen, key=lambda entry: entry.name)
        """Tensors of the model that stay as they are; every checkpoint and the release hold them."""
        check_frozen(_states(program), self.frozen)
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
        """The integer weights with the frozen tensors, and what else the state has."""
        weights = weights_of(self.program, self.state)
        rest = {name: array for name, array in self.state.items() if name not in weights}
        model = sorted([*_entries(weights), *self.frozen], key=lambda entry: entry.name)
        return {"model": model, **({"optimizer": _entries(rest)} if rest else {})}

    def released(self) -> bytes:
        """The file to release: `dequantise/1` of the weights as they are now, and the frozen tensors."""
        return float_safetensors(weights_of(self.program, self.state), self.frozen)

    def save(self, folder: Path) -> None:
        """Write the tensors of the components."""
        write_components(folder, self.capture())

    def load(self, folder: Path) -> None:
        """Put the state in a folder back; frozen tensors are compared. Raises `Malformed`, `Refused`, `RangeLeft`."""
        state, frozen = _read(self.program, folder)
        if (changed := first_change(self.frozen, frozen)) is not None:
            raise Refused(f"{folder}: frozen tensor {changed[:64]} is not the program's own; give the parent's file")
        self.state = state
        self._open.steps = []


def _check_exact(program: Program) -> None:
    late = [item for item in program.next if item.slack]
    if late:
        raise UsageError(
            f"{program.nodes[late[0].state].name}: the program has slack for float steps, which exact ones do not need"
        )


def read_state(program: Program, folder: Path) -> dict[str, Ints]:
    """The state in a checkpoint of integer training, without frozen tensors. Raises `Malformed`, `RangeLeft`."""
    return _read(program, folder)[0]


def _read(program: Program, folder: Path) -> tuple[dict[str, Ints], list[TensorEntry]]:
    """The state in a checkpoint, and the tensors of the model that are none of the state's."""
    names = _states(program)
    found: dict[str, Ints] = {}
    frozen: list[TensorEntry] = []
    for file in _FILES:
        if file != _FILES[0] and not (folder / file).exists():
            continue
        path = folder / file
        entries = entries_from_safetensors(read_file(path, limit=MAX_STATE_BYTES), what=str(path))
        found |= {entry.name: _integers(entry, str(path)) for entry in entries if entry.name in names}
        others = [entry for entry in entries if entry.name not in names]
        if file == _FILES[0]:
            frozen = others
        elif others:
            raise Malformed(f"{path}: holds {others[0].name[:64]}, which the program's state has not")
    check_state(program, found)
    return found, frozen


def _states(program: Program) -> list[str]:
    return [str(program.nodes[index].name) for index in program.states]


def weights_of(program: Program, state: Mapping[str, Ints]) -> dict[str, Ints]:
    """The tensors of a state that a released model has: not those of the optimizer.

    The optimizer's are named after a weight, such as `0.weight.exp_avg`, or begin with `optimizer.`.
    """
    names = _states(program)
    return {name: state[name] for name in names if not is_remembered(name, names)}


def from_release(
    program: Program, data: bytes, *, what: str, rest: Mapping[str, Ints] | None = None
) -> tuple[dict[str, Ints], list[TensorEntry]]:
    """A start state from a release's safetensors bytes, and the tensors of it that the program does not train.

    The weights are `quantise/1` of the float32 ones of the same names; all else in the state is zero, or as in `rest`.
    The other tensors are the trainer's `frozen`. Raises `UsageError` for a program on another grid, `Malformed` for a
    weight that is missing, of another shape or dtype, or for a tensor that is named as an optimizer's.
    """
    import numpy as np

    nodes = {str(program.nodes[index].name): program.nodes[index] for index in program.states}
    state: dict[str, Ints] = {name: np.zeros(node.shape, np.int64) for name, node in nodes.items()} | dict(rest or {})
    entries = {entry.name: entry for entry in entries_from_safetensors(data, what=what)}
    for name in weights_of(program, state):
        if name not in entries:
            held = ", ".join(entries)
            raise Malformed(f"{what}: holds {held[:200]}, but no {name}, which the program trains")
        if (bits := nodes[name].bits) != WEIGHT_BITS:
            raise UsageError(f"{name}: has {bits} fraction bits in the program; quantise/1 makes {WEIGHT_BITS}")
        entry = entries.pop(name)
        if entry.dtype != "F32":
            raise Malformed(f"{what}: tensor {name} is {entry.dtype}, expected F32")
        state[name] = quantise(np.frombuffer(entry.data, dtype="<f4").reshape(entry.shape), what=name)
    check_state(program, state, start=True)
    frozen = list(entries.values())
    check_frozen(_states(program), frozen)
    return state, frozen


def weights_from_float(
    program: Program, data: bytes, *, what: str, rest: Mapping[str, Ints] | None = None
) -> dict[str, Ints]:
    """As `from_release`, for a release that holds what the program trains and nothing else. Raises alike."""
    state, frozen = from_release(program, data, what=what, rest=rest)
    if frozen:
        raise Malformed(
            f"{what}: holds {frozen[0].name[:64]}, which the program does not train; take from_release, and give the"
            " trainer what stays frozen"
        )
    return state


def weights_from_integers(data: bytes, *, what: str) -> dict[str, Ints]:
    """The int64 tensors in safetensors bytes, as copies. Raises `Malformed`."""
    return {entry.name: _integers(entry, what) for entry in entries_from_safetensors(data, what=what)}


def integer_safetensors(weights: Mapping[str, Ints]) -> bytes:
    """Safetensors bytes of integer tensors, the same for the same tensors."""
    return b"".join(safetensors_parts(_entries(weights)))


def float_safetensors(weights: Mapping[str, Ints], frozen: Sequence[TensorEntry] = ()) -> bytes:
    """Safetensors bytes of `dequantise/1` of the weights, and of the frozen tensors: the file to release."""
    floats = [
        TensorEntry(name, "F32", array.shape, dequantise(array, what=name).astype("<f4").tobytes())
        for name, array in weights.items()
    ]
    return b"".join(safetensors_parts([*floats, *frozen]))


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


def _integers(entry: TensorEntry, what: str) -> Ints:
    import numpy as np

    if entry.dtype != "I64":
        raise Malformed(f"{what}: tensor {entry.name[:64]} is {entry.dtype}, expected I64")
    return np.frombuffer(entry.data, dtype="<i8").reshape(entry.shape).astype(np.int64)
