"""A mistake before the first step is one sentence and leaves nothing behind that stands in the way of the next try."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import Sums

from pot import begin, record
from pot.data.commit import commit, write_committed
from pot.data.readers import RecordDataset
from pot.errors import EnvironmentFailure, Refused, UsageError
from pot.recording.writing.journal import LOCK_FILE, RunLock

SIZES = {"batch_size": 4, "steps": 10, "checkpoint_every": 5}
RUN = Path("run")


class Streamed(torch.utils.data.IterableDataset[int]):
    """Numbers that come one after the other."""

    def __iter__(self) -> Any:
        yield from range(22)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    Path("train.jsonl").write_bytes(b"".join(b'{"id":%d,"value":%d}\n' % (n, n * n % 17) for n in range(22)))
    write_committed(commit([Path("train.jsonl")], "json/1", "training"), Path("train.json"))


def _begin(**options: Any) -> None:
    begin(RUN, **{"commitments": ["train.json"], **SIZES, **options}).close()


def _record(data: Any, **options: Any) -> None:
    record(RUN, state=Sums(1), data=data, commitments=["train.json"], **{**SIZES, **options}).begun.close()


@pytest.mark.parametrize("nonce", ["bogus", "", "self ", "Verifier", "5a" * 31, "5a" * 32 + "\n", "zz" * 32, 5, None])
def test_a_nonce_that_is_none_is_refused_before_anything_is_written(nonce: Any) -> None:
    with pytest.raises(UsageError) as found:
        _begin(nonce=nonce)
    assert str(found.value) == (
        f'begin: nonce is {nonce!r}; it is "self", "verifier", "beacon:quicknet:ROUND" or 64 hex digits'
    )
    assert not RUN.exists()


def test_a_nonce_of_hex_digits_is_taken() -> None:
    _begin(nonce="5A" * 32)
    assert json.loads((RUN / "nonce.json").read_bytes())["nonce"] == "5a" * 32


def test_a_failed_beginning_takes_away_what_it_made_and_nothing_else() -> None:
    with pytest.raises(UsageError, match="batch_size is 0"):
        begin("some/where/run", commitments=["train.json"], batch_size=0, steps=1)
    assert not Path("some").exists()
    RUN.mkdir()
    with pytest.raises(UsageError, match="batch_size is 0"):
        _begin(batch_size=0)
    assert list(RUN.iterdir()) == []  # the folder was there before
    (RUN / LOCK_FILE).touch()
    with pytest.raises(UsageError, match="batch_size is 0"):
        _begin(batch_size=0)
    assert [item.name for item in RUN.iterdir()] == [LOCK_FILE]
    _begin()
    with pytest.raises(Refused, match="other content"):
        _begin(steps=11)
    assert {LOCK_FILE, "precommit.json", "nonce.json"} <= {item.name for item in RUN.iterdir()}


def test_a_run_that_waits_for_its_nonce_keeps_its_folder() -> None:
    with pytest.raises(EnvironmentFailure, match="no nonce came"):
        _begin(nonce="verifier", nonce_timeout=0.0)
    assert (RUN / "precommit.json").exists()


def test_a_lock_whose_file_was_taken_away_locks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another recorder opened the file that a failing one removes: it must not believe that it holds the run."""
    from pot.recording.writing import journal

    real = journal.fcntl.flock

    def late(handle: int, how: int) -> None:
        real(handle, how)
        (RUN / LOCK_FILE).unlink()

    monkeypatch.setattr(journal.fcntl, "flock", late)
    with pytest.raises(Refused, match="another recorder"):
        RunLock(RUN)


def test_a_lock_of_another_is_not_taken_away() -> None:
    held = begin(RUN, commitments=["train.json"], **SIZES)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="another recorder"):
        _begin()
    assert (RUN / LOCK_FILE).exists()
    held.close()


def test_a_stream_and_a_dataset_with_numbers_are_told_apart_before_the_run_begins() -> None:
    with pytest.raises(UsageError, match="has records by number"):
        _record(torch.utils.data.DataLoader(RecordDataset("train.jsonl"), batch_size=4), stream=True)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no records by number"):
        _record(torch.utils.data.DataLoader(Streamed(), batch_size=4))
    assert not RUN.exists()


def test_a_batch_size_unlike_the_loaders_is_refused_before_the_run_begins() -> None:
    loader = torch.utils.data.DataLoader(RecordDataset("train.jsonl"), batch_size=8)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the loader's batch_size is 8, the run's is 4"):
        _record(loader)
    with pytest.raises(UsageError, match="the loader's batch_size is 8, the run's is 4"):
        _record(torch.utils.data.DataLoader(Streamed(), batch_size=8), stream=True)
    assert not RUN.exists()
    begun = begin(RUN, commitments=["train.json"], **SIZES)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the loader's batch_size is 8, the run's is 4"):
        record(begun, state=Sums(1), data=loader)
    assert not (RUN / "transcript.jsonl").exists()


def test_a_run_in_which_nothing_was_trained_may_be_deleted() -> None:
    _begin(inputs=["train.jsonl"])
    with pytest.raises(Refused) as found:
        _begin(inputs=["train.jsonl"], steps=11)
    assert str(found.value) == (
        "run: this run was begun with other content: steps: '10', now '11'; nothing was trained in it yet: delete it,"
        " or use a new run folder"
    )
    source, data = Sums(1), RecordDataset("train.jsonl")
    with record(RUN, state=source, data=data, commitments=["train.json"], **SIZES) as run:
        for items in run.batches(data):
            run.step(loss=source.update(items))
    with pytest.raises(Refused, match=r"now '11'; use a new run folder$"):
        _begin(inputs=["train.jsonl"], steps=11)


def test_a_variable_that_is_gone_can_be_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _begin(inputs=["train.jsonl"])
    monkeypatch.delenv("OMP_NUM_THREADS")
    with pytest.raises(Refused) as found:
        _begin(inputs=["train.jsonl"])
    assert str(found.value) == (
        "run: this run was begun with other content: environment.bits.variables.OMP_NUM_THREADS: '1', now absent;"
        " nothing was trained in it yet: delete it, or set OMP_NUM_THREADS=1 again to go on, or use a new run folder"
    )


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(UsageError) as found:
        begin(RUN, commitments=["train.json"])
    assert (
        str(found.value)
        == "begin: steps and batch_size are neither arguments nor in config; give steps= and batch_size="
    )
    with pytest.raises(UsageError) as found:
        begin(RUN, commitments=["train.json"], config={"epochs": 2})
    assert str(found.value) == "begin: batch_size is neither an argument nor in config; give batch_size="
    with pytest.raises(UsageError, match=r"^begin: steps is neither an argument nor in config; give steps=$"):
        begin(RUN, commitments=["train.json"], batch_size=4)
    assert not RUN.exists()
