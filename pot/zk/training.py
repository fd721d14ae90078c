"""Integer training: the exact step as an optimizer, recorded like any other, each step ready to be proven.

    trainer = ExactTrainer(spec, quantised, secret=secret, make_points=lambda v: commit_vectors(kit, v, engine))
    with record(begun, state=trainer, data=dataset) as run:
        for batch in run.batches(dataset):
            run.step(loss=trainer.step(run.done + 1, features, labels))

Spec: `specs/step-proof.md`, "Integer training". Before a segment's events are written, the KZG points of its states and
batches are made, so that they stand in the transcript before anybody can challenge a step.

Shows: nothing by itself; replay and step proofs are made from what it records.
Does not show: that the points are those of the states (auditors who know the secret recompute them; step proofs show it
for the steps they cover).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from pot.canonical import read_file
from pot.commitments.state import TensorEntry, entries_from_safetensors
from pot.errors import Malformed, UsageError
from pot.recording.state import MAX_STATE_BYTES, Component, write_components
from pot.recording.transcript import Points
from pot.zk.exact import Step, Weights, check_start, check_weights, step
from pot.zk.fixed import WEIGHT_BITS, dequantise, quantise
from pot.zk.packing import Vector, batch_vector, blinds, state_vector
from pot.zk.spec import CircuitSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = [
    "SECRET_BYTES",
    "TENSOR_NAMES",
    "ExactTrainer",
    "MakePoints",
    "StepInputs",
    "float_safetensors",
    "integer_safetensors",
    "weights_from_float",
    "weights_from_integers",
]

SECRET_BYTES: Final = 32

TENSOR_NAMES: Final = {
    "0.weight": "hidden_weight",
    "0.bias": "hidden_bias",
    "2.weight": "output_weight",
    "2.bias": "output_bias",
}
"""Tensors of `torch.nn.Sequential(Linear, ReLU, Linear)` and the fields of `Weights` that hold them."""


class MakePoints(Protocol):
    """What turns vectors into KZG points: 128 hex digits each, in order."""

    def __call__(self, vectors: Sequence[Vector]) -> list[str]:
        """Commit to every vector."""


@dataclass(frozen=True)
class StepInputs:
    """What one step was computed from: everything that proving it again needs besides the secret."""

    number: int
    before: Weights
    features: Ints
    """(batch, inputs) int64."""
    labels: Ints
    """(batch,) int64."""


class ExactTrainer:
    """The state source of an integer training run: weights on the grid, one exact SGD step at a time."""

    def __init__(
        self, spec: CircuitSpec, weights: Weights, *, secret: bytes, make_points: MakePoints | None = None
    ) -> None:
        """`weights`: the start state, |w| < 64. `secret`: 32 random bytes of this run alone, which blind the points.
        `make_points`: None only in a replay on a machine that cannot make them; the auditor's result then says that
        the points were not checked. Raises `UsageError`, `Malformed`, `RangeLeft`.
        """
        if spec.weight_bits != WEIGHT_BITS:
            raise UsageError(f"integer training needs a circuit with {WEIGHT_BITS} weight bits, not {spec.weight_bits}")
        if len(secret) != SECRET_BYTES:
            raise UsageError(f"the secret that blinds the points has {len(secret)} bytes, not {SECRET_BYTES}")
        check_start(spec, weights)  # the base of the induction that keeps every later state inside its lanes
        self.spec = spec
        self.weights = weights
        self._secret = secret
        self._make_points = make_points
        self._open: dict[int, StepInputs] = {}

    def step(self, number: int, features: Ints, labels: Ints) -> float:
        """Train on one batch; `number` counts the run's steps from 1. Returns half the squared error per record.

        Raises `RangeLeft` where a value leaves the circuit's range, `Malformed` for inputs of another shape.
        """
        result: Step = step(self.spec, self.weights, features, labels)
        self._open[number] = StepInputs(number, self.weights, features, labels)
        self.weights = result.weights
        return result.loss

    def points_for_segment(self, steps: list[int]) -> list[Points] | None:
        """The points of these consecutive steps, made at once; forgets the steps' inputs. See `PointSource`.

        Raises `UsageError` where these are not the steps that were trained since the last call, or another number of
        points comes back.
        """
        inputs = list(self._open.values())
        if not steps or [item.number for item in inputs] != steps or steps != list(range(steps[0], steps[-1] + 1)):
            found = ", ".join(str(item.number) for item in inputs[:8])
            raise UsageError(
                f"points of steps {steps[:8]} are asked for, trained were {found or 'none'}: number them from 1"
            )
        self._open = {}
        if self._make_points is None:
            return None
        vectors = [state_vector(self.spec, item.before, self._blind("state", item.number - 1)) for item in inputs]
        vectors.append(state_vector(self.spec, self.weights, self._blind("state", steps[-1])))
        vectors += [
            batch_vector(self.spec, item.features, item.labels, self._blind("batch", item.number)) for item in inputs
        ]
        points = self._make_points(vectors)
        if len(points) != len(vectors):
            raise UsageError(f"{len(points)} points came back for {len(vectors)} vectors")
        states, batches = points[: len(steps) + 1], points[len(steps) + 1 :]
        return [Points(before=states[at], batch=batches[at], after=states[at + 1]) for at in range(len(steps))]

    def capture(self) -> Mapping[str, Component]:
        """The integer weights."""
        return {"model": _entries(self.weights)}

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` with int64 tensors."""
        write_components(folder, self.capture())

    def load(self, folder: Path) -> None:
        """Put the weights of `model.safetensors` back. Raises `Malformed`, `RangeLeft`."""
        path = folder / "model.safetensors"
        weights = weights_from_integers(read_file(path, limit=MAX_STATE_BYTES), what=str(path))
        check_weights(self.spec, weights)
        self.weights, self._open = weights, {}

    def _blind(self, label: Any, number: int) -> list[int]:
        return blinds(self.spec, self._secret, label, number)


