"""A recorded run of integer training on invented images, with points that are digests: no prover is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pot import begin, record
from pot.canonical import canonical_bytes, sha256_hex
from pot.commitments.state import TensorEntry
from pot.data.commit import commit, write_committed
from pot.data.readers import RecordDataset
from pot.recording.checking.chain import ChainResult, check_chain
from pot.recording.precommit import Precommit
from pot.recording.transcript import Transcript, read_transcript
from pot.zk.runs.segment import Numbered
from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.digits import mlp_program
from pot.zk.semantics.program import Program
from pot.zk.training import ExactTrainer, squared_error

PROGRAM = mlp_program(inputs=4, hidden=4, outputs=2, batch=2, feature_bits=4, width=5, rate_shift=3)
SECRET = bytes(range(32))
CIRCUIT_SHA256 = "cd" * 32


def start_weights(program: Program = PROGRAM, seed: int = 4, scale: float = 0.3) -> dict[str, Any]:
    """The start state of every such run."""
    rng = np.random.default_rng(seed)
    nodes = [program.nodes[index] for index in program.states]
    return {
        str(node.name): np.round(rng.normal(0, scale, node.shape) * 2**node.bits).astype(np.int64) for node in nodes
    }


def digest_points(secret: bytes, states: Sequence[Numbered], batches: Sequence[Numbered]) -> list[str]:
    """In place of KZG points: as binding as those, and as fast as a hash."""
    return [_digest(secret, label, *item) for label, items in (("state", states), ("batch", batches)) for item in items]


def _digest(secret: bytes, label: str, number: int, tensors: Mapping[str, Any]) -> str:
    parts = [name.encode() + array.tobytes() for name, array in sorted(tensors.items())]
    return hashlib.sha512(b"".join([secret, label.encode(), number.to_bytes(8, "little"), *parts])).hexdigest()


def trainer(**change: Any) -> ExactTrainer:
    """A trainer at the start state."""
    program = change.pop("program", PROGRAM)
    arguments: dict[str, Any] = {
        "secret": SECRET,
        "make_points": digest_points,
        "loss": squared_error(program),
        **change,
    }
    return ExactTrainer(program, arguments.pop("state", None) or start_weights(program), **arguments)


class ExactRun:
    """A folder with `train.jsonl`, its commitment and the run directory `run`."""

    frozen: Sequence[TensorEntry] = ()
    """Tensors of the model beside those that are trained."""

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
            config={
                "steps": 8,
                "checkpoint_every": 3,
                "batch_size": PROGRAM.batch,
                "circuit_sha256": self.circuit_sha256,
            },
            inputs=[self.folder / "train.jsonl"],
            semantics="exact",
            nonce="0a" * 32,
            secret_sha256=sha256_hex(SECRET),
        )
        source, data = trainer(frozen=self.frozen), self.data
        with record(begun, state=source, data=data) as run:
            for records in run.batches(data):
                run.step(loss=source.step(run.done + 1, batch_arrays(PROGRAM, records)))
                if run.done == stop:
                    break
        return source
