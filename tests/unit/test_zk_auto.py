"""Family auto: the ONNX of a step computes what PyTorch computes, ezkl reads it, and the rest is refused."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from lowered_steps import BATCH, FLAT, IMAGE, TEXT, Block, cross_entropy, half_squares, mlp, next_word, records, sgd  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from torch import nn  # noqa: E402

from attest.verdict.sentences import Proven, steps_sentence  # noqa: E402
from pot.canonical import sha256_hex  # noqa: E402
from pot.errors import Malformed, Refused, UsageError  # noqa: E402
from pot.zk.auto import AutoStep, auto_step  # noqa: E402
from pot.zk.auto_family import BLINDS, INPUTS, AutoFamily  # noqa: E402
from pot.zk.auto_program import AutoProgram  # noqa: E402
from pot.zk.circuit import Circuit, CircuitPart  # noqa: E402
from pot.zk.circuits.parts import Shape  # noqa: E402
from pot.zk.family import family_of  # noqa: E402
from pot.zk.lowering.optimizers import Sgd  # noqa: E402
from pot.zk.semantics.digits import digits_program  # noqa: E402
from pot.zk.semantics.program import Program  # noqa: E402
from pot.zk.trace import Field, torch_batch  # noqa: E402


def layers(*found: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(*found)


def adam(parameters: Any) -> Any:
    return torch.optim.Adam(parameters, lr=1e-3, eps=1e-3)


def adamw(parameters: Any) -> Any:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1, eps=1e-3)


CASES: dict[str, Any] = {
    "relu": (mlp, cross_entropy, FLAT, sgd(0.1)),
    "momentum and decay": (mlp, half_squares, FLAT, sgd(0.1, momentum=0.9, weight_decay=0.01)),
    "gelu, norm": (
        lambda: layers(nn.Linear(64, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 5)), cross_entropy, FLAT, adam,
    ),
    "silu, tanh": (
        lambda: layers(nn.Linear(64, 6), nn.SiLU(), nn.Linear(6, 5), nn.Tanh()), half_squares, FLAT, adamw,
    ),
    "block": (Block, next_word, TEXT, sgd(0.1)),
}  # fmt: skip


def vectors(step: AutoStep, module: nn.Module, fields: Any) -> tuple[Any, Any]:
    state = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in step.program.state}
    state |= {name: np.ones(1, np.float32) for name in state if name.startswith("optimizer.")}
    state |= {name: value.detach().numpy() for name, value in module.named_parameters()}
    before = np.concatenate([state[tensor.name].reshape(-1) for tensor in step.program.state])
    integers = step.program.batch_integers(step.program.batch_arrays(records(fields)[:BATCH]))
    return before, np.array(integers, np.float32) / np.float32(1 << step.program.scale)


def given(before: Any, batch: Any) -> dict[str, Any]:
    """Inputs of a graph, with blinds."""
    blinds = np.arange(BLINDS, dtype=np.float32)
    joined = {"before": [before, blinds], "batch": [batch, blinds], "blinds": [blinds + 1]}
    return {name: np.concatenate(parts) for name, parts in joined.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_graph_computes_what_pytorch_computes(case: str) -> None:
    make, loss, fields, optimizer = CASES[case]
    module = make()
    step = auto_step(module, loss, optimizer(module.parameters()), fields, batch=BATCH)
    before, batch = vectors(step, module, fields)
    (after,) = ReferenceEvaluator(onnx.load_from_string(step.onnx)).run(None, given(before, batch))
    trained = copy.deepcopy(module)
    made = optimizer(trained.parameters())
    loss(trained, torch_batch(fields, records(fields)[:BATCH])).backward()
    made.step()
    weights = np.concatenate([value.detach().numpy().reshape(-1) for value in trained.parameters()])
    assert after.size == before.size + BLINDS
    assert (after[before.size :] == np.arange(1, BLINDS + 1)).all()
    assert np.abs(after[: weights.size] - weights).max() < 1e-6
    assert np.abs(before[: weights.size] - weights).max() > 1e-4


def test_no_power_is_written_and_the_bytes_are_the_same_twice() -> None:
    make, loss, fields, optimizer = CASES["gelu, norm"]
    module = make()
    first, second = (auto_step(module, loss, optimizer(module.parameters()), fields, batch=BATCH) for _ in range(2))
    assert first.onnx == second.onnx
    kinds = {node.op_type for node in onnx.load_from_string(first.onnx).graph.node}
    assert "Pow" not in kinds
    assert {"Erf", "Softmax", "Reciprocal"} <= kinds


@pytest.mark.parametrize(
    ("make", "fields", "words"),
    [
        (lambda: layers(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 5)), IMAGE, "operation convolution cannot be"),
        (lambda: layers(nn.Linear(64, 5), nn.Dropout(0.5)), FLAT, "random numbers have no place in a step"),
        (lambda: layers(nn.Linear(64, 5), nn.BatchNorm1d(5)), FLAT, "keeps statistics while it trains"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_line(make: Any, fields: Any, words: str) -> None:
    module = make()
    with pytest.raises(UsageError, match=words) as caught:
        auto_step(module, cross_entropy, torch.optim.SGD(module.parameters(), lr=0.1), fields, batch=BATCH)
    assert ".py, line" in str(caught.value)


def tiny(**sizes: int) -> AutoStep:
    module = layers(nn.Linear(64, 5))
    return auto_step(
        module, cross_entropy, torch.optim.SGD(module.parameters(), lr=0.1), FLAT, batch=BATCH, label="tiny", **sizes
    )


def test_a_step_is_a_document_that_names_its_graph() -> None:
    step = tiny(scale=10)
    program = AutoProgram.from_bytes(step.program.to_bytes(), what="program")
    assert program == step.program
    assert program.onnx_sha256 == sha256_hex(step.onnx)
    assert [(tensor.name, tensor.shape) for tensor in program.state] == [("0.weight", [5, 64]), ("0.bias", [5])]
    assert (program.parameters, program.batch, program.scale) == (325, BATCH, 10)
    with pytest.raises(Malformed, match="is pot/auto-program/v1, pot/step-program/v1 is expected"):
        Program.from_bytes(step.program.to_bytes(), what="program")


def test_integers_of_auto_are_those_of_the_records_on_the_grid() -> None:
    program = tiny(scale=10).program
    batch = program.batch_arrays(records(FLAT)[:BATCH])
    integers = program.batch_integers(batch)
    assert integers[: BATCH * 64] == (batch["image"].reshape(-1) << 6).tolist()  # 4 of 10 fraction bits
    assert integers[BATCH * 64 :] == (batch["label"].reshape(-1) << 10).tolist()
    assert sum(integers[BATCH * 64 :]) == BATCH << 10
    state = {"0.weight": np.full((5, 64), -3), "0.bias": np.arange(5)}
    found = program.state_tensors(program.state_integers(state))
    assert found.keys() == state.keys()
    assert all((found[name] == state[name]).all() for name in state)


def bent_states() -> list[tuple[dict[str, Any], str]]:
    whole = {"0.weight": np.zeros((5, 64), np.int64), "0.bias": np.zeros(5, np.int64)}
    words = r"state: 0\.bias must be an int64 tensor of shape \[5\]"
    return [
        ({"0.weight": whole["0.weight"]}, words),
        ({**whole, "0.bias": np.zeros((5, 1), np.int64)}, words),
        ({**whole, "0.bias": np.zeros(5, np.float32)}, words),
        ({**whole, "0.bias": np.full(5, 1 << 16)}, r"0\.bias holds an integer outside -65535\.\.65535"),
    ]


@pytest.mark.parametrize(("state", "words"), bent_states())
def test_a_state_that_is_none_of_an_auto_step(state: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        tiny(scale=10).program.state_integers(state, start=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 0}, "batch is 0: give a whole number from 1 to 4096"),
        ({"scale": 3}, "scale is 3: give a whole number from 4 to 20"),
        ({"fields": {**FLAT, "image": Field("unsigned", (64,), bits=4, width=40)}}, "width is 40: give a whole number"),
        ({"fields": {"image": FLAT["image"]}}, "the loss reads 'label' of a batch, which has image"),
        ({"trainable": ["none"]}, "trainable: the module has no none"),
    ],
)
def test_arguments_that_no_auto_program_can_have_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        auto_step(mlp(), cross_entropy, Sgd(0.5), **{"fields": FLAT, "batch": BATCH, **change})


def test_a_field_finer_than_the_grid_is_refused() -> None:
    program = tiny(scale=10).program
    field = program.fields[0].model_copy(update={"bits": 11})
    finer = program.model_copy(update={"fields": [field, program.fields[1]]})
    with pytest.raises(Malformed, match="image: 11 fraction bits are more than the step's 10"):
        finer.batch_integers(finer.batch_arrays(records(FLAT)[:BATCH]))


SETTINGS: dict[str, Any] = {
    "timestamp": 7, "required_lookups": [{"Exp": 1}, {"Erf": 1}], "required_range_checks": [[0, 1023], [-1, 1]],
    "einsum_params": {"equations": [["b", {"k": 1, "a": 2}], ["a", {"i": 1}]]}, "num_rows": 9,
    "model_input_scales": [12, 12, 12], "model_output_scales": [12],
    "module_sizes": {"polycommit": [341, 292, 16, 341]},
}  # fmt: skip


def canonical(**change: Any) -> bytes:
    step = tiny()
    (draft,) = AutoFamily(step.program, step.onnx).plan(Shape(15, 2, BLINDS)).drafts
    return draft.canonical(json.dumps({**SETTINGS, **change}).encode())


def test_settings_of_auto_come_out_in_one_order() -> None:
    turned = {name: SETTINGS[name][::-1] for name in ("required_lookups", "required_range_checks")}
    equations = {"equations": [["a", {"i": 1}], ["b", {"a": 2, "k": 1}]]}
    assert canonical() == canonical(timestamp=8, einsum_params=equations, **turned)
    assert canonical() != canonical(num_rows=10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_output_scales": [24]}, "another scale than the state"),  # equal points would not link two steps
        ({"module_sizes": {"polycommit": [341, 292, 341]}}, "not to those of the step"),
        ({"einsum_params": None}, "do not have the expected form"),
        ({"num_rows": None}, "do not have the expected form"),
    ],
)
def test_settings_that_are_not_as_designed_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        canonical(**change)


def test_rows_and_columns_of_auto() -> None:
    """The fewest columns in all: what needs a second block of rows counts as many columns again."""
    step = tiny()
    family = AutoFamily(step.program, step.onnx)
    rows = {2: 70_000, 3: 65_000, 4: 32_000, 6: 31_000, 8: 20_000}
    seen: list[dict[str, Any]] = []

    def settings(_: bytes, arguments: dict[str, Any]) -> bytes:
        seen.append(arguments)
        return json.dumps({"num_rows": rows[arguments["num_inner_cols"]]}).encode()

    engine: Any = SimpleNamespace(settings=settings)
    assert family.shape(15, None, engine) == Shape(15, 4, BLINDS)
    assert seen[0]["input_scale"] == seen[0]["param_scale"] == 12
    assert family.shape(15, 5, engine) == Shape(15, 5, BLINDS)
    with pytest.raises(UsageError, match=r"2\^14 rows: its limbs need 15 to 20"):
        family.shape(14, None, engine)
    with pytest.raises(UsageError, match=r"a vector of 341 elements does not fit 2\^8 rows"):
        family.layout(8, BLINDS)
    with pytest.raises(UsageError, match=r"give step\.onnx"):
        AutoFamily(step.program).plan(Shape(15, 2, BLINDS))


def auto_circuit(step: AutoStep) -> Circuit:
    part = CircuitPart(
        inputs=INPUTS, powers=[], onnx_sha256=step.program.onnx_sha256, settings_sha256="00" * 32,
        vk_sha256="11" * 32, proof_bytes="9000",
    )  # fmt: skip
    return Circuit(
        version="pot/circuit/v2", family="auto", label="tiny", program_sha256=step.program.sha256(), batch=BATCH,
        parameters=325, max_steps=65536, logrows=15, columns=2, blinds=BLINDS, ezkl_version="23.0.5",
        srs_sha256="22" * 32, parts=[part],
    )  # fmt: skip


def test_what_a_circuit_of_auto_may_say() -> None:
    step = tiny()
    family, circuit = AutoFamily(step.program, step.onnx), auto_circuit(step)
    assert Circuit.from_bytes(circuit.to_bytes(), what="circuit") == circuit
    family.check(circuit)
    assert family.reads_all(circuit)
    assert family.public([1, 2, 3, 4, 5], circuit.parts[0]) == []
    part = circuit.parts[0]
    bent: list[tuple[dict[str, Any], str]] = [
        ({"family": "exact"}, "none of family auto"),
        ({"constants_point": "00" * 64}, "none of family auto"),
        ({"parts": [part, part]}, "none of family auto"),
        ({"parts": [part.model_copy(update={"powers": [[0, 1, 2]]})]}, "none of family auto"),
        ({"parts": [part.model_copy(update={"onnx_sha256": "33" * 32})]}, "of another graph"),
        ({"blinds": 8}, "8 blinds, 16 are needed"),
    ]
    for change, words in bent:
        with pytest.raises(Refused, match=words):
            family.check(circuit.model_copy(update=change))
    with pytest.raises(Refused, match="the graph has another sha256"):
        AutoFamily(step.program, step.onnx + b"0").check(circuit)
    with pytest.raises(Refused, match="none of exact integers"):
        family_of(digits_program()).check(circuit)
    for inputs in (INPUTS[:-1], ["batch.0", "before.0", "witness.0", "after.0"]):
        assert not family.reads_all(circuit.model_copy(update={"parts": [part.model_copy(update={"inputs": inputs})]}))


def test_a_claim_about_auto_names_the_family_and_what_it_leaves_open() -> None:
    plain, auto = Proven(3, 3), Proven(3, 3, auto=True)
    words = steps_sentence(auto)
    assert words.startswith(steps_sentence(plain))
    assert "family auto: each rescale right to one unit in the last place, in either direction" in words
    assert "family" not in steps_sentence(plain)


def test_an_eps_that_the_grid_does_not_hold_is_refused() -> None:
    """A root of 0 would be divided by, and a steered unit of the root would be worth any step."""
    model = layers(nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with pytest.raises(UsageError, match=r"eps is 1e-08, which is nothing on a grid of 2\^-12"):
        auto_step(model, cross_entropy, optimizer, {"image": Field("unsigned", (4,), bits=4, width=5)}, batch=2)
