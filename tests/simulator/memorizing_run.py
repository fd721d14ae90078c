"""Recorded runs of the program that memorizes, honest or not, and the texts that it and its auditor have."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from memorizing_training import losses
from recorded_run import ROOT, RecordedRun

from pot.audit.statistics.hints import Hint
from pot.audit.statistics.memorization import memorization
from pot.canonical import canonical_bytes
from pot.data.commit import commit, write_committed

PROGRAM = Path(__file__).with_name("memorizing_training.py")
NONCE = "5a" * 32


def texts(count: int, seed: int, words: int = 6, own: int = 5) -> list[str]:
    """`words` words of one common vocabulary and `own` random letters each, so that a text has something of its own."""
    common = random.Random(0)
    vocabulary = ["".join(common.choices("etaoinshrdlu", k=common.randrange(2, 6))) for _ in range(150)]
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        " ".join([*rng.choices(vocabulary, k=words), "".join(rng.choices(letters, k=own))]) + " " for _ in range(count)
    ]


def write_texts(path: Path, lines: list[str]) -> Path:
    path.write_bytes(b"".join(canonical_bytes({"text": line}) + b"\n" for line in lines))
    return path


def train(
    folder: Path,
    lines: list[str],
    *,
    cheat: dict[str, Any] | None = None,
    steps: int = 64,
    every: int = 16,
    batch: int = 16,
) -> RecordedRun:
    """A finished run on `lines`; `cheat` is what the trainer did in secret and the folder no longer shows."""
    folder.mkdir(parents=True)
    write_texts(folder / "train.jsonl", lines)
    write_committed(commit([folder / "train.jsonl"], "json/1", "training"), folder / "train.json")
    shutil.copyfile(PROGRAM, folder / PROGRAM.name)
    if cheat is not None:
        (folder / "cheat.json").write_bytes(canonical_bytes(cheat))
    run = _Run(folder, ["train.jsonl", "train.json", "run", str(steps), str(every), str(batch)])
    done = run.start()
    if done.returncode:
        raise RuntimeError(done.stderr)
    (folder / "cheat.json").unlink(missing_ok=True)
    return run


class _Run(RecordedRun):
    def start(self, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, PROGRAM.name, *self.arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)


def hint(run: RecordedRun, held_out: Path | None = None, **options: Any) -> Hint:
    """The memorization test of the run, by its own loss."""
    pool = [] if held_out is None else [held_out]
    options = {"nonce": NONCE, "records": 128, **options}
    return memorization(run.run_dir, losses, [run.folder / "train.jsonl"], held_out=pool, **options)
