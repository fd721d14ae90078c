"""Tracing a step: one graph, every operation with the line of the model behind it, and refusals that name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from lowered_steps import FLAT, TEXT, Block, cross_entropy, mlp, next_word, records  # noqa: E402
from torch import nn  # noqa: E402

from pot.errors import Malformed, UsageError  # noqa: E402
from pot.zk.semantics.batches import field_tensors  # noqa: E402
from pot.zk.trace import Field, place_of, torch_batch, trace  # noqa: E402


def traced(module: Any, loss: Any, fields: Any = FLAT) -> Any:
    batch = torch_batch(fields, records(fields)[:4])
    return trace(module, loss, fields, batch, [name for name, _ in module.named_parameters()])


def places(found: Any, operation: str) -> list[str]:
    return [place_of(node) for node in found.graph.graph.nodes if str(node.target).startswith(f"aten.{operation}.")]


def test_every_operation_names_the_line_and_the_submodule_that_asked_for_it() -> None:
    found = traced(Block(), next_word, TEXT)
    (line,) = places(found, "embedding")
    assert "lowered_steps.py, line" in line
    assert "x = self.words(tokens) + self.places (in words, Embedding)" in line
    assert all(
        "(in before, LayerNorm)" in one or "(in between, LayerNorm)" in one
        for one in places(found, "native_layer_norm")
    )


def test_backward_operations_name_the_line_whose_gradient_they_are() -> None:
    found = traced(Block(), next_word, TEXT)
    (line,) = places(found, "embedding_dense_backward")
    assert line.startswith("the gradient of ")
    assert "lowered_steps.py, line" in line


def test_the_graph_gives_the_gradients_that_autograd_gives() -> None:
    module = Block()
    found = traced(module, next_word, TEXT)
    batch = torch_batch(TEXT, records(TEXT, seed=5)[:4])
    names = [name for name, _ in module.named_parameters()]
    with torch.no_grad():
        gradients = found.graph([value.detach() for value in module.parameters()], *batch.values())
    next_word(module, batch).backward()
    assert found.outputs == names
    for name, gradient, parameter in zip(names, gradients, module.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-6), name


def test_marks_reach_the_model_as_ids_and_numbers_as_fractions() -> None:
    fields = {"image": Field("signed", (2, 2), bits=3, width=5), "label": Field("marks", (5,))}
    batch = torch_batch(fields, [{"image": [[8, -4], [1, 0]], "label": 3}])
    assert batch["image"].tolist() == [[[1.0, -0.5], [0.125, 0.0]]]
    assert batch["label"].tolist() == [3]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"label": 1, "pixels": []}, "field image: is missing; the record has label, pixels"),
        ({"image": [1] * 63, "label": 1}, "field image: holds 63 integers, 64 are expected"),
        ({"image": [[1] * 64] * 9, "label": 1}, "field image: holds more than 64 integers, 64 are expected"),
        ({"image": ["a"] * 64, "label": 1}, "field image: holds str, only integers"),
        ({"image": [7 / 16] * 64, "label": 1}, r"field image: holds 0\.4375, only integers.* are read as v / 2\^4"),
        ({"image": [1.0] * 64, "label": 1}, r"field image: holds 1\.0, only integers"),
        ({"image": [float("nan")] * 64, "label": 1}, "field image: holds nan, only integers"),
        ({"image": [True] * 64, "label": 1}, "field image: holds True, only integers"),
        ({"image": [32] * 64, "label": 1}, r"field image: holds an integer outside 0\.\.31"),
        ({"image": [-1] * 64, "label": 1}, r"field image: holds an integer outside 0\.\.31"),
        ({"image": [2**64 + 1] * 64, "label": 1}, r"field image: holds an integer outside 0\.\.31"),
        ({"image": [1] * 64, "label": 5}, r"field label: holds an integer outside 0\.\.4"),
        ({"image": [1] * 64, "label": True}, "field label: holds True, only integers"),
        ({"image": [1] * 64, "label": 1.5}, r"field label: holds 1\.5, only integers"),
    ],
)
def test_examples_that_do_not_fit_their_fields_are_refused(record: dict[str, Any], words: str) -> None:
    """Also by the tensors of training: what a step is calibrated on is what a run of it would take."""
    with pytest.raises(UsageError, match="record 1 of the batch, " + words):
        torch_batch(FLAT, [{"image": [1] * 64, "label": 1}, record])
    nodes = [Batch("image", "unsigned", [2, 64], 5), Batch("label", "marks", [2, 5], None)]
    with pytest.raises(Malformed, match="record 1 of the batch, " + words.partition(".*")[0]):
        field_tensors(2, nodes, [{"image": [1] * 64, "label": 1}, record])


@dataclass
class Batch:
    """A field as a step's document has it."""

    name: str
    kind: str
    shape: list[int]
    width: int | None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Field("float", (4,)), "Field 'float': give one of unsigned, signed, marks"),  # type: ignore[arg-type]
        (lambda: Field("marks", ()), r"Field marks of shape \(\): give lengths"),
        (lambda: Field("unsigned", (4, 0)), r"of shape \(4, 0\): give lengths from 1 on"),
        (lambda: Field("signed", (4,), width=0), "of width 0: give the bits"),
    ],
)
def test_fields_of_another_form_are_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_a_field_that_the_loss_reads_and_nobody_gave_is_named() -> None:
    fields = {"image": FLAT["image"]}
    with pytest.raises(UsageError, match="the loss reads 'label' of a batch, which has image: give it a Field"):
        traced(mlp(), cross_entropy, fields)


class Branching(nn.Module):
    """What it does depends on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 5)

    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            x = x * 2
        return self.layer(x)


def test_control_flow_that_reads_values_is_refused_with_its_line() -> None:
    with pytest.raises(
        UsageError, match=r"a value decides what Python does next.*test_zk_trace.py, line \d+: if x.sum"
    ):
        traced(Branching(), cross_entropy)


def test_a_layer_that_keeps_statistics_is_refused() -> None:
    module = nn.Sequential(nn.Linear(64, 5), nn.BatchNorm1d(5))
    with pytest.raises(UsageError, match=r"keeps statistics while it trains .*use LayerNorm"):
        traced(module, cross_entropy)


def test_a_loss_must_be_one_number() -> None:
    with pytest.raises(UsageError, match="the loss must be one number"):
        traced(mlp(), lambda module, batch: module(batch["image"]))


def test_one_hot_without_a_number_of_classes_is_refused() -> None:
    one_hot = nn.functional.one_hot
    with pytest.raises(UsageError, match="one_hot needs num_classes"):
        traced(mlp(), lambda module, batch: (module(batch["image"]) - one_hot(batch["label"])).sum())
