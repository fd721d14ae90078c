"""An honest recorded run on disk, and the tools of its forger, who recomputes every digest that can be recomputed."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pot.audit.replaying.replay import Replay, Replayer
from pot.canonical import canonical_bytes, sha256_hex
from pot.commitments.state import entries_from_safetensors, json_digest, state_digest, tensors_digest
from pot.data.commit import commit, write_committed
from pot.recording.checking.chain import ChainResult, check_chain
from pot.recording.precommit import Precommit
from pot.recording.transcript import ZERO_DIGEST, Transcript, previous_digest, read_transcript

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(__file__).with_name("toy_training.py")

Event = dict[str, Any]


@dataclass
class RecordedRun:
    """A folder with program, data and run directory; `events` are read from and written to the transcript."""

    folder: Path
    arguments: list[str]

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def precommit(self) -> Precommit:
        return Precommit.from_bytes((self.run_dir / "precommit.json").read_bytes(), what="precommit")

    @property
    def transcript(self) -> Transcript:
        return read_transcript((self.run_dir / "transcript.jsonl").read_bytes())

    def start(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the program, or go on with it."""
        command = [sys.executable, "toy_training.py", *self.arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def chain(self) -> ChainResult:
        return check_chain(self.transcript, self.precommit)

    def codes(self) -> list[str]:
        """The codes of the chain's problems, each once, in order."""
        return list(dict.fromkeys(problem.code for problem in self.chain().problems))

    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.transcript.lines]

    def write(self, events: list[Event]) -> None:
        """Write events as they are."""
        data = b"".join(canonical_bytes(event) + b"\n" for event in events)
        (self.run_dir / "transcript.jsonl").write_bytes(data)

    def relink(self, events: list[Event]) -> None:
        """Write events with index and previous digest made right, as any forger would."""
        previous = ZERO_DIGEST
        for number, event in enumerate(events):
            event["index"], event["previous"] = str(number), previous
            previous = previous_digest(canonical_bytes(event))
        self.write(events)

    def restate(self, events: list[Event]) -> None:
        """Recompute all state digests and the end from the components, then relink."""
        previous, last = ZERO_DIGEST, None
        for event in events:
            if event["type"] == "checkpoint":
                event["previous_state_blake3"] = previous
                previous = event["state_blake3"] = state_digest(
                    event["components"], int(event["step"]), self.precommit.config_blake3, previous
                )
                last = event
            elif event["type"] == "end" and last is not None:
                event["state_blake3"], event["model_blake3"] = previous, last["components"]["model"]
        self.relink(events)

    def bend_tensors(self, step: int, component: str, edit: Callable[[list[int]], list[int]]) -> None:
        """Edit a component of the checkpoint of `step` on disk, and every digest that follows from it."""
        path = self.run_dir / f"checkpoints/step-{step:06d}/{component}.safetensors"
        data = bytearray(path.read_bytes())
        count = len(bytes(entries_from_safetensors(bytes(data))[0].data)) // 8
        values = edit(list(struct.unpack(f"<{count}q", bytes(data[-8 * count :]))))
        data[-8 * count :] = struct.pack(f"<{count}q", *values)
        path.write_bytes(data)
        self._commit_file(step, component, path, tensors_digest(component, entries_from_safetensors(bytes(data))))

    def bend_rng(self, step: int, edit: Callable[[dict[str, Any]], None]) -> None:
        """Edit the generators' state in the checkpoint of `step`, and every digest that follows from it."""
        path = self.run_dir / f"checkpoints/step-{step:06d}/state.json"
        document = json.loads(path.read_bytes())
        edit(document["rng"])
        path.write_bytes(canonical_bytes(document))
        self._commit_file(step, "rng", path, json_digest("rng", document["rng"]))

    def _commit_file(self, step: int, component: str, path: Path, digest: str) -> None:
        events = self.events()
        event = next(e for e in events if e["type"] == "checkpoint" and e["step"] == str(step))
        event["components"][component] = digest
        for file in event["files"]:
            if file["path"].endswith(path.name):
                file["sha256"], file["bytes"] = sha256_hex(path.read_bytes()), str(path.stat().st_size)
        self.restate(events)

    def replay(self, index: int) -> Replay:
        """Replay the segment with this number, from 1."""
        chain = self.chain()
        replayer = Replayer(
            self.run_dir, self.precommit, self.events()[0]["nonce"], [self.folder / "train.jsonl"], self.folder
        )
        return replayer.segment(chain.segments[index - 1])


def prepare(folder: Path, steps: int = 30, every: int = 5, batch: int = 4, records: int = 22) -> RecordedRun:
    """Data, commitment and program, not yet started."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [canonical_bytes({"id": number, "value": number * number % 17}) for number in range(records)]
    (folder / "train.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    write_committed(commit([folder / "train.jsonl"], "json/1", "training"), folder / "train.json")
    shutil.copyfile(PROGRAM, folder / "toy_training.py")
    return RecordedRun(folder, ["train.jsonl", "train.json", "run", str(steps), str(every), str(batch)])


def honest_run(folder: Path, **sizes: int) -> RecordedRun:
    """A finished honest run."""
    run = prepare(folder, **sizes)
    done = run.start()
    if done.returncode:
        raise RuntimeError(done.stderr)
    return run


def release_weights(run: RecordedRun, model: Path) -> None:
    """The weights that the run ended with, as a released folder; the toy is exact, so they become floats."""
    import numpy as np
    from safetensors.numpy import save_file

    from attest.verdict.operations import apply_operation

    last = max((run.run_dir / "checkpoints").iterdir())
    trained = entries_from_safetensors((last / "model.safetensors").read_bytes())
    released = {
        entry.name: np.frombuffer(bytes(entry.data), "<f4").reshape(entry.shape)
        for entry in apply_operation("dequantise/1", trained)
    }
    model.mkdir()
    save_file(released, model / "model.safetensors")
