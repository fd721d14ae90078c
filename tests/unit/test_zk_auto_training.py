"""Training in family auto: what is kept, written back and refused, with the float graph in the place of ezkl."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator  # noqa: E402
from torch import nn  # noqa: E402

from pot.commitments.state import TensorEntry, entries_from_safetensors  # noqa: E402
from pot.errors import Malformed, Refused, UsageError  # noqa: E402
from pot.recording.state import write_components  # noqa: E402
from pot.zk.auto import AutoStep, auto_step  # noqa: E402
from pot.zk.auto_cost import auto_cost, blocks  # noqa: E402
from pot.zk.auto_family import BLINDS, INPUTS  # noqa: E402
from pot.zk.auto_training import AutoTrainer  # noqa: E402
from pot.zk.circuit import Circuit, CircuitPart  # noqa: E402
from pot.zk.circuits.field import MODULUS, Vector, encode  # noqa: E402
from pot.zk.kit import KitPart, ProvingKit, VerifyingKit  # noqa: E402
from pot.zk.opened_state import check_fresh, state_of  # noqa: E402
from pot.zk.trace import Field, torch_batch  # noqa: E402

SECRET = b"s" * 32
SCALE = 12
FIELDS = {"image": Field("unsigned", (4,), bits=4, width=5), "label": Field("marks", (3,))}
POWERS = {name: np.array([1 << SCALE]) for name in ("optimizer.beta1_power", "optimizer.beta2_power")}


class FloatGraph:
    """In the place of ezkl: the graph in floats, put on the grid at its end. `bend` changes the next state."""

    def __init__(self, step: AutoStep) -> None:
        self._evaluator = ReferenceEvaluator(onnx.load_from_string(step.onnx))
        self.satisfied = True
        self.bend: Callable[[Any], Any] = lambda after: after

    def mock(self, folder: Path, inputs: Sequence[Vector]) -> tuple[bool, Vector]:
        signed = [[(v + MODULUS // 2) % MODULUS - MODULUS // 2 for v in vector] for vector in inputs]
        given = [np.array(vector, np.float32) / np.float32(1 << SCALE) for vector in signed]
        (after,) = self._evaluator.run(None, dict(zip(("before", "batch", "blinds"), given, strict=True)))
        found = self.bend(np.rint(np.asarray(after, np.float64) * (1 << SCALE)).astype(np.int64))
        return self.satisfied, [int(value) % MODULUS for value in found]

    def commit(self, vectors: Sequence[Vector], *files: bytes) -> list[str]:
        return [hashlib.sha512(encode(vector)).hexdigest() for vector in vectors]


def module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh())


def loss(model: Any, batch: Any) -> Any:
    return nn.functional.cross_entropy(model(batch["image"]), batch["label"])


def sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.25, momentum=0.5)


def adam(parameters: Any) -> Any:
    return torch.optim.Adam(parameters, lr=0.01, eps=1 / 128)


class Training:
    """Module, optimizer, trainer, and the stand-in of ezkl."""

    def __init__(self, folder: Path, optimizer: Callable[[Any], Any] = sgd, **options: Any) -> None:
        self.module = module()
        self.step = auto_step(self.module, loss, optimizer(self.module.parameters()), FIELDS, batch=2, max_steps=5)
        self.engine: Any = FloatGraph(self.step)
        self.optimizer = optimizer(self.module.parameters())
        self.trainer = AutoTrainer(
            kit(self.step, folder), self.module, self.optimizer, engine=self.engine, secret=SECRET,
            keep_in=folder / "states", **options,
        )  # fmt: skip

    def take(self, number: int) -> None:
        """One step."""
        rng = np.random.default_rng(number)
        records = [{"image": rng.integers(0, 17, 4).tolist(), "label": int(rng.integers(0, 3))} for _ in range(2)]
        self.optimizer.zero_grad()
        loss(self.module, torch_batch(FIELDS, records)).backward()
        self.optimizer.step()
        self.trainer.step(number, self.step.program.batch_arrays(records))


def kit(step: AutoStep, folder: Path) -> ProvingKit:
    part = CircuitPart(
        inputs=INPUTS, powers=[], onnx_sha256=step.program.onnx_sha256, settings_sha256="00" * 32, vk_sha256="00" * 32,
        proof_bytes="9000",
    )  # fmt: skip
    circuit = Circuit(
        version="pot/circuit/v2", family="auto", label="tiny", program_sha256=step.program.sha256(), batch=2,
        parameters=step.program.parameters, max_steps=5, logrows=15, columns=2, blinds=BLINDS, ezkl_version="23.0.5",
        srs_sha256="00" * 32, parts=[part],
    )  # fmt: skip
    return ProvingKit(VerifyingKit(circuit, step.program, [KitPart(b"", b"")], b"", step.onnx), folder)


def test_module_and_optimizer_stand_where_the_points_are(tmp_path: Path) -> None:
    training = Training(tmp_path)
    for number in (1, 2):
        training.take(number)
        state = training.trainer.state
        layer: Any = training.module[0]  # type: ignore[index]
        assert (layer.weight.detach().numpy() * 2.0**SCALE == state["0.weight"]).all()
        kept = training.optimizer.state[layer.weight]["momentum_buffer"]
        assert (kept.numpy() * 2.0**SCALE == state["0.weight.momentum_buffer"]).all()
    points = training.trainer.points_for_segment([1, 2])
    assert points is not None
    assert points[0].after == points[1].before
    assert training.trainer.distance <= 1


def test_what_adam_counts_comes_back_from_the_kept_states(tmp_path: Path) -> None:
    training = Training(tmp_path, adam, others=POWERS)
    for number in (1, 2, 3):
        training.take(number)
    (tmp_path / "checkpoint").mkdir()
    write_components(tmp_path / "checkpoint", training.trainer.capture())
    again = Training(tmp_path, adam, others=POWERS)
    again.trainer.load(tmp_path / "checkpoint")
    assert again.trainer.state.keys() == training.trainer.state.keys()
    assert all((again.trainer.state[name] == value).all() for name, value in training.trainer.state.items())
    assert again.trainer.state["optimizer.beta1_power"].tolist() == [2985]  # 0.9^3, rounded in each step
    training.take(4)
    again.take(4)
    assert all((again.trainer.state[name] == value).all() for name, value in training.trainer.state.items())
    with pytest.raises(UsageError, match=r"start values are needed of optimizer\.beta1_power"):
        Training(tmp_path, adam)


def test_a_step_that_ezkl_computes_otherwise_is_refused(tmp_path: Path) -> None:
    training = Training(tmp_path, within=3)
    training.engine.bend = lambda after: after + 4 * (np.arange(after.size) == 2)
    with pytest.raises(
        Refused, match=r"0\.weight: ezkl's step lies [345] units of the grid away from PyTorch's, 3 are"
    ):
        training.take(1)
    training.engine.satisfied = False
    with pytest.raises(Refused, match="leaves ezkl's ranges"):
        training.take(1)
    assert not training.trainer.open_steps


def test_a_state_that_no_float_holds_is_refused(tmp_path: Path) -> None:
    training = Training(tmp_path, within=1 << 30)
    training.engine.bend = lambda after: after + (1 << 24) * (np.arange(after.size) == 0)
    with pytest.raises(Refused, match=r"0\.weight: a value beyond 24 bits is no float32"):
        training.take(1)


def opened(training: Training, **change: Any) -> tuple[list[TensorEntry], list[TensorEntry]]:
    """The files of a state: the model's, and the rest."""
    from pot.zk.training import integer_safetensors

    state = {**training.trainer.state, **change}
    floats = {
        name: value.detach().numpy().astype("<f4") for name, value in training.module.state_dict().items()
    }  # fmt: skip
    model = [TensorEntry(name, "F32", value.shape, value.tobytes()) for name, value in sorted(floats.items())]
    rest = integer_safetensors({name: value for name, value in state.items() if name.endswith("_buffer")})
    return model, entries_from_safetensors(rest)


