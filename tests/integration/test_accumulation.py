"""Gradient accumulation, gradient scalers, parameter groups and schedules in a plain loop: resumed and replayed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scaled_training import STEPS, Pairs, train
from trained_examples import ROOT, Example, begun_alike, write_digits

from pot import begin, record
from pot.commitments.order import batch_records
from pot.errors import UsageError
from pot.recording.batches.loading import fetch
from pot.recording.checking.finished import load_run


def test_a_scaled_accumulating_loop_replays(tmp_path: Path) -> None:
    write_digits(tmp_path, 60)
    shutil.copyfile(ROOT / "tests" / "simulator" / "scaled_training.py", tmp_path / "scaled_training.py")
    command = [sys.executable, "scaled_training.py", "run", "train.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    chain = load_run(tmp_path / "run")[2]
    assert len(chain.segments) == 12
    replay = Example(tmp_path, "scaled_training.py").replay("run", seed=10)
    assert replay.outcome == "MATCH", replay


def _resumed(folder: Path, stops: tuple[int, ...], **options: Any) -> None:
    commitment = str(write_digits(folder / "data", 60))
    whole = train(str(folder / "whole"), commitment, **options)
    begun_alike(folder / "whole", folder / "stopped")
    for stop in stops:
        train(str(folder / "stopped"), commitment, stop=stop, **options)
    stopped = train(str(folder / "stopped"), commitment, **options)
    assert all(torch.equal(one, other) for one, other in zip(whole, stopped, strict=True))
    ends = [load_run(folder / name)[2].end for name in ("whole", "stopped")]
    assert ends[0].state_blake3 == ends[1].state_blake3


@pytest.mark.parametrize("schedule", ["joined", "cycle", "cosine", "restarts", "lambda"])
def test_a_stopped_loop_gives_the_weights_of_a_whole_one(tmp_path: Path, schedule: str) -> None:
    _resumed(tmp_path, (13, 55), schedule=schedule)


def test_a_stopped_loop_in_bfloat16_gives_the_weights_of_a_whole_one(tmp_path: Path) -> None:
    _resumed(tmp_path, (37,), dtype=torch.bfloat16)


def test_the_scaler_left_steps_out_and_grew(tmp_path: Path) -> None:
    """Else the tests above would show nothing of it: its scale must have gone down and up."""
    commitment = str(write_digits(tmp_path / "data", 60))
    for number in range(5):  # each has a seed of its own, and nearly all of them do both
        train(str(tmp_path / f"run-{number}"), commitment)
        places = [tmp_path / f"run-{number}" / "checkpoints" / f"step-{step:06d}" for step in range(0, STEPS + 1, 10)]
        scales = [float(_scaler(place)) for place in places]
        if scales[0] > min(scales) < scales[-1]:
            return
    raise AssertionError("in five runs the scale never went down and up again")


def _scaler(folder: Path) -> str:
    from pot.canonical import parse_canonical

    document: Any = parse_canonical((folder / "scaler.json").read_bytes(), what="scaler")
    found = document["scale"]["real"]
    assert isinstance(found, str)
    return found


def test_a_step_takes_its_records_micro_batch_by_micro_batch(tmp_path: Path) -> None:
    """And its loss is the mean of theirs."""
    commitment = write_digits(tmp_path / "data", 60)
    begun = begin(tmp_path / "run", commitments=[commitment], batch_size=3, accumulate=4, steps=7, checkpoint_every=7)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen: list[int] = []
    with record(begun, model=model, optimizer=optimizer, data=list(range(60))) as run:
        for records in run.batches(list(range(60))):
            seen += records
            if run.completes:
                optimizer.step()
            run.step(loss=float(records[0]))
    wanted = [batch_records(begun.seed, 60, 12, step)[2] for step in range(1, 8)]
    assert seen == [number for records in wanted for number in records]
    steps = [event for event in load_run(tmp_path / "run")[1].events if event.type == "step"]
    assert [float(event.loss or "nan") for event in steps] == [
        sum(float(records[at]) for at in (0, 3, 6, 9)) / 4 for records in wanted
    ]


def test_a_scheduler_that_looks_at_the_loss_is_refused(tmp_path: Path) -> None:
    commitment = write_digits(tmp_path / "data", 60)
    model = torch.nn.Linear(6, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(UsageError, match="does not follow from the number of steps"):
        record(
            tmp_path / "run", model=model, optimizer=optimizer, scheduler=plateau, data=Pairs(), steps=4, batch_size=3,
            commitments=[commitment],
        )  # fmt: skip


def test_a_loader_that_pins_memory_is_read_where_there_is_no_device(tmp_path: Path) -> None:
    """As PyTorch reads it: the setting is for another machine."""
    loader = torch.utils.data.DataLoader(Pairs(), batch_size=3, pin_memory=True)
    for workers in (0, 1):
        loader.num_workers = workers
        (_, (inputs, _)), *_ = fetch(loader, iter([("1", 1, 0, [4, 5, 6])]), bytes(32))
        assert inputs.shape == (3, 6)
