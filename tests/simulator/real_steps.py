"""`RealBench`: the circuit of a `Bench` under ezkl's own keys, so that a forgery is proven and verified for real."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from step_attacks import CIRCUIT, RUN, Bench, Vectors

from pot.canonical import write_file
from pot.zk.circuit import canonical_settings, run_arguments
from pot.zk.circuits.challenge import challenge, powers
from pot.zk.circuits.field import Vector
from pot.zk.engine import EzklEngine, Limits

ENGINE = EzklEngine(Limits(wall_seconds=240))


@cache
def reference_string(logrows: int) -> bytes:
    """One for all circuits of so many rows."""
    return ENGINE.make_srs(logrows)


@dataclass(frozen=True)
class RealBench:
    """A circuit in one part with ezkl's keys; `folder` holds what its prover needs."""

    bench: Bench
    folder: Path
    settings: bytes
    verifying_key: bytes
    tables: tuple[str, ...]
    srs: bytes

    @classmethod
    def of(cls, bench: Bench, srs: bytes = b"") -> RealBench:
        """The keys of the circuit as it was drafted, with or without all of its checks."""
        (part,), shape = bench.parts.parts, bench.parts.shape
        onnx = part.graph.onnx(bench.parts.lengths(part), part.output)
        raw = ENGINE.settings(onnx, run_arguments(bench.program, shape))
        settings = canonical_settings(raw, shape, len(part.inputs), part.output.size)
        folder = Path(tempfile.mkdtemp(prefix="pot-real-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        srs = srs or reference_string(shape.logrows)
        (folder / "part").mkdir()
        made = ENGINE.setup(onnx, settings, srs, folder / "part")
        write_file(folder / "srs", srs)
        write_file(folder / "part" / "vk", made.verifying_key)
        return cls(bench, folder / "part", settings, made.verifying_key, made.tables, srs)

    def points(self, vectors: Vectors) -> dict[str, str]:
        """The points of all that a step commits to, by name."""
        names = self.bench.parts.layout.names()
        made = ENGINE.commit([vectors[name] for name in names], self.settings, self.verifying_key, self.srs)
        return dict(zip(names, made, strict=True))

    def asked(self, vectors: Vectors) -> tuple[list[Vector], Vector]:
        """A prover's inputs under the challenge that follows from the points, and the outputs that a verifier wants."""
        (part,), names = self.bench.parts.parts, self.bench.parts.layout.names()
        found = challenge(
            circuit_sha256=CIRCUIT, precommit_sha256=RUN, step=1, names=names, points=self.points(vectors)
        )
        spread = powers(found, list(part.graph.powers))
        inputs = {**vectors, "constants": self.bench.parts.constants, "challenge": spread}
        return [inputs[name] for name in part.inputs], [*spread, 0]

    def proves(self, vectors: Vectors) -> bool:
        """Whether ezkl makes a proof of these vectors that verifies for the outputs which a verifier computes.

        A value outside the table satisfies no constraints; ezkl's prover would hang on it, so it is not asked.
        """
        inputs, wanted = self.asked(vectors)
        satisfied, _ = ENGINE.mock(self.folder, inputs)
        if not satisfied:
            return False
        return self.verifies(ENGINE.prove(self.folder, inputs, None), wanted)

    def verifies(self, proof: bytes, wanted: Vector, **change: bytes) -> bool:
        """The proof system's answer, with another key, settings or reference string where they are given."""
        files = {"settings": self.settings, "verifying_key": self.verifying_key, "srs": self.srs, **change}
        return ENGINE.verify([(proof, wanted)], **files) == [True]
