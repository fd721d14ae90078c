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
from exact_run import SECRET, SPEC, ExactRun, digest_points, start_weights, trainer
from safetensors.numpy import save

from pot.errors import Malformed, PotError, Refused, UsageError
from pot.recording.transcript import Points
from pot.zk import exact
from pot.zk.exact import RangeLeft, Weights
from pot.zk.packing import batch_vector, blinds, state_vector
from pot.zk.rewind import features_and_labels, points_of, step_inputs
from pot.zk.training import (
    float_safetensors,
    integer_safetensors,
    weights_from_float,
    weights_from_integers,
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
            run.run_dir, arguments["precommit"], run.transcript, arguments["chain"], SPEC, numbers, arguments["records"]
        )
    )


def same(one: Weights, other: Weights) -> bool:
    return all((getattr(one, name) == getattr(other, name)).all() for name in one.__dataclass_fields__)


def batch(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 17, (2, 4)).astype(np.int64), rng.integers(0, 2, 2).astype(np.int64)


def follow(run: ExactRun) -> Weights:
    """Every step from the start state, by the reference alone; compares states and points; returns the last state."""
    assert run.chain().problems == ()
    before = start_weights()
    found = rewound(run, list(range(1, 9)))
    assert [item.number for item in found] == list(range(1, 9))
    for item in found:
        assert same(item.before, before)
        after = exact.step(SPEC, before, item.features, item.labels).weights
        vectors = [
            state_vector(SPEC, before, blinds(SPEC, SECRET, "state", item.number - 1)),
            batch_vector(SPEC, item.features, item.labels, blinds(SPEC, SECRET, "batch", item.number)),
            state_vector(SPEC, after, blinds(SPEC, SECRET, "state", item.number)),
        ]
        points = dict(zip(("before", "batch", "after"), digest_points(vectors), strict=True))
        assert points_of(run.chain(), item.number) == Points(**points)
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
            assert (item.features == everything[item.number].features).all()


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_stopped_run_goes_on_with_the_points_of_the_whole_one(tmp_path: Path, stop: int) -> None:
    run = ExactRun(tmp_path / "program")
    run.train(stop=stop)
    assert run.chain().problems[0].code == "unfinished"
    source = run.train()
    assert same(follow(run), source.weights)


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
    source.step(1, *batch())
    source.step(2, *batch(1))
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
    source.step(1, *batch())
    source.step(3, *batch(1))
    with pytest.raises(UsageError, match="number them from 1"):
        source.points_for_segment([1, 3])


def test_a_wrong_number_of_points_is_refused_and_none_are_made_in_a_replay_without_a_prover() -> None:
    source = trainer(make_points=lambda vectors: digest_points(vectors)[:-1])
    source.step(1, *batch())
    with pytest.raises(UsageError, match="2 points came back for 3 vectors"):
        source.points_for_segment([1])
    source = trainer(make_points=None)
    source.step(1, *batch())
    assert source.points_for_segment([1]) is None


def test_a_step_that_leaves_the_range_changes_nothing() -> None:
    source = trainer()
    before = source.weights
    with pytest.raises(Malformed):
        source.step(1, np.full((2, 4), 99, np.int64), batch()[1])
    assert source.weights is before
    with pytest.raises(UsageError):
        source.points_for_segment([1])


def test_only_a_start_in_range_and_a_whole_secret_make_a_trainer() -> None:
    big = replace(start_weights(), hidden_bias=np.full(4, 1 << 34, np.int64))
    with pytest.raises(RangeLeft, match="hidden_bias"):
        type(trainer())(SPEC, big, secret=SECRET)
    with pytest.raises(UsageError, match="31 bytes"):
        trainer(secret=SECRET[:31])
    other = type(SPEC).from_value({**SPEC.model_dump(), "weight_bits": 27}, what="spec")
    with pytest.raises(UsageError, match="28 weight bits"):
        trainer(spec=other)


def test_states_are_written_and_read_back(tmp_path: Path) -> None:
    source, other = trainer(), trainer()
    source.step(1, *batch())
    source.save(tmp_path)
    other.step(1, *batch(7))
    other.load(tmp_path)
    assert same(source.weights, other.weights)
    with pytest.raises(UsageError):
        other.points_for_segment([1])  # what was trained before a load belongs to no segment


