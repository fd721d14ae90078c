"""A fine-tune in family auto, from a parent's float release to proven steps, with the commands that a user runs.

A linear layer and GELU on images of 2 x 2 pixels, cross-entropy, momentum: exact has no rule for GELU. Three steps of
four records; PyTorch takes each, ezkl takes it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fine_tuned import SECRET, FineTuned
from safetensors.torch import load_file, save
from torch import nn

from attest.cli.main import main
from pot import record
from pot.canonical import write_file
from pot.data.readers import RecordDataset
from pot.zk.auto import AutoStep, auto_step
from pot.zk.auto_program import AutoProgram
from pot.zk.auto_training import AutoTrainer
from pot.zk.engine import EzklEngine, Limits
from pot.zk.kit import open_kit
from pot.zk.trace import Field, torch_batch

__all__ = ["BATCH", "FIELDS", "STEPS", "AutoTuned", "bent_layer", "cross_entropy", "momentum", "traced"]

STEPS, BATCH = 3, 4
FIELDS = {"image": Field("unsigned", (4,), bits=4, width=5), "label": Field("marks", (3,))}
SIZES = {"scale": 9, "lookup_bits": 12, "limb_bits": 10, "limbs": 3}


def bent_layer(weights: Path | None = None) -> nn.Sequential:
    """The module; its tensors have the names of the simulated parent's."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(4, 3), nn.GELU())
    if weights is not None:
        module.load_state_dict(load_file(str(weights)))
    return module


def cross_entropy(model: Any, batch: Any) -> Any:
    """The loss."""
    return nn.functional.cross_entropy(model(batch["image"]), batch["label"])


def momentum(module: nn.Module, rate: float = 0.125) -> torch.optim.SGD:
    """The optimizer."""
    return torch.optim.SGD(module.parameters(), lr=rate, momentum=0.5)


def traced(rate: float = 0.125) -> AutoStep:
    """The step, in tables small enough for 2^12 rows."""
    module = bent_layer()
    return auto_step(
        module, cross_entropy, momentum(module, rate), FIELDS, batch=BATCH, label="gelu 4-3", max_steps=64, **SIZES
    )


class AutoTuned(FineTuned):
    """A parent's release, a kit of family auto made by `pot zk setup`, a recorded run, and its step proofs."""

    steps = STEPS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "none", records=STEPS * BATCH)
        step = traced()
        write_file(folder / "program.json", step.program.to_bytes())
        write_file(folder / "step.onnx", step.onnx)
        self.commanded(
            "zk", "setup", "--program", "program.json", "--graph", "step.onnx", "--logrows", "12", "--columns", "4",
            "--out", "kit",
        )  # fmt: skip
        self.kit = open_kit(folder / "kit")
        self.engine = EzklEngine(Limits(wall_seconds=240))
        self.trainer = self.train()
        write_file(self.model / "model.safetensors", save(self.module.state_dict()))

    def commanded(self, *words: str) -> None:
        """Run a command; words with a file's name are files of the folder."""
        files = {"program.json", "step.onnx", "kit", "run", "train.jsonl", "secret", "proofs", "states"}
        code = main([str(self.folder / word) if word in files else word for word in words])
        if code:
            raise RuntimeError(f"pot {' '.join(words)}: exit code {code}")

    def train(self) -> AutoTrainer:
        """The recorded program: it stops after its second step, and is started again."""
        for stop in (2, None):
            self.module = bent_layer(self.folder / "parent/model.safetensors")
            optimizer = momentum(self.module)
            trainer = AutoTrainer(
                self.kit, self.module, optimizer, engine=self.engine, secret=SECRET, keep_in=self.folder / "states"
            )
            begun = self.begin(self.folder / "run", batch_size=BATCH)
            data = RecordDataset(self.folder / "train.jsonl")
            with record(begun, state=trainer, data=data) as run:
                for records in run.batches(data):
                    loss = self._step(optimizer, records)
                    trainer.step(run.done + 1, self.program.batch_arrays(records))
                    run.step(loss=loss)
                    if run.done == stop:
                        break
        return trainer

    def _step(self, optimizer: torch.optim.Optimizer, records: Any) -> float:
        optimizer.zero_grad()
        loss = cross_entropy(self.module, torch_batch(FIELDS, records))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    @property
    def program(self) -> AutoProgram:
        """The step's document."""
        step = self.kit.verifying.step
        assert isinstance(step, AutoProgram)
        return step

    def proof(self, number: int) -> Path:
        return self.folder / "proofs" / f"step-{number:06d}.json"

    @property
    def everything(self) -> dict[str, Any]:
        return {**super().everything, "kept": self.folder / "states"}
