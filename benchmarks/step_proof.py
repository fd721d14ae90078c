"""What step proofs cost, beside published provers and beside ezkl's own quantisation.

make bench-zk            the largest first, about 15 minutes on 2 cores
make bench-zk QUICK=1    small ones only

CPU seconds and memory are those of the processes in which ezkl runs. Kaizen's figures (LeNet, one step; its own code on
the same kind of machine): batch 1 about 50 CPU-s and 1.84 GB, batch 8 396 CPU-s and 11.1 GB.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from step_auto import auto_digits
from step_programs import Step, lenet, mlp
from table import Row, finish

from pot.recording.transcript import Points
from pot.zk.circuits.parts import choose_shape
from pot.zk.engine import EzklEngine
from pot.zk.kit import ProvingKit, build_kit, commit_points
from pot.zk.proof import StepProof
from pot.zk.prover import prove_step
from pot.zk.srs import make_srs
from pot.zk.verifier import Expected, verify_steps

RUN = "ab" * 32
GB = 1e9
KAIZEN = {1: (50.0, 1.84), 8: (396.0, 11.1)}
KAIZEN_PARAMETERS = 61_706
COMMITTED = 8  # states that are committed to at once
CHAIN = 50


@dataclass(frozen=True)
class Cost:
    """One step proven."""

    kit: ProvingKit
    proof: StepProof
    wall: float
    cpu: float
    memory: float
    verify: float


def expected(proof: StepProof) -> Expected:
    """What a transcript would say of it."""
    return Expected(RUN, int(proof.step), Points(**proof.points.model_dump()))


def prove(step: Step, folder: Path) -> Cost:
    """Keys, one proof, one verification; each in the engine's processes."""
    engine, secret = EzklEngine(), secrets.token_bytes(32)
    shape = choose_shape(step.program)
    print(f"{step.program.label}: 2^{shape.logrows} rows, {shape.columns} columns", flush=True)
    kit = build_kit(step.program, make_srs(engine, shape.logrows), folder, engine, logrows=shape.logrows)
    engine.usage.clear()
    start = time.perf_counter()
    proof = prove_step(
        kit, secret=secret, precommit_sha256=RUN, number=1, state=step.state, batch=step.batch, engine=engine
    )
    wall = time.perf_counter() - start
    cpu = sum(item.cpu_seconds for item in engine.usage)
    memory = max(item.memory_bytes for item in engine.usage) / GB
    verify = sum(item.cpu_seconds for item in engine.usage if item.call == "verify")
    return Cost(kit, proof, wall, cpu, memory, verify)


def rows_of(name: str, cost: Cost, batch: int) -> list[Row]:
    """Per parameter and sample beside Kaizen, proof size, verification."""
    parameters = cost.kit.program.parameters
    peer = KAIZEN[batch][0] / KAIZEN_PARAMETERS / batch * 1e6
    mine = cost.cpu / parameters / batch * 1e6
    parts = len(cost.proof.proofs)
    size = sum(len(part) // 2 for part in cost.proof.proofs) / 1024
    return [
        Row(
            f"{name}: CPU per parameter and sample",
            mine,
            "us",
            f"Kaizen LeNet batch {batch}: {peer:.0f}",
            mine / peer,
            1,
        ),
        Row(f"{name}: proof", size, "KiB", "16 KiB a part", size / 16 / parts, 1),
        Row(f"{name}: verification", cost.verify, "CPU s", "0.3 s a part", cost.verify / 0.3 / parts, 1),
    ]


def large(folder: Path) -> list[Row]:
    """The three large steps."""
    rows = []
    for batch in (8, 1):
        cost = prove(lenet(batch), folder / f"lenet-{batch}")
        name, (seconds, memory) = f"LeNet, batch {batch}", KAIZEN[batch]
        rows += [
            Row(f"{name}: CPU", cost.cpu, "CPU s", f"Kaizen: {seconds:g}", cost.cpu / seconds, 1),
            Row(f"{name}: memory", cost.memory, "GB", f"Kaizen: {memory:g}", cost.memory / memory, 1),
            *rows_of(name, cost, batch),
        ]
    cost = prove(mlp(784, 64, 10, width=8, limb_bits=14), folder / "mlp")
    rows += [
        Row("MLP 784-64-10, batch 8: wall", cost.wall, "s", "120 s", cost.wall / 120, 1),
        Row("MLP 784-64-10, batch 8: memory", cost.memory, "GB", "10 GB", cost.memory / 10, 1),
        *rows_of("MLP 784-64-10, batch 8", cost, 8),
        committing(cost),
    ]
    return rows


def committing(cost: Cost) -> Row:
    """What it costs to commit to states, so that their steps can be proven later."""
    engine = EzklEngine()
    step = mlp(784, 64, 10, width=8, limb_bits=14)
    states = [(number, step.state) for number in range(1, COMMITTED + 1)]
    start = time.process_time()
    commit_points(cost.kit.verifying, secrets.token_bytes(32), states, [], engine)
    cpu = time.process_time() - start + sum(item.cpu_seconds for item in engine.usage)
    each = cpu / COMMITTED / step.program.parameters * 1e6
    return Row("committing a state, per parameter", each, "us", "5 us", each / 5, 1)


def small(folder: Path, *, quick: bool) -> list[Row]:
    """64-32-10: beside ezkl's own quantisation unless `quick`, and a chain of verifications."""
    step = mlp(64, 32, 10, width=5, limb_bits=12)
    cost = prove(step, folder / "digits")
    engine = EzklEngine()
    start = time.perf_counter()
    verify_steps(
        [cost.proof] * CHAIN, kit=cost.kit.verifying, circuit_sha256=cost.kit.circuit.sha256(),
        expected=[expected(cost.proof)] * CHAIN, engine=engine,
    )  # fmt: skip
    wall = time.perf_counter() - start
    rows = [
        *rows_of("MLP 64-32-10, batch 8", cost, 8),
        Row(f"verification of {CHAIN} step proofs, key known", wall, "s", "10 s", wall / 10, 1),
    ]
    if not quick:
        eighth = auto_digits(folder / "auto") / 8
        beside = f"an eighth of family auto: {eighth:.3g}"
        rows.append(Row("MLP 64-32-10, batch 8: CPU, exact", cost.cpu, "CPU s", beside, cost.cpu / eighth, 1))
    return rows


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="only the small step")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [] if chosen.quick else large(folder)
        finish("zk", rows + small(folder, quick=chosen.quick))


if __name__ == "__main__":
    main()
