"""A54, family auto: graphs that do not prove what they say. A power of -1, -2 or 0 is the identity for ezkl.

Nothing of ezkl's own tells, not even its constraint check; so no family of ours writes a power that it has not spelled
out as products, and refuses the model's line instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ezkl")
pytest.importorskip("onnx")
pytest.importorskip("torch")

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from real_steps import ENGINE, reference_string
from step_attacks import RUN, SECRET
from torch import nn

from pot.canonical import sha256_hex, write_file
from pot.errors import Refused, UsageError
from pot.recording.transcript import Points
from pot.zk import auto_family, auto_graph, auto_onnx, verifier
from pot.zk.auto import auto_step
from pot.zk.auto_onnx import operations_of
from pot.zk.auto_program import AutoProgram, AutoStep
from pot.zk.auto_steps import next_state
from pot.zk.circuits.field import MODULUS
from pot.zk.kit import ProvingKit, build_kit, commit_points
from pot.zk.lower import lower_step
from pot.zk.proof import StepProof
from pot.zk.prover import prove_step
from pot.zk.trace import Field

SCALE, LOGROWS = 8, 11
NUMBERS = [1.0, 2.0, 4.0, 0.5, -2.0]
FIELDS = {"image": Field("unsigned", (4,), bits=4, width=5)}
ARGUMENTS = {
    "input_scale": SCALE, "param_scale": SCALE, "scale_rebase_multiplier": 1, "logrows": LOGROWS, "num_inner_cols": 2,
    "input_visibility": "private", "output_visibility": "public", "param_visibility": "fixed",
    "lookup_range": [-512, 512], "decomp_base": 512, "decomp_legs": 3, "check_mode": "unsafe",
}  # fmt: skip


class Power(nn.Module):
    """A layer's outputs, all above one, to a power."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.layer, self.exponent = nn.Linear(4, 2), exponent

    def forward(self, values: Any) -> Any:
        found = self.layer(values)
        return (found * found + 1) ** self.exponent


def loss(module: Any, batch: Any) -> Any:
    return module(batch["image"]).sum()


def step_of(exponent: float) -> Any:
    module = Power(exponent)
    return auto_step(module, loss, torch.optim.SGD(module.parameters(), lr=2.0**-10), FIELDS, batch=2)


