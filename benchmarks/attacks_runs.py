"""Recorded runs for `benchmarks/attacks.py`, and replays of them, without a new interpreter for each.

Recording, and all but a few replays, happen in a fork of this process, in which PyTorch is loaded: the same program,
recorder, staging and comparison, but no walls around the program. `Replayer` itself starts one that takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from recorded_run import RecordedRun

from pot.audit.replaying.replay import Replayer
from pot.audit.replaying.sandbox import Ended, Limits
from pot.canonical import canonical_bytes
from pot.commitments.order import batch_records
from pot.data.commit import commit, write_committed
from pot.errors import PotError
from pot.recording.environment import capture
from pot.recording.precommit import Precommit, SeedNonce

__all__ = ["MEMORY", "RECORDS", "DigitsRun", "in_forks", "prepare", "records"]

RECORDS = 400
PROGRAM = Path(__file__).with_name("attacks_program.py")
SHARED = Path("/dev/shm")
MEMORY = SHARED if os.access(SHARED, os.W_OK) else None
"""Where the many small files of runs and stagings lie, if there is such a place; None: where temporary files do."""

Patch = Callable[[], Any]


@dataclass
class DigitsRun(RecordedRun):
    """A folder with `train.py`, its data and its run; what `tests/simulator/forgeries.py` needs of a run."""

    issued: str = ""
    """The nonce that the verifier issued, hex."""

    def record(self, patch: Patch | None = None) -> None:
        """Train, or go on; `patch` is what a forger changes in the running process, whose files stay as committed."""
        run_dir = self.run_dir

        def meanwhile() -> None:
            path = run_dir / "precommit.json"
            if path.exists() and not (run_dir / "nonce.json").exists():
                try:
                    self._issue(Precommit.from_bytes(path.read_bytes(), what="precommit"))
                except PotError:  # half written: once more in a moment
                    return

        code, words = forked(self.folder, ["train.py", *self.arguments], dict(os.environ), patch, meanwhile)
        if code:
            raise RuntimeError(words)

    def _issue(self, precommit: Precommit) -> None:
        document = {"version": "pot/seed-nonce/v1", "precommit_sha256": precommit.sha256(), "nonce": self.issued}
        path = self.run_dir / "nonce.json"
        path.with_suffix(".new").write_bytes(SeedNonce.from_value(document, what="nonce").to_bytes())
        path.with_suffix(".new").replace(path)

    def go_on(self) -> None:
        """Train from the latest checkpoint of the transcript to the end, and tell it as if it had not stopped."""
        self.record()
        self.restate([event for event in self.events() if event["type"] != "resume"])

    def copy(self, folder: Path) -> DigitsRun:
        """The same run elsewhere."""
        shutil.copytree(self.folder, folder)
        return DigitsRun(folder, self.arguments, self.issued)

    def order(self) -> list[list[int]]:
        """The record numbers of each step, as the seed gives them."""
        from pot.commitments.seed import run_seed

        precommit, nonce = self.precommit, bytes.fromhex(self.events()[0]["nonce"])
        seed, batch = run_seed(precommit.sha256(), nonce), int(precommit.order.batch)
        return [list(batch_records(seed, RECORDS, batch, step)[2]) for step in range(1, int(precommit.steps) + 1)]

    def replayer(self) -> Replayer:
        """The auditor's."""
        nonce = str(self.events()[0]["nonce"])
        return Replayer(self.run_dir, self.precommit, nonce, [self.folder / "train.jsonl"], self.folder)


def prepare(folder: Path, issued: str, steps: int = 60, every: int = 5, rate: str = "0.003") -> DigitsRun:
    """Data, commitment and program, not yet started."""
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(_lines())
    write_committed(commit([folder / "train.jsonl"], "json/1", "training"), folder / "train.json")
    shutil.copyfile(PROGRAM, folder / "train.py")
    return DigitsRun(folder, ["train.jsonl", "train.json", "run", str(steps), str(every), rate], issued)


@cache
def _lines() -> bytes:
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = zip(digits.data[:RECORDS].astype("uint8"), digits.target[:RECORDS].tolist(), strict=True)
    return b"".join(canonical_bytes({"image": bytes(image).hex(), "label": label}) + b"\n" for image, label in rows)


def records(run: DigitsRun) -> list[dict[str, Any]]:
    """The committed records."""
    return [json.loads(line) for line in (run.folder / "train.jsonl").read_bytes().splitlines()]


def forked(
    folder: Path, command: Sequence[str], variables: Mapping[str, str], patch: Patch | None = None,
    meanwhile: Callable[[], None] | None = None, errors: Path | None = None,
) -> tuple[int, str]:  # fmt: skip
    """Run a script in a fork of this process: its exit code, and the end of what it wrote to standard error."""
    _warm()
    errors = folder / ".stderr" if errors is None else errors
    child = os.fork()
    if child == 0:
        _run(folder, command, variables, patch, errors)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG if meanwhile is not None else 0)
        if ended:
            return os.waitstatus_to_exitcode(status), errors.read_text(errors="replace")[-2000:]
        if meanwhile is not None:
            meanwhile()
            time.sleep(0.01)


@cache
def _warm() -> None:
    """Load and ask here, once, what every fork would load and ask for by itself."""
    import torch

    import pot.recording.pytorch.load
    import pot.recording.pytorch.state
    import pot.recording.recorder
    import pot.recording.run
    import pot.recording.writing.writer  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # imports half of PyTorch
    capture()


def _run(folder: Path, command: Sequence[str], variables: Mapping[str, str], patch: Patch | None, errors: Path) -> None:
    code = 1
    try:
        stream = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        sys.argv, sys.path[0] = list(command), str(folder)
        if patch is not None:
            patch()
        runpy.run_path(command[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # whatever it is, a fork must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def in_forks() -> Iterator[None]:
    """Within it, every `Replayer` runs its program in a fork of this process."""

    def run(command: Sequence[str], folder: Path, variables: Mapping[str, str], limits: Limits,
            hidden: Sequence[Path], errors: Path, *rest: Any, **options: Any) -> Ended:  # fmt: skip
        words = list(command)
        code, text = forked(folder / "work", words[words.index("-B") + 1 :], variables, errors=errors)
        lines = [line for line in text.splitlines() if line.strip()]
        return Ended(code, lines[-1][:300] if lines else "", "none")

    with (
        mock.patch("pot.audit.replaying.replay.run_limited", run),
        mock.patch("pot.audit.replaying.staging.isolation", return_value="none"),
        mock.patch("tempfile.tempdir", str(MEMORY) if MEMORY is not None else None),
    ):
        yield