def test_opened_states_of_family_auto_are_read_like_those_of_float_training(tmp_path: Path) -> None:
    training = Training(tmp_path)
    program = training.step.program
    first = opened(training)
    with pytest.raises(Malformed, match="between the points of the program's grid"):
        state_of(program, *first, semantics="float")
    start = state_of(program, *first, semantics="float", start=True)  # the nearest points of a parent's release
    assert all((start[name] == value).all() for name, value in training.trainer.state.items())
    check_fresh(program, start)
    training.take(1)
    last = state_of(program, *opened(training), semantics="float")
    assert all((last[name] == value).all() for name, value in training.trainer.state.items())
    with pytest.raises(Malformed, match="is not that of a fresh optimizer"):
        check_fresh(program, last)
    with pytest.raises(Malformed, match="12 fraction bits, quantise/1 has 28"):
        state_of(program, *opened(training), semantics="exact")
    model, rest = opened(training)
    with pytest.raises(Malformed, match=r"hold no tensor 0\.bias\.momentum_buffer"):
        state_of(program, model, [item for item in rest if "bias" not in item.name], semantics="float")


def test_what_does_not_fit_a_block_costs_another_one() -> None:
    assert [blocks(12, rows) for rows in (1, 4032, 4033, 8064, 8065)] == [1, 1, 2, 2, 3]
    small, large = auto_cost(12, 4, 4000), auto_cost(12, 4, 4100)
    assert 6 < small.seconds < 9  # 6.9 were measured
    assert large.seconds > 1.7 * small.seconds
    assert large.bytes > 1.7 * small.bytes
