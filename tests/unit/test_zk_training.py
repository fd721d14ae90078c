"""Integer training through the recorder: points in order, resumption, files, and rewinding to any step's inputs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_run import PROGRAM, SECRET, ExactRun, digest_points, start_weights, trainer
from safetensors.numpy import save

from pot.errors import Malformed, PotError, Refused, UsageError
from pot.recording.transcript import Points
from pot.zk.runs.rewind import points_of, step_inputs
from pot.zk.semantics import exact
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.exact import RangeLeft
from pot.zk.semantics.program import Program
from pot.zk.training import (
    ExactTrainer,
    float_safetensors,
    integer_safetensors,
    squared_error,
    weights_from_float,
    weights_from_integers,
    weights_of,
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> ExactRun:
    run = ExactRun(tmp_path_factory.mktemp("exact") / "program")
    run.train()
    return run


@pytest.fixture
def copied(honest: ExactRun, tmp_path: Path) -> ExactRun:
    shutil.copytree(honest.folder, tmp_path / "program")
    run = ExactRun.__new__(ExactRun)
    run.folder, run.run_dir = tmp_path / "program", tmp_path / "program" / "run"
    return run


def rewound(run: ExactRun, numbers: list[int], **change: Any) -> list[Any]:
    arguments: dict[str, Any] = {"records": run.data, "chain": run.chain(), "precommit": run.precommit, **change}
    return list(
        step_inputs(
            run.run_dir,
            arguments["precommit"],
            run.transcript,
            arguments["chain"],
            PROGRAM,
            numbers,
            arguments["records"],
        )
    )


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def batch(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 17, (2, 4)), "label": np.eye(2, dtype=np.int64)[rng.integers(0, 2, 2)]}


def follow(run: ExactRun) -> Any:
    """Every step from the start state, by the reference alone; compares states and points; returns the last state."""
    assert run.chain().problems == ()
    before: Any = start_weights()
    found = rewound(run, list(range(1, 9)))
    assert [item.number for item in found] == list(range(1, 9))
    for item in found:
        assert same(item.before, before)
        after = exact.run(PROGRAM, before, item.batch).next
        states = [(item.number - 1, before), (item.number, after)]
        points = digest_points(SECRET, states, [(item.number, item.batch)])
        assert points_of(run.chain(), item.number) == Points(before=points[0], after=points[1], batch=points[2])
        before = after
    return before


def test_every_step_has_the_points_of_its_own_state_batch_and_next_state(honest: ExactRun) -> None:
    follow(honest)


def test_steps_in_any_order_and_number_rewind_to_the_same_inputs(honest: ExactRun) -> None:
    everything = {item.number: item for item in rewound(honest, list(range(1, 9)))}
    for numbers in ([5], [8, 2], [4, 4, 6], []):
        found = rewound(honest, numbers)
        assert [item.number for item in found] == sorted(set(numbers))
        for item in found:
            assert same(item.before, everything[item.number].before)
            assert same(item.batch, everything[item.number].batch)


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_stopped_run_goes_on_with_the_points_of_the_whole_one(tmp_path: Path, stop: int) -> None:
    run = ExactRun(tmp_path / "program")
    run.train(stop=stop)
    assert run.chain().problems[0].code == "unfinished"
    source = run.train()
    assert same(follow(run), source.state)


def test_a_killed_run_goes_on_with_the_points_of_the_whole_one(tmp_path: Path) -> None:
    """Killed without a word in the second segment, whose steps are lost with it, as their points were not made yet."""
    run = ExactRun(tmp_path / "program")
    go = f"import os, pathlib, exact_run as e\nrun = e.ExactRun(pathlib.Path({str(run.folder)!r}))\n"
    step = "step = e.ExactTrainer.step\n"
    dies = "e.ExactTrainer.step = lambda self, n, *a: os._exit(9) if n == 5 else step(self, n, *a)\n"
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "simulator"), str(Path(__file__).parents[2])])

    def program(code: str) -> int:
        """In a process of its own both times: what this one has imported is part of the recorded environment."""
        environment = {**os.environ, "PYTHONPATH": paths}
        return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode

    assert program(go + step + dies + "run.train()") == 9
    assert [event.step for event in run.transcript.events if event.type == "step"] == ["1", "2", "3"]
    assert program(go + "run.train()") == 0
    last = run.run_dir / "checkpoints/step-000008/model.safetensors"
    assert same(follow(run), weights_from_integers(last.read_bytes(), what="last"))


def test_points_of_other_steps_than_those_trained_are_refused() -> None:
    source = trainer()
    source.step(1, batch())
    source.step(2, batch(1))
    for steps in ([], [1], [2], [2, 1], [1, 2, 3], [0, 1]):
        with pytest.raises(UsageError, match="are asked for"):
            source.points_for_segment(steps)
    points = source.points_for_segment([1, 2])
    assert points is not None
    assert points[0].after == points[1].before
    assert len({points[0].before, points[0].after, points[1].after, points[0].batch, points[1].batch}) == 5
    with pytest.raises(UsageError, match="trained were none"):
        source.points_for_segment([1, 2])


def test_a_gap_in_the_numbers_is_refused() -> None:
    source = trainer()
    source.step(1, batch())
    source.step(3, batch(1))
    with pytest.raises(UsageError, match="number them from 1"):
        source.points_for_segment([1, 3])


def test_a_wrong_number_of_points_is_refused_and_none_are_made_in_a_replay_without_a_prover() -> None:
    source = trainer(make_points=lambda *given: digest_points(*given)[:-1])
    source.step(1, batch())
    with pytest.raises(UsageError, match="2 points came back for 2 states and 1 batches"):
        source.points_for_segment([1])
    source = trainer(make_points=None)
    source.step(1, batch())
    assert source.points_for_segment([1]) is None


def test_a_step_that_leaves_the_range_changes_nothing() -> None:
    source = trainer()
    before = source.state
    with pytest.raises(Malformed):
        source.step(1, {**batch(), "image": np.full((2, 4), 99)})
    assert source.state is before
    with pytest.raises(UsageError):
        source.points_for_segment([1])


def test_only_a_start_in_range_and_a_whole_secret_make_a_trainer() -> None:
    with pytest.raises(RangeLeft, match=r"0\.bias"):
        trainer(state={**start_weights(), "0.bias": np.full(4, 1 << 34)})
    with pytest.raises(UsageError, match="31 bytes"):
        trainer(secret=SECRET[:31])
    loose = [{**item.model_dump(), "slack": 3} for item in PROGRAM.next]
    program = Program.from_value({**PROGRAM.model_dump(exclude_none=True), "next": loose}, what="program")
    with pytest.raises(UsageError, match="slack"):
        trainer(program=program)


def test_a_step_beyond_those_that_can_be_proven_is_refused() -> None:
    source = trainer()
    with pytest.raises(UsageError, match="65536"):
        source.step((1 << 16) + 1, batch())


def test_states_are_written_and_read_back(tmp_path: Path) -> None:
    source, other = trainer(), trainer()
    source.step(1, batch())
    source.save(tmp_path)
    other.step(1, batch(7))
    other.load(tmp_path)
    assert same(source.state, other.state)
    with pytest.raises(UsageError):
        other.points_for_segment([1])  # what was trained before a load belongs to no segment


def hostile_files() -> dict[str, bytes]:
    weights = start_weights()
    names = {name: array for name, array in weights.items() if name != "2.bias"}
    good = dict(weights)
    return {
        "nothing": b"",
        "garbage": b"\xff" * 100,
        "a tensor is missing": save(names),
        "a tensor too many": save({**good, "4.bias": weights["2.bias"]}),
        "floats": save({name: value.astype(np.float32) for name, value in good.items()}),
        "another dtype": save({**good, "2.bias": weights["2.bias"].astype(np.int32)}),
        "another shape": save({**good, "0.weight": weights["0.weight"].reshape(2, 8)}),
        "another model": save({**good, "0.weight": np.zeros((4, 5), np.int64)}),
        "a scalar": save({**good, "2.bias": np.array(3, np.int64)}),
        "beyond the range": save({**good, "2.bias": np.array([1 << 40, 0])}),
        "the smallest integer": save({**good, "2.bias": np.array([-(1 << 63), 0])}),
    }


@pytest.mark.parametrize("name", list(hostile_files()))
def test_hostile_states_are_refused_and_the_weights_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(hostile_files()[name])
    source = trainer()
    before = source.state
    with pytest.raises(PotError):
        source.load(tmp_path)
    assert source.state is before


def test_float_and_integer_files_hold_the_same_model() -> None:
    weights = start_weights()
    assert integer_safetensors(weights) == integer_safetensors(weights)
    assert same(weights_from_integers(integer_safetensors(weights), what="x"), weights)
    again = weights_from_float(PROGRAM, float_safetensors(weights), what="x")
    for name in ("0.weight", "2.weight"):
        assert (np.abs(again[name] - weights[name]) <= np.abs(weights[name]) >> 24).all()
    with pytest.raises(Malformed, match="expected F32"):
        weights_from_float(PROGRAM, integer_safetensors(weights), what="x")
    with pytest.raises(Malformed, match=r"holds 0\.bias"):
        weights_from_float(PROGRAM, save({"0.bias": np.zeros(4, np.float32)}), what="x")


def test_the_recorded_loss_is_half_the_squared_error_of_the_rounded_differences() -> None:
    source, state, given = trainer(), start_weights(), batch()
    unit = 2.0**28
    hidden = np.maximum(given["image"] / 16 @ (state["0.weight"] / unit).T + state["0.bias"] / unit, 0)
    errors = hidden @ (state["2.weight"] / unit).T + state["2.bias"] / unit - given["label"]
    assert source.step(1, given) == pytest.approx((errors**2).sum() / 2 / PROGRAM.batch, rel=0.02)


def test_a_program_without_differences_from_marks_has_no_such_loss() -> None:
    b = Builder(limb_bits=10)
    w = b.state("w", [2], bits=8, width=10)
    b.batch("x", [1, 1], kind="unsigned", bits=0, width=1)
    b.set_next(w, w)
    with pytest.raises(UsageError, match="another loss"):
        squared_error(b.program(label="still", batch=1, max_steps=1))


def momentum_program() -> Program:
    """w <- w - m / 4, m <- m / 2 + x, with a count that nothing else depends on."""
    b = Builder(limb_bits=10)
    w = b.state("w", [2], bits=8, width=12)
    m = b.state("w.momentum_buffer", [2], bits=8, width=12)
    count = b.state("optimizer.count", [1], bits=0, width=20)
    x = b.batch("x", [1, 2], kind="signed", bits=8, width=8)
    moved = b.add(b.round(b.scaled(m, 1), 8, limbs=1), b.reshape(x, [2]))
    b.set_next(w, b.sub(w, b.round(b.scaled(moved, 2), 8, limbs=1)))
    b.set_next(m, moved)
    b.set_next(count, b.add(count, b.constant([1], [1], bits=0)))
    return b.program(label="momentum", batch=1, max_steps=99)


def test_what_the_optimizer_remembers_is_a_component_of_its_own(tmp_path: Path) -> None:
    program = momentum_program()
    start = {"w": np.array([50, -60]), "w.momentum_buffer": np.array([7, 8]), "optimizer.count": np.array([0])}
    source = ExactTrainer(program, start, secret=SECRET)
    for number in (1, 2, 3):
        assert source.step(number, {"x": np.array([[number, -40]])}) is None
    assert list(weights_of(program, source.state)) == ["w"]
    components = source.capture()
    assert {name: [entry.name for entry in value] for name, value in components.items()} == {  # type: ignore[union-attr]
        "model": ["w"], "optimizer": ["optimizer.count", "w.momentum_buffer"],
    }  # fmt: skip
    source.save(tmp_path)
    other = ExactTrainer(program, start, secret=SECRET)
    other.load(tmp_path)
    assert same(other.state, source.state)
    assert source.state["optimizer.count"].tolist() == [3]
    (tmp_path / "optimizer.safetensors").unlink()
    with pytest.raises(Malformed, match=r"expected w, w\.momentum_buffer"):
        other.load(tmp_path)


def test_a_start_takes_zeros_or_what_is_given_for_the_optimizer() -> None:
    program = momentum_program()
    with pytest.raises(UsageError, match="8 fraction bits"):
        weights_from_float(program, save({"w": np.zeros(2, np.float32)}), what="x")


@pytest.mark.parametrize("numbers", [[0], [9], [1, 9], [-1], [1 << 64]])
def test_steps_that_are_not_there(honest: ExactRun, numbers: list[int]) -> None:
    with pytest.raises(UsageError, match="is not in the transcript"):
        rewound(honest, numbers)
    with pytest.raises(UsageError, match="is not in the transcript"):
        points_of(honest.chain(), numbers[-1])


def test_other_data_another_semantics_and_a_changed_checkpoint_are_refused(copied: ExactRun) -> None:
    with pytest.raises(UsageError, match="holds 3 records"):
        rewound(copied, [1], records=[{}] * 3)
    with pytest.raises(UsageError, match="exact semantics"):
        rewound(copied, [1], precommit=copied.precommit.model_copy(update={"semantics": "float"}))
    path = copied.run_dir / "checkpoints/step-000003/model.safetensors"
    path.write_bytes(integer_safetensors(start_weights()))
    assert [item.number for item in rewound(copied, [1, 7])] == [1, 7]  # entered at other checkpoints
    with pytest.raises(PotError):
        rewound(copied, [5])
    path.unlink()
    with pytest.raises(PotError):
        rewound(copied, [4])


def test_a_run_without_points_and_one_without_segments(honest: ExactRun) -> None:
    chain = honest.chain()
    bare = tuple(event.model_copy(update={"points": None}) for event in chain.segments[0].steps)
    with pytest.raises(UsageError, match="no points"):
        points_of(replace(chain, segments=(replace(chain.segments[0], steps=bare),)), 1)
    with pytest.raises(Refused, match="no complete segment"):
        rewound(honest, [1], chain=replace(chain, segments=()))
