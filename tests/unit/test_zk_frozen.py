"""Frozen tensors in the trainers: out of a parent's release, through every checkpoint, into the released file."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_run import PROGRAM, SECRET, ExactRun, digest_points, start_weights, trainer

from pot.audit.screening.checkpoints import open_checkpoint
from pot.audit.screening.checks import screen
from pot.audit.screening.movement import measure
from pot.commitments.state import TensorEntry, entries_from_safetensors
from pot.errors import Malformed, Refused, UsageError
from pot.recording.state import safetensors_parts, write_components
from pot.zk.frozen import first_change
from pot.zk.runs.rewind import step_inputs
from pot.zk.semantics import exact
from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.builder import Builder
from pot.zk.training import (
    ExactTrainer,
    float_safetensors,
    from_release,
    integer_safetensors,
    read_state,
    weights_from_float,
)

FROZEN = (
    TensorEntry("body.half", "BF16", (3,), b"\x00\x80\xc1\x7f\x01\x02"),  # -0.0, a NaN with a payload
    TensorEntry("body.seen", "I64", (), struct.pack("<q", 41)),
    TensorEntry("body.weight", "F32", (2,), struct.pack("<f", 0.1) + b"\x01\x00\xc0\x7f"),
)


def released_file(frozen: Sequence[TensorEntry] = FROZEN) -> bytes:
    return float_safetensors(start_weights(), frozen)


def some_batch() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 17, (2, 4)), "label": np.eye(2, dtype=np.int64)}


def test_a_release_is_taken_apart_and_put_together_again_byte_for_byte() -> None:
    state, frozen = from_release(PROGRAM, released_file(), what="parent")
    assert sorted(entry.name for entry in frozen) == [entry.name for entry in FROZEN]
    source = trainer(state=state, frozen=list(reversed(frozen)))
    assert source.released() == released_file()
    model = source.capture()["model"]
    assert isinstance(model, list)
    names = [entry.name for entry in model if isinstance(entry, TensorEntry)]
    assert names == sorted(names)
    assert {"0.weight", "body.half"} < set(names)
    source.step(1, some_batch())
    after = entries_from_safetensors(source.released())
    assert first_change(FROZEN, [entry for entry in after if entry.name.startswith("body")]) is None
    assert {entry.dtype for entry in after if not entry.name.startswith("body")} == {"F32"}
    assert source.released() != released_file()


def test_a_checkpoint_holds_the_frozen_tensors_and_the_state_is_read_without_them(tmp_path: Path) -> None:
    source = trainer(frozen=FROZEN)
    source.step(1, some_batch())
    source.save(tmp_path)
    found = read_state(PROGRAM, tmp_path)
    assert found.keys() == source.state.keys()
    assert all((found[name] == source.state[name]).all() for name in found)
    other = trainer(frozen=FROZEN)
    other.load(tmp_path)
    assert other.released() == source.released()


def test_a_run_with_frozen_tensors_is_stopped_and_goes_on_and_any_step_is_found_again(tmp_path: Path) -> None:
    run = ExactRun(tmp_path / "program")
    run.frozen = FROZEN
    run.train(stop=5)
    run.frozen = FROZEN[:2]
    with pytest.raises(Refused, match=r"body\.weight is not the program's own"):
        run.train()
    run.frozen = FROZEN
    source = run.train()
    chain = run.chain()
    assert chain.problems == ()
    found = list(step_inputs(run.run_dir, run.precommit, run.transcript, chain, PROGRAM, range(1, 9), run.data))
    after = exact.run(PROGRAM, found[-1].before, found[-1].batch).next
    assert all((after[name] == source.state[name]).all() for name in after)
    screened = screen(run.run_dir, run.precommit, chain)  # a NaN that nobody trains is no alarm
    assert (screened.suspicious, screened.unread) == ((), ("neighbours", "optimizer"))
    opened = [
        open_checkpoint(run.run_dir, event) for event in (chain.segments[0].start_state, chain.segments[0].end_state)
    ]
    assert measure(None, *opened).moved > 0  # of the integers that are trained, not of the floats beside them


@pytest.mark.parametrize(
    "held",
    [
        FROZEN[:2],
        [*FROZEN, TensorEntry("more", "F32", (1,), bytes(4))],
        [*FROZEN[:2], replace(FROZEN[2], data=struct.pack("<f", 0.1) + b"\x02\x00\xc0\x7f")],
        [replace(FROZEN[0], dtype="F16"), *FROZEN[1:]],
        [],
    ],
    ids=["dropped", "added", "another NaN", "another dtype", "none"],
)
def test_a_checkpoint_with_other_frozen_tensors_is_refused(tmp_path: Path, held: list[TensorEntry]) -> None:
    trainer(frozen=held).save(tmp_path)
    source = trainer(frozen=FROZEN)
    before = source.state
    with pytest.raises(Refused, match="is not the program's own"):
        source.load(tmp_path)
    assert source.state is before


def test_what_is_no_release_of_the_programs_weights_is_refused() -> None:
    weights = start_weights()
    missing = {name: array for name, array in weights.items() if name != "2.bias"}
    with pytest.raises(Malformed, match=r"but no 2\.bias, which the program trains"):
        from_release(PROGRAM, float_safetensors(missing, FROZEN), what="parent")
    with pytest.raises(Malformed, match=r"tensor 0\.\w+ is I64, expected F32"):
        from_release(PROGRAM, integer_safetensors(weights), what="parent")
    memory = replace(FROZEN[2], name="0.weight.exp_avg")
    with pytest.raises(Malformed, match="is named as an optimizer's"):
        from_release(PROGRAM, released_file([*FROZEN, memory]), what="parent")
    with pytest.raises(Malformed, match="take from_release"):
        weights_from_float(PROGRAM, released_file(), what="parent")
    with pytest.raises(UsageError, match="the program trains it"):
        trainer(frozen=[replace(FROZEN[2], name="0.bias")])


def momentum_program() -> Any:
    b = Builder(limb_bits=12)
    w = b.state("w", [2, 2], bits=28, width=34)
    m = b.state("w.momentum_buffer", [2, 2], bits=28, width=34)
    x = b.batch("x", [2, 2], kind="signed", bits=0, width=4)
    moved = b.add(b.scaled(b.times(m, 1), 0), b.shift(b.round(b.matmul(x, w), 4, limbs=1), 24))
    b.set_next(w, b.sub(w, moved))
    b.set_next(m, moved)
    return b.program(label="momentum", batch=2, max_steps=64)


def test_an_optimizers_memory_stands_beside_the_frozen_tensors_not_among_them(tmp_path: Path) -> None:
    program = momentum_program()
    state, frozen = from_release(program, float_safetensors({"w": np.eye(2, dtype=np.int64)}, FROZEN), what="parent")
    source = ExactTrainer(program, state, secret=SECRET, frozen=frozen)
    source.step(1, {"x": np.array([[1, 2], [3, -4]])})
    source.save(tmp_path)
    assert {entry.name for entry in entries_from_safetensors((tmp_path / "optimizer.safetensors").read_bytes())} == {
        "w.momentum_buffer"
    }
    other = ExactTrainer(program, state, secret=SECRET, frozen=frozen)
    other.load(tmp_path)
    assert (other.state["w.momentum_buffer"] == source.state["w.momentum_buffer"]).all()
    parts = safetensors_parts([*FROZEN, TensorEntry("w.momentum_buffer", "I64", (2, 2), bytes(32))])
    (tmp_path / "optimizer.safetensors").write_bytes(b"".join(parts))
    with pytest.raises(Malformed, match=r"holds body\.\w+, which the program's state has not"):
        other.load(tmp_path)


def test_adapters_are_trained_beside_the_base_that_the_parents_release_holds() -> None:
    torch = pytest.importorskip("torch")
    from lowered_steps import BATCH, FLAT, Adapted, cross_entropy, records
    from safetensors.torch import load, save

    from pot.zk.lower import lower_step
    from pot.zk.lowering.optimizers import Sgd

    torch.manual_seed(3)
    module, data = Adapted(), records(FLAT)
    program = lower_step(module, cross_entropy, Sgd(1 / 16), FLAT, data, batch=BATCH, calibration_steps=4).program
    parent = save(module.state_dict())
    state, frozen = from_release(program, parent, what="parent")
    assert [entry.name for entry in frozen] == ["base.bias", "base.weight"]
    source = ExactTrainer(program, state, secret=SECRET, frozen=frozen)
    source.step(1, batch_arrays(program, data[:BATCH]))
    source.step(2, batch_arrays(program, data[BATCH : 2 * BATCH]))
    before, after = load(parent), load(source.released())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"down", "up", "head.weight", "head.bias"}
    Adapted().load_state_dict(after)


class Normed:
    """A frozen normalisation in front of the linear layer that a program of weight and slack trains."""

    def __init__(self) -> None:
        import torch

        torch.manual_seed(3)
        self.module = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1, bias=False))
        self.module[0].requires_grad_(False)
        self.optimizer = torch.optim.SGD(self.module[1].parameters(), lr=0.25)

    def program(self) -> Any:
        b = Builder(limb_bits=14)
        w = b.state("1.weight", [1, 2], bits=20, width=22)
        x = b.batch("x", [2, 2], kind="signed", bits=3, width=5)
        out = b.round(b.matmul(x, b.permute(w, [1, 0])), 9, limbs=1)
        moved = b.scaled(b.matmul(b.permute(out, [1, 0]), x), 3)
        b.set_next(w, b.sub(w, b.round(moved, 20, limbs=2)))
        return b.program(label="normed", batch=2, max_steps=50)

    def trainer(self) -> Any:
        from pot.zk.float_training import FloatTrainer

        return FloatTrainer(
            self.program(), self.module, self.optimizer, secret=SECRET, make_points=digest_points, check=False
        )

    def learn(self, x: Any) -> None:
        import torch

        self.optimizer.zero_grad()
        self.module(torch.from_numpy(x).float() / 8).square().mean().backward()
        self.optimizer.step()


def test_a_float_run_holds_the_frozen_tensors_of_its_module_and_refuses_one_that_moves(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    x = np.array([[3, -7], [9, 16]])
    still = Normed()
    still.module.eval()
    source = still.trainer()
    still.learn(x)
    source.step(1, {"x": x})
    assert source.points_for_segment([1]) is not None
    entries = source.capture()["model"]
    assert {"0.running_mean", "0.num_batches_tracked", "0.weight", "1.weight"} <= {entry.name for entry in entries}
    write_components(tmp_path, source.capture())

    moving = Normed()  # in training mode: a normalisation keeps statistics
    other = moving.trainer()
    moving.learn(x)
    other.step(1, {"x": x})
    with pytest.raises(Refused, match=r"0\.num_batches_tracked: has changed, but no step trains it; call eval"):
        other.points_for_segment([1])
    unlike = Normed()
    unlike.module[0].running_mean += 1
    third = unlike.trainer()
    with pytest.raises(Refused, match="has changed"):
        third.load(tmp_path)  # a checkpoint of another parent's


def test_a_rate_of_0_is_refused_with_what_to_do_instead() -> None:
    """PyTorch leaves such weights alone, bit by bit, but for what the optimizer remembers of them."""
    torch = pytest.importorskip("torch")
    from lowered_steps import BATCH, FLAT, cross_entropy, mlp, records

    from pot.zk.lower import lower_step

    torch.manual_seed(1)
    data = records(FLAT)
    for kind, options, slot in (
        (torch.optim.SGD, {"momentum": 0.5, "weight_decay": 0.5}, "momentum_buffer"),
        (torch.optim.AdamW, {}, "exp_avg"),
    ):
        module: Any = mlp()
        groups = [{"params": module[0].parameters(), "lr": 0.0}, {"params": module[2].parameters()}]
        optimizer = kind(groups, lr=1 / 16, **options)
        before = module[0].weight.detach().clone()
        torch.nn.functional.cross_entropy(module(torch.rand(4, 64)), torch.arange(4)).backward()
        optimizer.step()
        assert torch.equal(module[0].weight, before)
        assert optimizer.state[module[0].weight][slot].abs().max() > 0
        common = (module, cross_entropy, optimizer, FLAT, data)
        with pytest.raises(UsageError, match=r"0\.weight, 0\.bias: learning rate 0 .* leave them out of trainable"):
            lower_step(*common, batch=BATCH, calibration_steps=4)
        program = lower_step(
            *common, batch=BATCH, calibration_steps=4, nearest_rate=True, trainable=["2.weight", "2.bias"]
        ).program
        assert {str(program.nodes[at].name) for at in program.states} >= {"2.weight", "2.bias"}
        assert not any(str(program.nodes[at].name).startswith("0.") for at in program.states)
