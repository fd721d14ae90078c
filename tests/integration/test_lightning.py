"""Lightning: killed, resumed, replayed; validation between the steps changes nothing."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from trained_examples import Example, begun_alike, cut_before_end, write_digits

from pot import begin
from pot.errors import MissingExtra, UsageError
from pot.recording.begin import Begun
from pot.recording.checking.finished import load_run
from pot.recording.lightning import record_fit

RECORDS = 30
STEPS = 24


def test_a_killed_fit_goes_on_and_replays(tmp_path: Path) -> None:
    write_digits(tmp_path)
    example = Example(tmp_path, "train_lightning.py")
    example.kill("run", 150, after=60)
    assert "resuming run after step 50 of 150" in example.finish("run", 150)
    chain = load_run(tmp_path / "run")[2]
    assert len(chain.segments) == 6
    assert example.released("run") == chain.end.model_blake3
    replay = example.replay("run", seed=5)
    assert replay.outcome == "MATCH", replay


class Noisy(torch.utils.data.Dataset[Any]):
    """Records whose augmentation draws from two generators."""

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = random.random() + float(torch.rand(()))
        return torch.arange(4.0) * index / RECORDS + noise / 10, torch.tensor(float(index % 2))


class Stopped(Exception):
    pass


class Module(lightning.LightningModule):
    """Dropout, an average of the weights that its hook keeps after each batch, and a validation that draws."""

    def __init__(self, after: int | None, interval: str = "step") -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        self.register_buffer("average", torch.zeros(4))
        self.after = after
        self.interval = interval
        self.validated: list[int] = []

    def _loss(self, batch: Any) -> torch.Tensor:
        inputs, targets = batch
        return torch.nn.functional.binary_cross_entropy_with_logits(self.layers(inputs).squeeze(1), targets)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if self.after is not None and self.global_step == self.after:
            raise Stopped
        return self._loss(batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        average: Any = self.average
        average.mul_(0.9).add_(self.layers[0].weight[0].detach(), alpha=0.1)

    def validation_step(self, batch: Any, index: int) -> torch.Tensor:
        torch.rand(3)
        return self._loss(batch)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.validated.append(self.global_step)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": self.interval}}


def _begin(run_dir: Path, **changes: Any) -> Begun:
    commitment = run_dir.parent / "data" / "train.json"
    if not commitment.exists():
        write_digits(commitment.parent, RECORDS)
    options: dict[str, Any] = {"batch_size": 3, "accumulate": 2, "steps": STEPS, "checkpoint_every": 4, **changes}
    return begin(run_dir, commitments=[commitment], config={"lr": 0.01}, **options)


def _trainer(recording: Any, **changes: Any) -> Any:
    usual: dict[str, Any] = {
        "max_epochs": 5, "max_steps": STEPS, "accumulate_grad_batches": 2, "accelerator": "cpu", "devices": 1,
        "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    return lightning.Trainer(callbacks=[recording], **{**usual, **changes})


def _fit(run_dir: Path, after: int | None = None, **changes: Any) -> tuple[Any, Module]:
    begun = _begin(run_dir)
    torch.manual_seed(begun.torch_seed("init"))
    module = Module(after)
    recording = record_fit(begun)
    trainer = _trainer(recording, **changes)
    loader = torch.utils.data.DataLoader(Noisy(), batch_size=3, shuffle=True)
    trainer.fit(module, recording.loader(loader), torch.utils.data.DataLoader(Noisy(), batch_size=10))
    return trainer, module


def test_a_resumed_fit_gives_the_weights_of_a_whole_one(tmp_path: Path) -> None:
    """Stopped within epochs of 5 steps; validation, which draws and comes at each epoch's end, is left out once."""
    trainer, whole = _fit(tmp_path / "whole")
    begun_alike(tmp_path / "whole", tmp_path / "stopped")
    with pytest.raises(Stopped):
        _fit(tmp_path / "stopped", after=9, limit_val_batches=0)
    with pytest.raises(Stopped):
        _fit(tmp_path / "stopped", after=14)
    resumed, stopped = _fit(tmp_path / "stopped")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, stopped.state_dict()[name]), name
    ends = [load_run(tmp_path / name)[2].end for name in ("whole", "stopped")]
    assert ends[0].state_blake3 == ends[1].state_blake3
    assert resumed.global_step == trainer.global_step == STEPS
    assert resumed.current_epoch == trainer.current_epoch
    assert whole.validated[:4] == [5, 10, 15, 20]
    assert stopped.validated == whole.validated[2:]  # from step 12, in the third epoch

    cut_before_end(tmp_path / "stopped")
    _, ended = _fit(tmp_path / "stopped")
    assert all(torch.equal(value, ended.state_dict()[name]) for name, value in whole.state_dict().items())
    assert load_run(tmp_path / "stopped")[2].end.state_blake3 == ends[0].state_blake3


def test_what_cannot_be_recorded_is_refused_in_a_sentence(tmp_path: Path) -> None:
    loader = torch.utils.data.DataLoader(Noisy(), batch_size=3)
    cases: dict[str, tuple[Module, dict[str, Any]]] = {
        "accumulate_grad_batches is 3, committed is accumulate=2": (Module(None), {"accumulate_grad_batches": 3}),
        "Lightning will take 7 steps, committed are 24": (Module(None), {"max_steps": 7}),
        "a schedule that moves between steps cannot be resumed": (Module(None, "epoch"), {}),
    }
    for number, (sentence, (module, changes)) in enumerate(cases.items()):
        recording = record_fit(_begin(tmp_path / str(number)))
        with pytest.raises(UsageError, match=sentence):
            _trainer(recording, **changes).fit(module, recording.loader(loader))
    recording = record_fit(_begin(tmp_path / "own"))
    with pytest.raises(UsageError, match=r"fit on recording\.loader\(loader\), not on the loader itself"):
        _trainer(recording).fit(Module(None), loader)
    recording = record_fit(_begin(tmp_path / "size", batch_size=2))
    with pytest.raises(UsageError, match="batch_size is 3, committed is 2"):
        recording.loader(loader)


def test_without_lightning_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):  # the run folder is not held
        begun = _begin(tmp_path / "run")
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "lightning.pytorch", None)
            with pytest.raises(MissingExtra, match=r"needs the extra \[lightning\]"):
                record_fit(begun)