def power_graph(exponent: float) -> bytes:
    """y = x ** exponent."""
    size = len(NUMBERS)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy")
    constant = numpy_helper.from_array(np.float32(exponent), "e")
    graph = helper.make_graph([helper.make_node("Pow", ["x", "e"], ["y"])], "power", [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


@pytest.mark.parametrize("exponent", [-1, -2, 0])
def test_a54_ezkl_proves_that_a_power_is_what_it_is_of(exponent: int, tmp_path: Path) -> None:
    srs = reference_string(LOGROWS)
    settings = ENGINE.settings(power_graph(exponent), ARGUMENTS)
    (tmp_path / "part").mkdir()
    key = ENGINE.setup(power_graph(exponent), settings, srs, tmp_path / "part").verifying_key
    write_file(tmp_path / "srs", srs)
    write_file(tmp_path / "part" / "vk", key)
    integers = [int(number * 2**SCALE) % MODULUS for number in NUMBERS]
    assert ENGINE.mock(tmp_path / "part", [integers]) == (True, integers)
    proof = ENGINE.prove(tmp_path / "part", [integers], integers)
    assert ENGINE.verify([(proof, integers)], settings, key, srs) == [True]
    right = [int(number**exponent * 2**SCALE) % MODULUS for number in NUMBERS]
    assert right != integers
    assert ENGINE.verify([(proof, right)], settings, key, srs) == [False]


@pytest.mark.parametrize("exponent", [-1, -2, -0.5])
def test_a54_no_family_takes_a_power_that_is_no_product(exponent: float) -> None:
    rng = np.random.default_rng(0)
    examples = [{"image": rng.integers(0, 17, 4).tolist()} for _ in range(8)]
    module = Power(exponent)
    with pytest.raises(UsageError, match=r"line .* a power of .* has no rule"):
        lower_step(module, loss, torch.optim.SGD(module.parameters(), lr=2.0**-10), FIELDS, examples, batch=2)
    with pytest.raises(UsageError, match=r"line .* operation pow cannot be written"):
        step_of(exponent)


def test_a54_only_the_white_list_keeps_a_power_out_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Pow" not in operations_of(step_of(2).onnx)
    monkeypatch.setitem(auto_onnx.TWOS, "pow", "Pow")  # type: ignore[misc]
    assert operations_of(step_of(-1).onnx).count("Pow") == 1  # of the gradient, with -2


def step_of_nobodys_model(nodes: list[Any]) -> AutoStep:
    """A graph that no tracing wrote: from w, x and the blinds b to what it calls `next`."""
    size, blinds = 4, auto_family.BLINDS
    integers = {"none": 0, "size": size, "eight": 2 * size, "axis": 0}
    constants = [numpy_helper.from_array(np.array([value], np.int64), name) for name, value in integers.items()]
    constants += [numpy_helper.from_array(np.float32(value), name) for name, value in (("e", -1), ("zero", 0))]
    given = [
        helper.make_node("Slice", [source, "none", "size", "axis"], [name])
        for source, name in (("before", "w"), ("batch", "x"))
    ]
    nodes = [*given, *nodes, helper.make_node("Concat", ["next", "blinds"], ["after"], axis=0)]
    sizes = {"before": size + blinds, "batch": size + blinds, "blinds": blinds, "after": size + blinds}
    *ins, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [count]) for name, count in sizes.items())
    graph = helper.make_graph(nodes, "step", ins, [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = bytes(model.SerializeToString(deterministic=True))
    value = {
        "version": "pot/auto-program/v1", "label": "a step", "batch": 1, "max_steps": 16,
        "state": [{"name": "w", "shape": [size]}], "scale": SCALE, "lookup_bits": 10, "limb_bits": 9, "limbs": 3,
        "fields": [{"name": "x", "shape": [1, size], "kind": "unsigned", "bits": 4, "width": 5}],
        "onnx_sha256": sha256_hex(data),
    }  # fmt: skip
    return AutoStep(AutoProgram.from_value(value, what="step"), data)


def node(kind: str, *names: str) -> Any:
    """An operation that reads all of the names but the last, and makes that."""
    return helper.make_node(kind, list(names[:-1]), [names[-1]])


MOVED_BY_B = [
    node("Mul", "x", "zero", "none of x"), node("Add", "w", "none of x", "same"), node("Add", "same", "b", "next"),
]  # fmt: skip
STATE, DATA = {"w": np.array([256, 512, 128, 64])}, {"x": np.array([[1, 2, 3, 4]])}


def accepted(kit: ProvingKit, proof: StepProof, after: dict[str, Any]) -> None:
    """The verifier takes the proof for a step from the state above to this one."""
    found = commit_points(kit.verifying, SECRET, [(0, STATE), (1, after)], [(1, DATA)], ENGINE)
    points = Points(before=found[0], batch=found[2], after=found[1])
    verifier.verify_step(
        proof, kit=kit.verifying, circuit_sha256=kit.circuit.sha256(), expected=verifier.Expected(RUN, 1, points),
        engine=ENGINE,
    )  # fmt: skip


def test_a54_a_graph_of_others_with_a_power_has_no_circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """w' = w ** -1: where any operation is taken, all files follow from the graph, and proofs verify of w' = 256 w."""
    nodes = [node("Pow", "w", "e", "p"), node("Mul", "x", "zero", "none of x"), node("Add", "p", "none of x", "next")]
    step, srs = step_of_nobodys_model(nodes), reference_string(LOGROWS)
    with pytest.raises(Refused, match="holds Pow"):
        build_kit(step, srs, tmp_path / "kit", ENGINE)
    monkeypatch.setattr(auto_graph, "WRITTEN", auto_onnx.WRITTEN | {"Pow"})
    kit = build_kit(step, srs, tmp_path / "kit", ENGINE)
    verifier.check_circuit(kit.verifying, ENGINE)
    after = next_state(kit, STATE, DATA, ENGINE)
    assert after["w"].tolist() == (STATE["w"] << SCALE).tolist()
    proof = prove_step(
        kit, secret=SECRET, precommit_sha256=RUN, number=1, state=STATE, batch=DATA, after=after, engine=ENGINE
    )
    accepted(kit, proof, after)
    monkeypatch.undo()
    with pytest.raises(Refused, match="holds Pow"):
        verifier.check_circuit(kit.verifying, ENGINE)


@pytest.mark.parametrize("source", ["blinds", "before", "batch"])
def test_a54_a_graph_whose_step_reads_blinds_has_no_circuit(source: str, tmp_path: Path) -> None:
    """Blinds are whatever the prover says: with them in the sum, any next state is a right one."""
    ends = ("none", "size") if source == "blinds" else ("size", "eight")
    nodes = [
        helper.make_node("Slice", [source, *ends, "axis"], ["b"]),
        *MOVED_BY_B,
    ]
    step = step_of_nobodys_model(nodes)
    with pytest.raises(Refused, match=f"reads the blinds of {source}"):
        build_kit(step, reference_string(LOGROWS), tmp_path / "kit", ENGINE)


def _swapped(model: Any) -> None:
    before, batch, blinds = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend([batch, before, blinds])


def _older(model: Any) -> None:
    model.opset_import[0].version = 9


def _with_a_function(model: Any) -> None:
    one = helper.make_function("", "Add", ["a", "b"], ["c"], [node("Mul", "a", "b", "c")], model.opset_import)
    model.functions.append(one)


def _with_attributes(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("ends", [8]))


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (
            _swapped,
            "none of a step",
        ),  # `before` would be the batch's point: each state the prover's choice
        (_older, "of version 17"),  # a Slice of version 9 reads its attributes, and not the inputs that are looked at
        (_with_a_function, "defines its own"),
        (_with_attributes, "reads the blinds of before"),
    ],
)
def test_a54_a_graph_that_reads_as_another_is_refused(bend: Any, words: str) -> None:
    nodes = [node("Mul", "x", "zero", "none of x"), node("Add", "w", "none of x", "next")]
    model = onnx.load_from_string(step_of_nobodys_model(nodes).onnx)
    auto_graph.check_graph(model.SerializeToString(), auto_family.BLINDS)
    bend(model)
    with pytest.raises(Refused, match=words):
        auto_graph.check_graph(model.SerializeToString(), auto_family.BLINDS)


def test_a54_a_step_that_reads_blinds_proves_any_next_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        helper.make_node("Slice", ["blinds", "none", "size", "axis"], ["b"]),
        *MOVED_BY_B,
    ]
    monkeypatch.setattr(auto_family, "check_graph", lambda *_: None)
    kit = build_kit(step_of_nobodys_model(nodes), reference_string(LOGROWS), tmp_path / "kit", ENGINE)
    verifier.check_circuit(kit.verifying, ENGINE)
    wanted = [7, -1000, 12345, 0]
    chosen = [(new - old) % MODULUS for new, old in zip(wanted, STATE["w"].tolist(), strict=True)]
    monkeypatch.setattr(auto_family, "blinds_of", lambda *_: [chosen + [0] * (auto_family.BLINDS - len(chosen))])
    after = {"w": np.array(wanted)}
    proof = prove_step(
        kit, secret=SECRET, precommit_sha256=RUN, number=1, state=STATE, batch=DATA, after=after, engine=ENGINE
    )
    monkeypatch.undo()
    verifier.verify_step(
        proof, kit=kit.verifying, circuit_sha256=kit.circuit.sha256(),
        expected=verifier.Expected(RUN, 1, proof.points), engine=ENGINE,
    )  # fmt: skip
