"""A recorded run with points and a kit for it, either with ezkl or with `StandIn`, which answers at once.

Points and proofs of `StandIn` are digests: as binding as the real ones, and they hide nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pot import begin, record
from pot.canonical import canonical_bytes, sha256_hex, write_file
from pot.data.commit import commit, write_committed
from pot.data.readers import RecordDataset
from pot.zk.circuit import Circuit, CircuitPart
from pot.zk.circuits.field import Vector, encode
from pot.zk.circuits.parts import choose_shape, make_parts
from pot.zk.engine import EngineFailure
from pot.zk.kit import KitPart, ProvingKit, VerifyingKit, commit_points, open_kit
from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.digits import mlp_program
from pot.zk.semantics.program import Program
from pot.zk.training import ExactTrainer

if TYPE_CHECKING:
    from pot.zk.engine import Engine

SECRET = bytes(range(32))
STEPS = 8


def small_program(inputs: int = 8) -> Program:
    """Fits 2^9 rows, in one part with 4 columns and in two with 2."""
    return mlp_program(inputs=inputs, hidden=4, outputs=3, batch=2, feature_bits=4, width=5, rate_shift=3, limb_bits=8)


@dataclass
class StandIn:
    """In place of ezkl. Each proof leaves a file in `folder`, also from other processes; some fail, some never end.

    `fails`, `hangs`: numbers of proofs, from 1, in the order in which they were begun.
    """

    folder: Path
    fails: Collection[int] = ()
    hangs: Collection[int] = ()
    limits: list[Any] = field(default_factory=list)

    def __call__(self, *limits: Any) -> StandIn:
        """In place of the class `EzklEngine`."""
        self.limits.extend(limits)
        return self

    @property
    def proofs(self) -> int:
        """How many proofs were begun."""
        return len(list(self.folder.glob("proof-*")))

    def version(self) -> str:
        return "23.0.5"

    def commit(self, vectors: Sequence[Vector], *files: bytes) -> list[str]:
        return [_point(vector) for vector in vectors]

    def prove(self, folder: Path, inputs: Sequence[Vector], expected: Vector | None) -> bytes:
        number = self._begun()
        if number in self.fails:
            raise EngineFailure("prove", "out of memory")
        if number in self.hangs:
            time.sleep(600)
        assert expected is not None
        return bytes.fromhex("".join([*map(_point, inputs), _point(expected)]))

    def verify(self, proofs: Sequence[tuple[bytes, Vector]], *files: bytes) -> list[bool]:
        return [proof.hex().endswith(_point(public)) for proof, public in proofs]

    def _begun(self) -> int:
        self.folder.mkdir(exist_ok=True)
        while True:
            number = self.proofs + 1
            try:
                (self.folder / f"proof-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return number


def _points(kit: ProvingKit, engine: Engine, *given: Any) -> list[str]:
    return commit_points(kit.verifying, *given, engine)


def _point(vector: Vector) -> str:
    return hashlib.sha512(encode(vector)).hexdigest()


def stand_in_kit(folder: Path, program: Program, *, columns: int | None = None) -> ProvingKit:
    """A kit whose digests fit; its keys and its SRS mean nothing."""
    shape = choose_shape(program, None if columns is None else 9, columns)
    parts = make_parts(program, shape)
    srs = shape.logrows.to_bytes(4, "little") + bytes((128 << shape.logrows) + 256)
    settings = canonical_bytes({"run_args": {"input_visibility": "KZGCommit", "output_visibility": "Public"}})
    documents = [
        CircuitPart(
            inputs=part.inputs, powers=[list(run) for run in part.graph.powers], onnx_sha256="00" * 32,
            settings_sha256=sha256_hex(settings), vk_sha256=sha256_hex(b"key"),
            proof_bytes=str(64 * (len(part.inputs) + 1)),
        )
        for part in parts.parts
    ]  # fmt: skip
    circuit = Circuit(
        version="pot/circuit/v2", family="exact", label=program.label, program_sha256=program.sha256(),
        batch=program.batch, parameters=program.parameters, max_steps=program.max_steps, logrows=shape.logrows,
        columns=shape.columns, blinds=shape.blinds, ezkl_version="23.0.5", srs_sha256=sha256_hex(srs),
        constants_point=_point(parts.constants), parts=documents,
    )  # fmt: skip
    made = VerifyingKit(circuit, program, [KitPart(settings, b"key")] * len(documents), srs)
    for name, data in {"program.json": program.to_bytes(), "circuit.json": circuit.to_bytes(), "srs": srs}.items():
        write_file(folder / name, data)
    for at, part in enumerate(made.parts):
        write_file(folder / f"part-{at}" / "settings.json", part.settings)
        write_file(folder / f"part-{at}" / "vk", part.verifying_key)
    return open_kit(folder)


class PointedRun:
    """A folder with `train.jsonl`, its commitment, `secret`, and the run directory `run` of 8 exact steps."""

    def __init__(self, folder: Path, kit: ProvingKit, engine: Engine) -> None:
        self.folder, self.run_dir, self.kit = folder, folder / "run", kit
        self.data, self.secret = folder / "train.jsonl", folder / "secret"
        program = kit.program
        rng = np.random.default_rng(5)
        size = program.nodes[program.batches[0]].shape[1]
        records = [{"id": n, "image": rng.integers(0, 17, (2, size // 2)).tolist(), "label": n % 3} for n in range(11)]
        write_file(self.data, b"".join(canonical_bytes(item) + b"\n" for item in records))
        write_committed(commit([self.data], "pixels/1", "training"), folder / "train.json")
        write_file(self.secret, SECRET)
        nodes = [program.nodes[at] for at in program.states]
        self.start = {
            str(node.name): np.round(rng.normal(0, 0.3, node.shape) * 2**node.bits).astype(np.int64) for node in nodes
        }
        source = ExactTrainer(program, self.start, secret=SECRET, make_points=partial(_points, kit, engine))
        begun = begin(
            self.run_dir, commitments=[folder / "train.json"], semantics="exact", nonce="0a" * 32,
            config={
                "steps": STEPS, "checkpoint_every": 3, "batch_size": program.batch,
                "circuit_sha256": kit.circuit.sha256(),
            },
            inputs=[self.data], secret_sha256=sha256_hex(SECRET),
        )  # fmt: skip
        data = RecordDataset(self.data)
        with record(begun, state=source, data=data) as run:
            for chosen in run.batches(data):
                source.step(run.done + 1, batch_arrays(program, chosen))
                run.step()
