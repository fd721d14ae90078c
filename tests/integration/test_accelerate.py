"""Accelerate: a loop that accumulates, recorded, replayed; a loop that was stopped gives the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from trained_examples import Example, begun_alike, write_digits

from pot import begin
from pot.errors import UsageError
from pot.recording.accelerate import record_accelerated
from pot.recording.batches.loading import check_loader
from pot.recording.checking.finished import load_run

RECORDS = 30
STEPS = 20


def test_a_recorded_loop_replays(tmp_path: Path) -> None:
    write_digits(tmp_path)
    example = Example(tmp_path, "train_accelerate.py")
    example.finish("run", 120)
    precommit, _, chain = load_run(tmp_path / "run")
    assert (precommit.order.batch, precommit.order.micro) == ("32", "8")
    assert len(chain.segments) == 6
    assert example.released("run") == chain.end.model_blake3
    replay = example.replay("run", seed=6)
    assert replay.outcome == "MATCH", replay


class Pairs(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(4.0) * index / RECORDS, torch.tensor(float(index % 2))


def _train(run_dir: Path, stop: int | None = None, accumulate: int = 2) -> list[torch.Tensor]:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    commitment = run_dir.parent / "data" / "train.json"
    if not commitment.exists():
        write_digits(commitment.parent, RECORDS)
    options: dict[str, Any] = {"batch_size": 3, "accumulate": 2, "steps": STEPS, "checkpoint_every": 4}
    begun = begin(run_dir, commitments=[commitment], config={"lr": 0.01}, **options)
    torch.manual_seed(begun.torch_seed("init"))
    plain = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    momentum = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)  # for every nonce it must not diverge
    cycle = torch.optim.lr_scheduler.OneCycleLR(momentum, 0.01, total_steps=STEPS)
    loader = torch.utils.data.DataLoader(Pairs(), batch_size=3, shuffle=True)
    model, optimizer, schedule, loader = accelerator.prepare(plain, momentum, cycle, loader)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": schedule, "data": loader}
    with record_accelerated(accelerator, begun, **parts) as run:
        for inputs, targets in run.batches(loader):
            with accelerator.accumulate(model):
                loss = torch.nn.functional.mse_loss(model(inputs).squeeze(1), targets)
                accelerator.backward(loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            assert run.completes == accelerator.sync_gradients
            run.step(loss=loss)
            if run.done == stop:
                break
    return [value.clone() for value in plain.state_dict().values()]


def test_a_stopped_loop_gives_the_weights_of_a_whole_one(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole")
    begun_alike(tmp_path / "whole", tmp_path / "stopped")
    for stop in (6, 13):
        _train(tmp_path / "stopped", stop)
    stopped = _train(tmp_path / "stopped")
    assert all(torch.equal(one, other) for one, other in zip(whole, stopped, strict=True))
    ends = [load_run(tmp_path / name)[2].end for name in ("whole", "stopped")]
    assert ends[0].state_blake3 == ends[1].state_blake3


def test_another_accumulation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gradient_accumulation_steps is 4, committed is accumulate=2"):
        _train(tmp_path / "run", accumulate=4)
    with pytest.raises(UsageError, match="gradient_accumulation_steps is 4"):  # the run folder is not held
        _train(tmp_path / "run", accumulate=4)


def test_a_prepared_loaders_own_sampler_is_not_passed_over() -> None:
    """Accelerate hides a sampler inside a loader made anew."""
    accelerator = Accelerator(cpu=True)
    weighted = torch.utils.data.WeightedRandomSampler([1.0] * RECORDS, RECORDS)
    loader = accelerator.prepare(torch.utils.data.DataLoader(Pairs(), batch_size=3, sampler=weighted))
    with pytest.raises(UsageError, match="WeightedRandomSampler would not be used"):
        check_loader(loader, 3)
