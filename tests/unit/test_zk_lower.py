"""Lowering: which layers, losses and optimizers become programs, how near one step stays, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from integer_oracle import run_slowly  # noqa: E402
from lowered_steps import (  # noqa: E402
    BATCH,
    FLAT,
    IMAGE,
    TEXT,
    Adapted,
    Block,
    both,
    cross_entropy,
    half_squares,
    mean_squares,
    mlp,
    next_word,
    records,
    sgd,
)  # fmt: skip
from torch import nn  # noqa: E402

from pot.errors import Malformed, UsageError  # noqa: E402
from pot.zk.lower import lower_step, start_state, step_program  # noqa: E402
from pot.zk.lowering.optimizers import Adam, Sgd  # noqa: E402
from pot.zk.lowering.rules_losses import COEFFICIENT_BITS, EXPONENTIAL  # noqa: E402
from pot.zk.lowering.values import dyadic, fraction  # noqa: E402
from pot.zk.semantics.batches import batch_arrays  # noqa: E402
from pot.zk.semantics.exact import run  # noqa: E402
from pot.zk.trace import Field  # noqa: E402

RATE = sgd(1 / 16)


def lowered(module: Any, loss: Any = cross_entropy, optimizer: Any = None, fields: Any = FLAT, **options: Any) -> Any:
    made = optimizer or Sgd(1 / 16)
    return lower_step(module, loss, made, fields, records(fields), batch=BATCH, calibration_steps=4, **options)


def images(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(*layers)


CASES: dict[str, Any] = {
    "softmax": (lambda: images(nn.Linear(64, 5)), cross_entropy, FLAT, 2e-3),
    "half squares": (mlp, half_squares, FLAT, 2e-2),
    "mean squares": (mlp, mean_squares, FLAT, 2e-2),
    "cross-entropy": (mlp, cross_entropy, FLAT, 2e-2),
    "leaky": (lambda: images(nn.Linear(64, 8), nn.LeakyReLU(0.125), nn.Linear(8, 5)), cross_entropy, FLAT, 2e-2),
    "norm": (lambda: images(nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 5)), cross_entropy, FLAT, 2e-2),
    "root mean square": (lambda: images(nn.Linear(64, 8), nn.RMSNorm(8), nn.Linear(8, 5)), cross_entropy, FLAT, 2e-2),
    "adapter": (Adapted, cross_entropy, FLAT, 2e-2),
    "block": (Block, next_word, TEXT, 3e-2),
    "average after relu": (
        lambda: images(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 5)),
        cross_entropy, IMAGE, 3e-2,
    ),
    "average before relu": (
        lambda: images(
            nn.Conv2d(1, 3, 3), nn.AvgPool2d(2), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(16, 5)
        ),
        cross_entropy, IMAGE, 3e-2,
    ),
    "overlapping average": (
        lambda: images(nn.Conv2d(1, 3, 3), nn.AvgPool2d(3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)),
        cross_entropy, IMAGE, 3e-2,
    ),
    "average that leaves a rim": (
        lambda: images(nn.Conv2d(1, 3, 2), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 5)),
        cross_entropy, IMAGE, 3e-2,
    ),
    "largest": (
        lambda: images(nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 5)),
        cross_entropy, IMAGE, 3e-2,
    ),
    "strides": (
        lambda: images(
            nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
        ),
        cross_entropy, IMAGE, 3e-2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_step_moves_weights_as_the_float_step_does(case: str) -> None:
    """With 32 bits, where roundings are fine; relus may still turn a sign, which the bound leaves room for."""
    make, loss, fields, bound = CASES[case]
    torch.manual_seed(2)
    course = both(make(), loss, RATE, fields, steps=1, weight_bits=32, calibration_steps=4)
    assert course.drift < bound


@pytest.mark.parametrize("case", ["cross-entropy", "largest", "block"])
def test_a_lowered_step_is_the_oracle_s(case: str) -> None:
    make, loss, fields, _ = CASES[case]
    torch.manual_seed(3)
    module = make()
    program = lowered(module, loss, fields=fields).program
    state, batch = start_state(program, module), batch_arrays(program, records(fields)[:BATCH])
    fast, slow = run(program, state, batch), run_slowly(program, state, batch)
    assert [values.reshape(-1).tolist() for values in fast.values] == slow


def test_the_same_inputs_give_the_same_bytes() -> None:
    torch.manual_seed(4)
    module = Block()
    first, second = (lowered(module, next_word, fields=TEXT).program.to_bytes() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "optimizer",
    [
        sgd(1 / 32, momentum=0.9),
        sgd(1 / 16, weight_decay=0.01),
        sgd(1 / 32, momentum=0.75, weight_decay=0.01),
        lambda parameters: torch.optim.Adam(parameters, lr=1 / 256, betas=(0.875, 0.984375), eps=1e-6),
        lambda parameters: torch.optim.Adam(parameters, lr=1 / 256, betas=(0.875, 0.984375), weight_decay=0.01),
        lambda parameters: torch.optim.AdamW(parameters, lr=1 / 256, betas=(0.875, 0.984375), weight_decay=0.01),
    ],
)
def test_optimizers_follow_their_float_counterparts(optimizer: Any) -> None:
    torch.manual_seed(5)
    course = both(images(nn.Linear(64, 5)), cross_entropy, optimizer, FLAT, steps=12)
    assert course.drift < 1e-2
    assert course.exact_losses[-1] == pytest.approx(course.losses[-1], abs=2e-3)


@pytest.mark.parametrize("limb_bits", [10, 12])
def test_adam_keeps_its_range_with_small_limbs(limb_bits: int) -> None:
    torch.manual_seed(9)
    course = both(
        images(nn.Linear(64, 5)), cross_entropy, lambda parameters: torch.optim.Adam(parameters, lr=1 / 256), FLAT,
        steps=8, limb_bits=limb_bits,
    )  # fmt: skip
    assert course.drift < 0.1
    assert course.exact_losses[-1] < course.exact_losses[0]


def test_plain_sgd_rounds_no_weight() -> None:
    found = lowered(mlp(), half_squares)
    weights = {node.name: node for node in found.program.nodes if node.op == "state"}
    assert set(weights) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert found.notes == []
    assert sum(node.size for node in found.program.nodes if node.op == "round") == BATCH * (12 + 5 + 12)


def test_an_update_with_too_few_bits_to_lose_is_rounded_and_said_so() -> None:
    found = lowered(mlp(), half_squares, Sgd(2.0**-14))
    assert any("its update is rounded to 28 bits" in note for note in found.notes)


def test_slots_and_what_a_run_begins_with() -> None:
    module = images(nn.Linear(64, 5))
    program = lowered(module, optimizer=Adam(1 / 256)).program
    state = start_state(program, module)
    weight = module[0].weight.detach().double().numpy()  # type: ignore[union-attr, operator]
    assert np.abs(state["0.weight"] - weight * 2.0**28).max() <= 0.5
    powers = [node for node in program.nodes if node.name == "optimizer.beta2_power"]
    assert state["optimizer.beta2_power"].tolist() == [1 << powers[0].bits]
    assert not state["0.weight.exp_avg"].any()
    assert set(state) == {
        "0.weight", "0.weight.exp_avg", "0.weight.exp_avg_sq", "0.bias", "0.bias.exp_avg", "0.bias.exp_avg_sq",
        "optimizer.beta1_power", "optimizer.beta2_power",
    }  # fmt: skip


def test_a_start_that_is_no_number_is_refused() -> None:
    module = images(nn.Linear(64, 5))
    program = lowered(module).program
    with torch.no_grad():
        module[0].bias[0] = math.nan  # type: ignore[union-attr, operator, index]
    with pytest.raises(Malformed, match=r"0\.bias: holds NaN or infinity"):
        start_state(program, module)


def test_frozen_parameters_are_constants_and_leave_the_state() -> None:
    torch.manual_seed(6)
    program = lowered(Adapted()).program
    assert {program.nodes[index].name for index in program.states} == {"head.weight", "head.bias", "down", "up"}
    assert any(node.op == "constant" and node.size == 12 * 64 for node in program.nodes)


def test_trainable_names_choose_the_state() -> None:
    program = lowered(mlp(), trainable=["2.weight"]).program
    assert [program.nodes[index].name for index in program.states] == ["2.weight"]
    with pytest.raises(UsageError, match=r"trainable: the module has no nothing\.weight; its parameters are 0"):
        lowered(mlp(), trainable=["nothing.weight"])
    with pytest.raises(UsageError, match="no parameter is trained"):
        lowered(mlp(), trainable=[])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limb_bits": 4}, "limb_bits is 4: give a whole number from 8 to 18"),
        ({"limb_bits": 6}, "limb_bits is 6: give a whole number from 8 to 18"),
        ({"limb_bits": 14.0}, r"limb_bits is 14\.0: give a whole number"),
        ({"batch": 0}, "batch is 0: give a whole number from 1 to 4096"),
        ({"batch": True}, "batch is True: give a whole number"),
        ({"max_steps": 0}, "max_steps is 0: give a whole number"),
        ({"slack": 41}, "slack is 41: give a whole number from 0 to 40"),
        ({"calibration_steps": 0}, "calibration_steps is 0: give 1 or more"),
        (
            {"fields": {**FLAT, "image": Field("unsigned", (64,), bits=4, width=40)}},
            "field image: its width 40 must be",
        ),
        ({"limb_bits": 8, "fields": {**FLAT, "image": Field("unsigned", (64,), width=8)}}, "below limb_bits 8"),
    ],
)
def test_arguments_that_no_program_can_have_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        lower_step(
            mlp(), cross_entropy, Sgd(1 / 16), **{"fields": FLAT, "examples": records(FLAT), "batch": 4, **change}
        )


def test_slack_and_label_reach_the_program() -> None:
    program = step_program(
        mlp(), cross_entropy, Sgd(1 / 16), FLAT, records(FLAT), batch=BATCH, slack=9, label="mine", max_steps=77
    )
    assert {item.slack for item in program.next} == {9}
    assert (program.label, program.max_steps, program.batch) == ("mine", 77, BATCH)


def test_a_learning_rate_off_the_grid_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"learning rate 0.1 is no small multiple .* use lr=0.1015625 \(13/2\^7\)"):
        lowered(mlp(), optimizer=Sgd(0.1))
    found = lowered(mlp(), optimizer=Sgd(0.1), nearest_rate=True)
    assert "0.weight: learning rate 0.1 became 0.101562" in found.notes


REFUSED: dict[str, Any] = {
    "gelu": (lambda: images(nn.Linear(64, 5), nn.GELU()), r"\(in 1, GELU\): operation gelu.default has .*: use ReLU"),
    "dropout": (lambda: images(nn.Linear(64, 5), nn.Dropout(0.5)), r"\(in 1, Dropout\): random numbers have no place"),
    "other axis": (lambda: images(nn.Linear(64, 5), nn.Softmax(0)), r"another axis than the last has no rule"),
    "statistics": (
        lambda: images(nn.Linear(64, 5), nn.BatchNorm1d(5)).eval(), r"native_batch_norm.default has .*: use LayerNorm"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_layer_without_a_rule_is_refused_with_its_line_and_what_works(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(UsageError, match=words) as caught:
        lowered(make())
    assert "lowered_steps.py, line" in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Conv2d(1, 2, 3, dilation=2), "only Conv2d with groups=1 and dilation=1 has a rule"),
        (nn.AvgPool2d(2, padding=1), "avg_pool2d with padding has no rule"),
        (nn.MaxPool2d(2, padding=1), "max_pool2d with padding has no rule"),
        (nn.MaxPool2d(2, ceil_mode=True), "max_pool2d with dilation or ceil_mode has no rule"),
    ],
)
def test_forms_of_layers_that_have_no_rule_are_refused(layer: nn.Module, words: str) -> None:
    module = images(nn.Conv2d(1, 1, 1), layer, nn.Flatten(), nn.LazyLinear(5))
    module(torch.zeros(BATCH, 1, 8, 8))
    with pytest.raises(UsageError, match=words):
        lowered(module, fields=IMAGE)


def test_losses_that_have_no_rule_are_refused_with_what_works() -> None:
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    with pytest.raises(UsageError, match="leave label_smoothing and ignore_index out"):
        lowered(mlp(), lambda module, batch: smooth(module(batch["image"]), batch["label"]))
    absolute, one_hot = nn.functional.l1_loss, nn.functional.one_hot
    with pytest.raises(UsageError, match="has no rule: use mse_loss"):
        lowered(mlp(), lambda module, batch: absolute(module(batch["image"]), one_hot(batch["label"], 5).float()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.5, nesterov=True), "SGD with nesterov has no rule"),
        (lambda p: torch.optim.Adam(p, lr=0.5, amsgrad=True), "Adam with amsgrad has no rule"),
        (lambda p: torch.optim.Adagrad(p, lr=0.5), "optimizer Adagrad has no rule: use SGD, Adam or AdamW"),
        (lambda p: torch.optim.SGD(p[:1], lr=0.5), "the optimizer does not hold 0.bias, 2.weight, 2.bias"),
    ],
)
def test_optimizers_without_a_rule_are_refused(make: Any, words: str) -> None:
    module = mlp()
    with pytest.raises(UsageError, match=words):
        lowered(module, optimizer=make(list(module.parameters())))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sgd(0.0), r"lr is 0\.0: give a learning rate above 0"),
        (lambda: Sgd(float("nan")), "lr is nan: "),
        (lambda: Sgd(0.5, weight_decay=-1.0), r"weight_decay is -1\.0: give 0 or more"),
        (lambda: Sgd(0.5, momentum=1.0), r"momentum is 1\.0: give 0 or more, below 1"),
        (lambda: Adam(0.5, betas=(0.9, 1.0)), r"beta2 is 1\.0: give 0 or more, below 1"),
    ],
)
def test_numbers_of_optimizers_outside_their_range_are_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_parameter_groups_keep_their_own_rates() -> None:
    """The second layer at half the rate moves half as far in the first step."""
    torch.manual_seed(8)
    module, data = mlp(), records(FLAT)
    groups = [{"params": module[0].parameters()}, {"params": module[2].parameters(), "lr": 1 / 16}]  # type: ignore[index]
    moves = []
    for optimizer in (torch.optim.SGD(groups, lr=1 / 8), torch.optim.SGD(module.parameters(), lr=1 / 8)):
        program = lowered(module, half_squares, optimizer).program
        state = start_state(program, module)
        after = run(program, state, batch_arrays(program, data[:BATCH])).next
        moves.append({name: np.abs(after[name] - state[name]).sum() for name in state})
    assert moves[1]["2.bias"] / moves[0]["2.bias"] == pytest.approx(2, rel=0.02)
    assert moves[1]["0.bias"] / moves[0]["0.bias"] == pytest.approx(1, rel=0.02)


def test_too_few_examples_and_diverging_training_are_refused() -> None:
    with pytest.raises(UsageError, match="2 examples are given, a batch takes 4"):
        lower_step(mlp(), cross_entropy, Sgd(0.5), FLAT, records(FLAT)[:2], batch=BATCH)
    with pytest.raises(UsageError, match="diverges at step"):
        lower_step(mlp(), half_squares, Sgd(512.0), FLAT, records(FLAT), batch=BATCH)


def test_a_constant_too_large_for_a_program_is_refused() -> None:
    module = nn.Sequential(nn.Linear(64, 1100), nn.ReLU(), nn.Linear(1100, 5))
    module[0].requires_grad_(False)
    with pytest.raises(UsageError, match=r"a constant of 70400 numbers is too large .*give the features"):
        lowered(module)


def test_the_polynomial_is_within_1e_5_of_the_exponential() -> None:
    x = np.linspace(-2, 0, 10001)
    found = sum(number * 2.0**-COEFFICIENT_BITS * x**power for power, number in enumerate(EXPONENTIAL))
    assert np.abs(found**4 - np.exp(4 * x)).max() < 1e-5


def test_attention_masks_give_exactly_no_weight_to_what_is_hidden() -> None:
    torch.manual_seed(7)
    module = Block()
    program = lowered(module, next_word, fields=TEXT).program
    values = run(program, start_state(program, module), batch_arrays(program, records(TEXT)[:BATCH])).values
    shares = [values[at] for at, node in enumerate(program.nodes) if node.op == "divide" and node.shape[-1] == 4]
    hidden = np.triu(np.ones((4, 4), bool), 1)
    assert shares
    for share in shares:
        assert not share.reshape(-1, 4, 4)[:, hidden].any()
        assert (np.abs(share.sum(axis=-1) - (1 << 13)) <= 2).all()


@pytest.mark.parametrize("number", [1 / 80, 0.1, 0.7071067811865476, 3.0, -0.375, 1e-7])
def test_factors_are_found_again_and_come_near_on_the_grid(number: float) -> None:
    assert float(fraction(number)) == pytest.approx(number, rel=2**-22)
    m, k = dyadic(fraction(number))
    assert m % 2 == 1
    assert abs(m) < 1 << 12
    assert m * 2.0**-k == pytest.approx(number, rel=2**-12)


def test_features_of_a_frozen_part_are_committed_inputs() -> None:
    """The frozen part runs outside; its features, signed fractions, are a field of the records."""
    fields = {"features": Field("signed", (8,), bits=6, width=9), "label": Field("marks", (5,))}
    rng = np.random.default_rng(0)
    data = [{"features": rng.integers(-300, 300, 8).tolist(), "label": int(rng.integers(0, 5))} for _ in range(8)]
    head = images(nn.Linear(8, 5))

    def loss(module: Any, batch: Any) -> Any:
        return nn.functional.cross_entropy(module(batch["features"]), batch["label"])

    program = step_program(head, loss, Sgd(1 / 16), fields, data, batch=BATCH)
    (node,) = [node for node in program.nodes if node.name == "features"]
    assert (node.kind, node.bits, node.width) == ("signed", 6, 9)
    after = run(program, start_state(program, head), batch_arrays(program, data[:BATCH])).next
    assert (after["0.weight"] != start_state(program, head)["0.weight"]).any()
