"""The writer beside training: failing disks, gaps, kept lines, and snapshots that training does not reach."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import Sums

from pot import begin, record
from pot.commitments.state import tensors_digest
from pot.data.commit import commit, write_committed
from pot.data.readers import RecordDataset
from pot.errors import EnvironmentFailure, UsageError
from pot.recording.checking.chain import check_chain
from pot.recording.checking.finished import load_run
from pot.recording.pytorch.state import TorchState
from pot.recording.transcript import CheckpointEvent, GapEvent, load_transcript
from pot.recording.writing import writer
from pot.recording.writing.journal import Journal


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    lines = [b'{"id":%d,"value":%d}\n' % (number, number * number % 17) for number in range(22)]
    Path("train.jsonl").write_bytes(b"".join(lines))
    write_committed(commit([Path("train.jsonl")], "json/1", "training"), Path("train.json"))


def _train(run_dir: str = "run", on_error: str = "stop", **options: Any) -> list[int]:
    config = {"batch_size": 4, "steps": 30, "checkpoint_every": 5}
    begun = begin(run_dir, commitments=["train.json"], config=config, semantics="exact", **options)
    source, dataset = Sums(begun.torch_seed("init")), RecordDataset("train.jsonl")
    with record(begun, state=source, data=dataset, on_error=on_error) as run:  # type: ignore[arg-type]
        for items in run.batches(dataset):
            run.step(loss=source.update(items))
    return source.weights


def _failing_checkpoints(monkeypatch: pytest.MonkeyPatch, *steps: int) -> list[int]:
    """Let the files of these steps fail; the list of steps that failed."""
    failed: list[int] = []
    real = writer.write_checkpoint

    def write(run_dir: Path, step: int, components: Any) -> Any:
        if step in steps:
            failed.append(step)
            raise EnvironmentFailure(f"{run_dir}: cannot be written: No space left on device")
        return real(run_dir, step, components)

    monkeypatch.setattr(writer, "write_checkpoint", write)
    return failed


def test_a_gap_leaves_a_longer_segment_and_is_told(monkeypatch: Any, capsys: Any) -> None:
    whole = _train("whole")
    assert _failing_checkpoints(monkeypatch, 10, 15) == []
    assert _train(on_error="gap", nonce="00" * 32) != whole  # another seed
    _, transcript, chain = load_run(Path("run"))
    assert [gap.step for gap in chain.gaps] == [10, 15]
    assert "No space left on device" in chain.gaps[0].reason
    assert [(segment.first, segment.last) for segment in chain.segments] == [(1, 5), (6, 20), (21, 25), (26, 30)]
    assert [int(root.step) for root in chain.segments[1].roots] == [10, 15]
    assert not Path("run/checkpoints/step-000010").exists()
    assert sum(isinstance(event, GapEvent) for event in transcript.events) == 2
    assert "step 10: no checkpoint, training goes on" in capsys.readouterr().err


def test_without_gaps_the_same_failure_stops_and_the_run_goes_on_later(monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        failed = _failing_checkpoints(patch, 10)
        with pytest.raises(EnvironmentFailure, match="No space left on device"):
            _train()
    assert failed == [10]
    held = [event.step for event in load_transcript(Path("run")).events if isinstance(event, CheckpointEvent)]
    assert held == ["0", "5"]
    _train()
    _, _, chain = load_run(Path("run"))
    assert (len(chain.segments), chain.gaps, chain.forks) == (6, (), ())


@pytest.mark.parametrize("step", [0, 30])
def test_the_first_and_the_last_checkpoint_cannot_be_a_gap(monkeypatch: Any, step: int) -> None:
    _failing_checkpoints(monkeypatch, step)
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        _train(on_error="gap")


class _Failing:
    """A file that takes no bytes between two lines of the transcript, though it takes a part of one."""

    def __init__(self, stream: Any, first: int, last: int) -> None:
        self._stream = stream
        self._first, self._last, self._calls = first, last, 0

    def write(self, data: bytes) -> int:
        self._calls += 1
        if self._first <= self._calls < self._last:
            self._stream.write(data[:7])
            raise OSError(28, "No space left on device")
        return int(self._stream.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _failing_lines(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    real = Journal.__init__

    def init(self: Journal, run_dir: Path) -> None:
        real(self, run_dir)
        self._stream = _Failing(self._stream, first, last)  # type: ignore[assignment]

    monkeypatch.setattr(Journal, "__init__", init)


def test_lines_that_cannot_be_written_are_kept_and_added_later(monkeypatch: Any, capsys: Any) -> None:
    _failing_lines(monkeypatch, 9, 11)
    _train(on_error="gap")
    chain = load_run(Path("run"))[2]
    assert (len(chain.segments), chain.gaps) == (6, ())
    said = capsys.readouterr().err
    assert "its lines are kept in memory meanwhile" in said
    assert "can be written again" in said


def test_lines_that_can_never_be_written_are_not_lost_silently(monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        _failing_lines(patch, 9, 10**9)
        with pytest.raises(EnvironmentFailure, match="No space left on device"):
            _train(on_error="gap")
    _train()
    assert load_run(Path("run"))[2].problems == ()


def test_more_lines_than_memory_is_for_stop_the_run(monkeypatch: Any) -> None:
    monkeypatch.setattr(writer, "_MAX_KEPT", 3)
    _failing_lines(monkeypatch, 9, 10**9)
    with pytest.raises(EnvironmentFailure):
        _train(on_error="gap")


def test_roots_are_taken_more_often_than_files() -> None:
    _train(state_every=10)
    precommit, transcript, chain = load_run(Path("run"))
    assert (precommit.checkpoint_every, precommit.state_every) == ("5", "10")
    assert len(chain.segments) == 3
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == [
        "step-000000", "step-000010", "step-000020", "step-000030",
    ]  # fmt: skip
    assert sum(isinstance(event, CheckpointEvent) for event in transcript.events) == 7


def test_step_mode_takes_a_root_after_every_step() -> None:
    _train(mode="step", state_every=15)
    _, transcript, chain = load_run(Path("run"))
    assert sum(isinstance(event, CheckpointEvent) for event in transcript.events) == 31
    assert [len(segment.roots) for segment in chain.segments] == [14, 14]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"state_every": 7}, "state_every is 7, which is not a multiple of checkpoint_every, 5"),
        ({"mode": "often"}, "mode is 'often'"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
    ],
)
def test_misuse_is_one_sentence_that_names_the_option(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        _train(**options)


def test_an_error_of_the_program_is_not_hidden_by_the_writer(monkeypatch: Any) -> None:
    begun = begin("run", commitments=["train.json"], config={"batch_size": 4, "steps": 30, "checkpoint_every": 5})
    dataset = RecordDataset("train.jsonl")
    _failing_lines(monkeypatch, 3, 10**9)

    def program() -> None:
        with record(begun, state=Sums(1), data=dataset) as run:
            for _ in run.batches(dataset):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program()


def _stepped(optimizer_type: Any, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    optimizer = optimizer_type(model.parameters(), **options)
    _more(model, optimizer)
    return model, optimizer


def _more(model: Any, optimizer: Any, steps: int = 3) -> None:
    for _ in range(steps):
        inputs = torch.randn(8, 4)

        def closure(inputs: torch.Tensor = inputs) -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(inputs).pow(2).mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def _digests(parts: Any) -> dict[str, str]:
    return {name: tensors_digest(name, parts[name]) for name in ("model", "optimizer")}


def test_training_does_not_reach_a_snapshot() -> None:
    model, optimizer = _stepped(torch.optim.AdamW, lr=0.1)
    source = TorchState(model, optimizer)
    before, taken = _digests(source.capture()), source.snapshot()
    assert _digests(taken) == before
    live = source.capture()
    _more(model, optimizer)
    assert _digests(taken) == before
    assert _digests(live) != before  # the views that a snapshot stands in for
    again = source.snapshot()
    assert _digests(again) == _digests(source.capture())
    assert _digests(taken) != before  # the same memory: one copy of the state is all that it costs


@pytest.mark.parametrize(
    ("optimizer_type", "options"),
    [(torch.optim.LBFGS, {"lr": 0.1, "max_iter": 4, "history_size": 3}), (torch.optim.Adagrad, {"lr": 0.1}),
     (torch.optim.NAdam, {"lr": 0.1}), (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})],
)  # fmt: skip
def test_every_optimizers_state_comes_back_and_training_goes_on_the_same(
    optimizer_type: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    from pot.recording.state import write_components

    model, optimizer = _stepped(optimizer_type, **options)
    source = TorchState(model, optimizer)
    write_components(tmp_path, source.capture())
    here = torch.get_rng_state()
    _more(model, optimizer)
    expected = _digests(source.capture())

    torch.manual_seed(99)
    other_model, other_optimizer = _stepped(optimizer_type, **options)
    _more(other_model, other_optimizer, 1)
    other = TorchState(other_model, other_optimizer)
    other.load(tmp_path)
    torch.set_rng_state(here)
    _more(other_model, other_optimizer)
    assert _digests(other.capture()) == expected


def test_frozen_parameters_are_a_component_of_their_own() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
    source = TorchState(model, optimizer, frozen_apart=True)
    assert source.frozen_names == {"0.weight", "0.bias"}
    assert [item.name for item in source.capture()["model"]] == ["1.bias", "1.weight"]  # type: ignore[union-attr]
    assert [item.name for item in source.frozen()] == ["0.bias", "0.weight"]  # type: ignore[union-attr]
    assert TorchState(model, optimizer).frozen_names == frozenset()


def test_the_walk_of_a_run_with_gaps_needs_no_files(monkeypatch: Any) -> None:
    _failing_checkpoints(monkeypatch, 10)
    _train(on_error="gap")
    precommit = load_run(Path("run"))[0]
    events = load_transcript(Path("run"))
    assert check_chain(events, precommit).gaps[0].step == 10


def test_a_gap_keeps_the_cause_and_no_advice_of_the_day(monkeypatch: Any, capsys: Any) -> None:
    """A transcript is read years later: "free space" is then wrong, and the path nobody's business."""
    from pot.recording import state

    real = state.os.fsync
    calls = []

    def full(handle: int) -> None:
        if "checkpoints/.step-000010" in os.readlink(f"/proc/self/fd/{handle}"):
            calls.append(handle)
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(state.os, "fsync", full)
    _train(on_error="gap")
    assert calls
    assert [(gap.step, gap.reason) for gap in load_run(Path("run"))[2].gaps] == [(10, "No space left on device")]
    assert "training goes on: run: No space left on device\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (": cannot be written by process 3: [Errno 122] Disk quota; free space and resume", "process 3: Disk quota"),
        (": cannot be written: b: not there; all must see it", "b: not there; all must see it"),
        (" is gone", "run/checkpoints/step-000010 is gone"),
    ],
)
def test_the_cause_is_found_in_every_sentence(said: str, cause: str) -> None:
    assert writer._cause(EnvironmentFailure(f"run/checkpoints/step-000010{said}")) == cause