def hostile_files() -> dict[str, bytes]:
    weights = start_weights()
    names = {"0.weight": weights.hidden_weight, "0.bias": weights.hidden_bias, "2.weight": weights.output_weight}
    good = {**names, "2.bias": weights.output_bias}
    return {
        "nothing": b"",
        "garbage": b"\xff" * 100,
        "a tensor is missing": save(names),
        "a tensor too many": save({**good, "4.bias": weights.output_bias}),
        "floats": save({name: value.astype(np.float32) for name, value in good.items()}),
        "another dtype": save({**good, "2.bias": weights.output_bias.astype(np.int32)}),
        "another shape": save({**good, "0.weight": weights.hidden_weight.reshape(2, 8)}),
        "another model": save({**good, "0.weight": np.zeros((4, 5), np.int64)}),
        "a scalar": save({**good, "2.bias": np.array(3, np.int64)}),
        "beyond the range": save({**good, "2.bias": np.array([1 << 40, 0])}),
        "the smallest integer": save({**good, "2.bias": np.array([-(1 << 63), 0])}),
    }


@pytest.mark.parametrize("name", list(hostile_files()))
def test_hostile_states_are_refused_and_the_weights_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(hostile_files()[name])
    source = trainer()
    before = source.weights
    with pytest.raises(PotError):
        source.load(tmp_path)
    assert source.weights is before


def test_float_and_integer_files_hold_the_same_model() -> None:
    weights = start_weights()
    assert integer_safetensors(weights) == integer_safetensors(weights)
    assert same(weights_from_integers(integer_safetensors(weights), what="x"), weights)
    again = weights_from_float(float_safetensors(weights), what="x")
    for name in ("hidden_weight", "output_weight"):
        assert (np.abs(getattr(again, name) - getattr(weights, name)) <= np.abs(getattr(weights, name)) >> 24).all()
    with pytest.raises(Malformed, match="expected F32"):
        weights_from_float(integer_safetensors(weights), what="x")


GOOD = {"image": [[1, 2], [3, 4]], "label": 1}


def test_records_become_features_and_labels() -> None:
    features, labels = features_and_labels(SPEC, [GOOD, {"image": [[16, 0, 0, 5]], "label": 0}])
    assert features.tolist() == [[1, 2, 3, 4], [16, 0, 0, 5]]
    assert labels.tolist() == [1, 0]
    assert features.dtype == labels.dtype == np.int64


@pytest.mark.parametrize(
    "change",
    [{"image": None}, {"image": []}, {"image": [1, 2, 3, 4]}, {"image": [[1, 2], [3]]}, {"image": [[1, 2], [3, -4]]},
     {"image": [[1, 2], [3, 4.0]]}, {"image": [[1, 2], [3, True]]}, {"image": [[1, 2], [3, 1 << 70]]},
     {"image": [[1, 2], [3, "4"]]}, {"image": "1234"}, {"label": 2}, {"label": -1}, {"label": True}, {"label": "1"},
     {"label": 1.0}, {"label": None}, {"label": 1 << 70}],
)  # fmt: skip
def test_hostile_records_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        features_and_labels(SPEC, [{**GOOD, **change}])


def test_what_is_no_record_is_refused() -> None:
    for record in ([1, 2], "image", None, 7, {}):
        with pytest.raises(Malformed):
            features_and_labels(SPEC, [record])  # type: ignore[list-item]


@pytest.mark.parametrize("numbers", [[0], [9], [1, 9], [-1], [1 << 64]])
def test_steps_that_are_not_there(honest: ExactRun, numbers: list[int]) -> None:
    with pytest.raises(UsageError, match="is not in the transcript"):
        rewound(honest, numbers)
    with pytest.raises(UsageError, match="is not in the transcript"):
        points_of(honest.chain(), numbers[-1])


def test_other_data_another_semantics_and_a_changed_checkpoint_are_refused(copied: ExactRun) -> None:
    with pytest.raises(UsageError, match="holds 3 records"):
        rewound(copied, [1], records=[GOOD] * 3)
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
