"""A recorded run of `float_training.py`, here or on "another machine", and replayers of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from recorded_run import ROOT, RecordedRun, prepare

from pot.audit.replaying.replay import Replayer
from pot.commitments.state import entries_from_safetensors, tensors_digest

PROGRAM = Path(__file__).with_name("float_training.py")


class FloatRun(RecordedRun):
    """Started by its own script; the tests' own settings of threads do not reach it."""

    def start(self, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, PROGRAM.name, *self.arguments]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "ATEN_"))}
        return subprocess.run(
            command, cwd=self.folder, env={**env, "PYTHONPATH": str(ROOT), **variables}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def bend_floats(self, step: int) -> None:
        """Add one last bit to one weight of the checkpoint of `step`, and recompute every digest that follows."""
        path = self.run_dir / f"checkpoints/step-{step:06d}/model.safetensors"
        data = bytearray(path.read_bytes())
        data[-4] ^= 1
        path.write_bytes(data)
        self._commit_file(step, "model", path, tensors_digest("model", entries_from_safetensors(bytes(data))))

    def replayer(self, **options: Any) -> Replayer:
        """An auditor's."""
        return Replayer(
            self.run_dir, self.precommit, self.events()[0]["nonce"], [self.folder / "train.jsonl"], self.folder,
            **options,
        )  # fmt: skip


def float_run(folder: Path, machine: str = "", state_every: int | None = None, **sizes: int) -> FloatRun:
    """A finished run; `machine`: see `float_training.py`."""
    sizes = {"steps": 40, "every": 10, "batch": 8, "records": 100} | sizes
    prepared = prepare(folder, **sizes)
    shutil.copyfile(PROGRAM, folder / PROGRAM.name)
    run = FloatRun(folder, prepared.arguments + ([str(state_every)] if state_every is not None else []))
    done = run.start(POT_TEST_MACHINE=machine)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return run