def weights_from_float(data: bytes, *, what: str) -> Weights:
    """`quantise/1` of the float32 tensors in safetensors bytes. Raises `Malformed`."""
    import numpy as np

    found = {
        entry.name: quantise(np.frombuffer(entry.data, dtype="<f4").reshape(entry.shape), what=entry.name)
        for entry in _named(data, "F32", what)
    }
    return Weights(**{field: found[name] for name, field in TENSOR_NAMES.items()})


def weights_from_integers(data: bytes, *, what: str) -> Weights:
    """The int64 tensors in safetensors bytes. Raises `Malformed`."""
    import numpy as np

    found = {
        entry.name: np.frombuffer(entry.data, dtype="<i8").reshape(entry.shape).astype(np.int64)
        for entry in _named(data, "I64", what)
    }
    return Weights(**{field: found[name] for name, field in TENSOR_NAMES.items()})


def integer_safetensors(weights: Weights) -> bytes:
    """Safetensors bytes of the integer weights, the same for the same weights."""
    return _serialise({name: getattr(weights, field) for name, field in TENSOR_NAMES.items()})


def float_safetensors(weights: Weights) -> bytes:
    """Safetensors bytes of `dequantise/1` of the weights: the file to release."""
    return _serialise({name: dequantise(getattr(weights, field)) for name, field in TENSOR_NAMES.items()})


def _entries(weights: Weights) -> list[TensorEntry]:
    arrays = {name: getattr(weights, field) for name, field in TENSOR_NAMES.items()}
    return [TensorEntry(name, "I64", arrays[name].shape, _bytes(arrays[name], "<i8")) for name in sorted(arrays)]


def _bytes(array: NDArray[Any], dtype: str) -> bytes:
    return array.astype(dtype).tobytes()


def _serialise(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    return save(dict(arrays))


def _named(data: bytes, dtype: str, what: str) -> list[TensorEntry]:
    entries = entries_from_safetensors(data, what=what)
    names = [entry.name for entry in entries]
    if sorted(names) != sorted(TENSOR_NAMES):
        raise Malformed(f"{what}: holds {', '.join(names)[:200]}, expected {', '.join(TENSOR_NAMES)}")
    for entry in entries:
        if entry.dtype != dtype:
            raise Malformed(f"{what}: tensor {entry.name} is {entry.dtype}, expected {dtype}")
    return entries
