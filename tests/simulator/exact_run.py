"""A recorded run of integer training on invented images, with points that are digests: no prover is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pot import begin, record
from pot.canonical import canonical_bytes, sha256_hex
from pot.data.commit import commit, write_committed
from pot.data.readers import RecordDataset
from pot.recording.chain import ChainResult, check_chain
from pot.recording.precommit import Precommit
from pot.recording.transcript import Transcript, read_transcript
from pot.zk.exact import Weights
from pot.zk.packing import Vector, encode
from pot.zk.rewind import features_and_labels
from pot.zk.spec import CircuitSpec
from pot.zk.training import ExactTrainer

SPEC = CircuitSpec(
    version="pot/circuit-spec/v1", inputs=4, hidden=4, outputs=2, batch=2, weight_bits=28, feature_bits=4,
    feature_range_bits=5, limb_bits=12, rate_shift=3, max_steps=64, blinds=8, logrows=13, columns=4,
)  # fmt: skip
SECRET = bytes(range(32))
CIRCUIT_SHA256 = "cd" * 32


def start_weights() -> Weights:
    """The start state of every such run."""
    rng = np.random.default_rng(4)

    def draw(*shape: int) -> Any:
        return np.round(rng.normal(0, 0.3, shape) * 2**SPEC.weight_bits).astype(np.int64)

    return Weights(draw(4, 4), draw(4), draw(2, 4), draw(2))


def digest_points(vectors: Sequence[Vector]) -> list[str]:
    """In place of KZG points: as binding as those, and as fast as a hash."""
    return [hashlib.sha512(encode(vector)).hexdigest() for vector in vectors]


def trainer(**change: Any) -> ExactTrainer:
    """A trainer at the start state."""
    arguments: dict[str, Any] = {"secret": SECRET, "make_points": digest_points, **change}
    return ExactTrainer(
        change.pop("spec", SPEC), start_weights(), **{k: v for k, v in arguments.items() if k != "spec"}
    )


class ExactRun:
    """A folder with `train.jsonl`, its commitment and the run directory `run`."""

    def __init__(self, folder: Path, records: int = 11, circuit_sha256: str = CIRCUIT_SHA256) -> None:
        self.folder, self.run_dir, self.circuit_sha256 = folder, folder / "run", circuit_sha256
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(5)
        lines = [
            canonical_bytes({"id": n, "image": rng.integers(0, 17, (2, 2)).tolist(), "label": n % 2})
            for n in range(records)
        ]
        (folder / "train.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        write_committed(commit([folder / "train.jsonl"], "pixels/1", "training"), folder / "train.json")

    @property
    def data(self) -> RecordDataset:
        return RecordDataset(self.folder / "train.jsonl")

    @property
    def precommit(self) -> Precommit:
        return Precommit.from_bytes((self.run_dir / "precommit.json").read_bytes(), what="precommit")

    @property
    def transcript(self) -> Transcript:
        return read_transcript((self.run_dir / "transcript.jsonl").read_bytes())

    def chain(self) -> ChainResult:
        return check_chain(self.transcript, self.precommit)

    def train(self, stop: int | None = None) -> ExactTrainer:
        """Train to the end, or up to `stop` steps, as a killed process would; goes on with a run that was stopped."""
        begun = begin(
            self.run_dir,
            commitments=[self.folder / "train.json"],
            config={"steps": 8, "checkpoint_every": 3, "batch_size": SPEC.batch, "circuit_sha256": self.circuit_sha256},
            inputs=[self.folder / "train.jsonl"],
            semantics="exact",
            nonce="0a" * 32,
            secret_sha256=sha256_hex(SECRET),
        )
        source, data = trainer(), self.data
        with record(begun, state=source, data=data) as run:
            for batch in run.batches(data):
                run.step(loss=source.step(run.done + 1, *features_and_labels(SPEC, batch)))
                if run.done == stop:
                    break
        return source
