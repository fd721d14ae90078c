"""A tiny circuit in two parts, a run of two steps under it, and their honest proofs; made once for a test process.

The state is two vectors, so that every list of points has more than one.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from step_attacks import RUN, SECRET, Bench, Vectors

from pot.recording.transcript import Points
from pot.zk import verifier
from pot.zk.circuits.challenge import challenge, powers
from pot.zk.circuits.field import Vector
from pot.zk.circuits.parts import make_parts
from pot.zk.engine import EzklEngine, Limits
from pot.zk.kit import ProvingKit, build_kit, commit_points, commit_vectors
from pot.zk.proof import StepProof
from pot.zk.prover import prove_step
from pot.zk.semantics.digits import mlp_program
from pot.zk.semantics.exact import run

PROGRAM = mlp_program(
    inputs=120, hidden=4, outputs=3, batch=1, feature_bits=4, width=5, rate_shift=3, limb_bits=8
)  # fmt: skip
LOGROWS, COLUMNS = 9, 8


@dataclass(frozen=True)
class ProvenSteps:
    """Circuit, run and proofs. `states[n]` is the state after step n."""

    engine: EzklEngine
    kit: ProvingKit
    pin: str
    states: list[dict[str, Any]]
    batches: list[dict[str, Any]]
    points: list[Points]
    proofs: list[StepProof]

    @property
    def bench(self) -> Bench:
        """The same circuit with an executor in place of ezkl."""
        return Bench(PROGRAM, make_parts(PROGRAM, self.kit.circuit.shape))

    def expected(self, step: int = 1, *, run: str = RUN, points: Points | None = None) -> verifier.Expected:
        """What the transcript says of a step."""
        return verifier.Expected(run, step, points or self.points[step - 1])

    def check(self, proof: StepProof, expected: verifier.Expected | None = None, **change: Any) -> None:
        """Verify one proof, with some files of the kit changed."""
        kit = replace(self.kit.verifying, **change)
        verifier.verify_step(
            proof, kit=kit, circuit_sha256=self.pin, expected=expected or self.expected(), engine=self.engine
        )

    def refuses(self, proof: StepProof, expected: verifier.Expected | None = None, **change: Any) -> str:
        """The code with which the verifier refuses; fails where it does not."""
        try:
            self.check(proof, expected, **change)
        except verifier.StepProofRefused as error:
            return error.code
        raise AssertionError("the proof was accepted")

    def public(self, proof: StepProof, part: int) -> Vector:
        """The outputs that a part of this proof is about, as its own fields say."""
        points = dict(zip(self.kit.verifying.layout.names(), all_points(proof), strict=True))
        found = self.challenge(points, int(proof.step), proof.precommit_sha256)
        return [*powers(found, self.kit.circuit.parts[part].powers), 0]

    def challenge(self, points: dict[str, str], step: int, run: str = RUN) -> Vector:
        """The challenge that follows from points."""
        names = self.kit.verifying.layout.names()
        return challenge(circuit_sha256=self.pin, precommit_sha256=run, step=step, names=names, points=points)

    def system_accepts(self, bodies: Sequence[bytes], public: Vector, part: int = 0, **change: bytes) -> list[bool]:
        """The proof system alone, without any of our checks."""
        files = self.kit.verifying.parts[part]
        given = {"settings": files.settings, "verifying_key": files.verifying_key, "srs": self.kit.verifying.srs}
        return self.engine.verify([(body, public) for body in bodies], **{**given, **change})

    def vectors(self, step: int = 1) -> Vectors:
        """What the honest prover commits to."""
        state, batch = self.states[step - 1], self.batches[step - 1]
        return self.bench.vectors(run(PROGRAM, state, batch), state, batch, step)

    def forge(self, vectors: Vectors, *, step: int = 1, known: Vector | None = None) -> StepProof:
        """A proof of whatever ezkl proves for these vectors, under their challenge or a `known` one."""
        names = self.kit.verifying.layout.names()
        points = dict(
            zip(names, commit_vectors(self.kit.verifying, [vectors[n] for n in names], self.engine), strict=True)
        )
        found = known or self.challenge(points, step)
        proofs = []
        for at, part in enumerate(self.bench.parts.parts):
            inputs = {**vectors, "constants": self.bench.parts.constants}
            inputs["challenge"] = powers(found, self.kit.circuit.parts[at].powers)
            body = self.engine.prove(self.kit.part_folder(at), [inputs[name] for name in part.inputs], None)
            proofs.append(body.hex())
        joined = {family: "".join(points[n] for n in names if n.startswith(family)) for family in FAMILIES}
        return self.proofs[0].model_copy(
            update={
                "step": str(step), "points": Points(**joined), "proofs": proofs,
                "witness": [points[name] for name in names if name.startswith("witness")],
            }
        )  # fmt: skip


FAMILIES = ("before", "batch", "after")


def all_points(proof: StepProof) -> list[str]:
    """The points of a proof in the order of the layout's names."""
    text = proof.points.before + proof.points.after + proof.points.batch + "".join(proof.witness)
    return [text[at : at + 128] for at in range(0, len(text), 128)]


@cache
def proven_steps() -> ProvenSteps:
    """The one world of this process; not to be changed."""
    folder = Path(tempfile.mkdtemp(prefix="pot-proven-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    engine = EzklEngine(Limits(wall_seconds=240))
    kit = build_kit(PROGRAM, engine.make_srs(LOGROWS), folder / "kit", engine, columns=COLUMNS)
    rng = np.random.default_rng(0)
    states = [
        {str(PROGRAM.nodes[at].name): rng.integers(-(2**22), 2**22, PROGRAM.nodes[at].shape) for at in PROGRAM.states}
    ]
    batches = []
    for _ in range(2):
        batches.append(
            {"image": rng.integers(0, 17, (1, 120)), "label": np.eye(3, dtype=np.int64)[rng.integers(0, 3, 1)]}
        )
        states.append(run(PROGRAM, states[-1], batches[-1]).next)
    found = commit_points(kit.verifying, SECRET, list(enumerate(states)), list(enumerate(batches, 1)), engine)
    points = [Points(before=found[n], batch=found[3 + n], after=found[n + 1]) for n in range(2)]
    proofs = [
        prove_step(
            kit, secret=SECRET, precommit_sha256=RUN, number=n, state=states[n - 1], batch=batches[n - 1], engine=engine
        )
        for n in (1, 2)
    ]
    return ProvenSteps(engine, kit, kit.circuit.sha256(), states, batches, points, proofs)
