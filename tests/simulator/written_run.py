"""Transcripts written without training: states are made up, everything that a reader can recompute is right.

For checks of the chain alone; `recorded_run` makes runs that really trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pot.canonical import canonical_bytes, sha256_hex
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.commitments.state import json_digest, state_digest
from pot.recording.checking.chain import ChainResult, check_chain
from pot.recording.config import config_digest
from pot.recording.environment import environment_sha256
from pot.recording.precommit import Precommit, files_due
from pot.recording.state import checkpoint_files
from pot.recording.transcript import ZERO_DIGEST, Transcript, batch_digest, previous_digest, read_transcript

Event = dict[str, Any]
NONCE = "ab" * 32


def precommit_document(records: int = 22, steps: int = 12, **fields: Any) -> dict[str, Any]:
    """A pre-commitment over one dataset of `records`; `fields` replace or add."""
    return {
        "version": "pot/precommit/v1", "run_id": "22" * 32, "semantics": "float",
        "data": [
            {"name": "train", "commitment_sha256": "11" * 32, "view": "text/1", "records": str(records),
             "records_root_blake3": "33" * 32, "set_root_blake3": "44" * 32}
        ],
        "config": {}, "config_blake3": config_digest({}),
        "program": {"command": [], "files": [], "data_files": []},
        "environment": {"bits": {}}, "environment_sha256": environment_sha256({"bits": {}}),
        "order": {"method": "feistel/1", "batch": "4", "drop_last": True},
        "steps": str(steps), "checkpoint_every": "2", "state_every": "4", "seed_source": "self", **fields,
    }  # fmt: skip


@dataclass
class WrittenRun:
    """A pre-commitment and the events of an honest run of it. Tests edit `events`; `chain` relinks them first."""

    precommit: Precommit
    components: tuple[str, ...] = ("model", "optimizer", "rng")
    events: list[Event] = field(default_factory=list)

    def step(self, number: int) -> Event:
        """The event of a step. A stream yields 3 and 4 records in turn, and goes into the next epoch after 5 steps."""
        if self.precommit.order.method == "stream/1":
            epoch, within = divmod(number - 1, 5)
            position, records = sum(3 + at % 2 for at in range(within)), 3 + within % 2
            digest = sha256_hex(b"batch %d" % number)
        else:
            batch, size = int(self.precommit.order.batch), int(self.precommit.data[0].records)
            seed = run_seed(self.precommit.sha256(), bytes.fromhex(NONCE))
            epoch, position, numbers = batch_records(seed, size, batch, number)
            records, digest = len(numbers), batch_digest(numbers)
        return {
            "type": "step", "step": str(number), "epoch": str(epoch), "position": str(position),
            "records": str(records), "batch_blake3": digest, "loss": repr(1 / number),
        }  # fmt: skip

    def checkpoint(self, step: int) -> Event:
        """The checkpoint after a step, with files where they are due."""
        last = self.step(step) if step else {"epoch": "0", "position": "0"}
        cursor = {"epoch": last["epoch"], "position": last["position"], "step": str(step)}
        components = {name: sha256_hex(f"{name} {step}".encode()) for name in self.components}
        if "frozen" in components:
            components["frozen"] = sha256_hex(b"frozen")
        components["cursor"] = json_digest("cursor", cursor)
        event: Event = {"type": "checkpoint", "step": str(step), "components": components, "files": []}
        return with_files(event) if files_due(self.precommit, step) else event

    def write(self) -> WrittenRun:
        """Make the events of the whole run."""
        steps, every = int(self.precommit.steps), int(self.precommit.checkpoint_every)
        self.events = [{
            "type": "start", "precommit_sha256": self.precommit.sha256(), "nonce": NONCE,
            "nonce_source": self.precommit.seed_source,
        }]  # fmt: skip
        self.events.append(self.checkpoint(0))
        for number in range(1, steps + 1):
            self.events.append(self.step(number))
            if number % every == 0 or number == steps:
                self.events.append(self.checkpoint(number))
        self.events.append({"type": "end", "step": str(steps)})
        return self

    def place(self, kind: str, step: int) -> int:
        """The place of the first event of this kind and step."""
        return next(
            at for at, event in enumerate(self.events) if (event["type"], event.get("step")) == (kind, str(step))
        )

    def find(self, kind: str, step: int) -> Event:
        """The first event of this kind and step."""
        return self.events[self.place(kind, step)]

    def resume(self, step: int, at: int) -> None:
        """Insert a resumption from the checkpoint of `step` at the place `at`, and the events after it once more."""
        start = self.place("checkpoint", step)
        event = {"type": "resume", "step": str(step), "checkpoint_index": str(start), "dropped_bytes": "0"}
        repeated = [dict(item) for item in self.events[start + 1 :]]
        self.events = [*self.events[:at], event, *repeated]

    def transcript(self) -> Transcript:
        """The transcript, every digest that follows from the events made right, as any forger would."""
        before, states, previous, lines = ZERO_DIGEST, {}, ZERO_DIGEST, []
        model = ZERO_DIGEST
        for number, event in enumerate(self.events):
            if event["type"] == "checkpoint":
                event["previous_state_blake3"] = before
                step = int(event["step"])
                before = state_digest(event["components"], step, self.precommit.config_blake3, before)
                event["state_blake3"] = states[number] = before
                model = event["components"]["model"]
            elif event["type"] == "resume":
                before = states.get(int(event["checkpoint_index"]), before)
            elif event["type"] == "end":
                event["state_blake3"], event["model_blake3"] = before, model
            event["index"], event["previous"] = str(number), previous
            lines.append(canonical_bytes(event))
            previous = previous_digest(lines[-1])
        return read_transcript(b"".join(line + b"\n" for line in lines))

    def chain(self) -> ChainResult:
        """What the walk says."""
        return check_chain(self.transcript(), self.precommit)

    def codes(self) -> list[str]:
        """The codes of the chain's problems, each once, in order."""
        return list(dict.fromkeys(problem.code for problem in self.chain().problems))


def with_files(event: Event) -> Event:
    """A checkpoint event with the files of its components."""
    paths = [min(paths) for paths in checkpoint_files(int(event["step"]), event["components"])]
    return {**event, "files": [{"path": path, "bytes": "8", "sha256": sha256_hex(path.encode())} for path in paths]}


def written(components: tuple[str, ...] = ("model", "optimizer", "rng"), **fields: Any) -> WrittenRun:
    """An honest run of 12 steps, a root every two and files every four."""
    return WrittenRun(Precommit.from_value(precommit_document(**fields), what="pre-commitment"), components).write()
