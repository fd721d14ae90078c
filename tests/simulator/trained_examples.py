"""The programs of `examples/`, started as a user would, killed, started again, and replayed as an auditor would."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pot.audit.replaying.replay import Replay, Replayer
from pot.canonical import canonical_bytes
from pot.commitments.state import entries_from_safetensors, tensors_digest
from pot.data.commit import commit, write_committed
from pot.recording.begin import NONCE_FILE, read_nonce
from pot.recording.checking.finished import load_run

ROOT = Path(__file__).resolve().parent.parent.parent
WORDS = ["the", "model", "train", "step", "batch", "data", "digest", "root", "order", "seed", "record", "state", "loss"]


def write_digits(folder: Path, count: int = 300) -> Path:
    """Separable blobs in the digits' format, committed; the path of the commitment, beside it `train.jsonl`."""
    generator = np.random.default_rng(3)
    centres = generator.integers(0, 17, size=(10, 64))
    lines = []
    for number in range(count):
        image = np.clip(centres[number % 10] + generator.integers(-3, 4, size=64), 0, 16).reshape(8, 8)
        lines.append(canonical_bytes({"image": image.tolist(), "label": number % 10}) + b"\n")
    return _write(folder, lines, "pixels/1")


def write_texts(folder: Path, count: int = 200) -> Path:
    """Texts of a few words, committed; the path of the commitment, beside it `train.jsonl`."""
    generator = np.random.default_rng(3)
    lines = [canonical_bytes({"text": " ".join(generator.choice(WORDS, 12).tolist())}) + b"\n" for _ in range(count)]
    return _write(folder, lines, "text/1")


def _write(folder: Path, lines: list[bytes], view: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_bytes(b"".join(lines))
    write_committed(commit([folder / "train.jsonl"], view, "training"), folder / "train.json")
    return folder / "train.json"


def begun_alike(run_dir: Path, other: Path) -> Path:
    """Begin a run in `other` with the pre-commitment and the nonce of `run_dir`: its seed is the same."""
    other.mkdir()
    for name in ("precommit.json", NONCE_FILE):
        shutil.copyfile(run_dir / name, other / name)
    shutil.copytree(run_dir / "commitments", other / "commitments")
    return other


def cut_before_end(run_dir: Path) -> None:
    """As if the run had been killed between its last checkpoint and its last line."""
    transcript = run_dir / "transcript.jsonl"
    lines = transcript.read_bytes().splitlines(keepends=True)
    assert b'"type":"end"' in lines[-1]
    transcript.write_bytes(b"".join(lines[:-1]))


@dataclass
class Example:
    """A program in a folder of its own, with its data in `train.jsonl` and the commitment in `train.json`."""

    folder: Path
    script: str
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        source = ROOT / "examples" / self.script
        if not (self.folder / self.script).exists():
            shutil.copyfile(source, self.folder / self.script)

    def command(self, run: str, steps: int) -> list[str]:
        """The command for a run directory of this name; the model comes to `RUN-model`."""
        return [
            sys.executable, self.script, "--data", "train.jsonl", "--commitment", "train.json", "--run", run,
            "--out", f"{run}-model", "--steps", str(steps), *self.arguments,
        ]  # fmt: skip

    def start(self, run: str, steps: int) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(run, steps), cwd=self.folder, env=self._environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def finish(self, run: str, steps: int) -> str:
        """Run it to its good end; what it said on standard error."""
        done = self.start(run, steps)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def kill(self, run: str, steps: int, after: int) -> None:
        """Start it and kill it with SIGKILL when that many steps are in the transcript."""
        process = subprocess.Popen(
            self.command(run, steps), cwd=self.folder, env=self._environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        transcript = self.folder / run / "transcript.jsonl"
        deadline = time.monotonic() + 300
        while not transcript.exists() or transcript.read_bytes().count(b'"type":"step"') < after:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def replay(self, run: str, seed: int) -> Replay:
        """Replay a segment that `seed` chooses."""
        run_dir = self.folder / run
        precommit, _, chain = load_run(run_dir)
        nonce = read_nonce(run_dir / NONCE_FILE, precommit.sha256()).hex()
        data = [path for path in self.folder.iterdir() if path.suffix in (".jsonl", ".safetensors")]
        replayer = Replayer(run_dir, precommit, nonce, data, self.folder)
        return replayer.segment(random.Random(seed).choice(chain.segments))

    def released(self, run: str) -> str:
        """The digest of the released weights, as a transcript's end names them."""
        data = (self.folder / f"{run}-model" / "model.safetensors").read_bytes()
        return tensors_digest("model", entries_from_safetensors(data))

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}
