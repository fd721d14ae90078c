"""What a step proof costs: 64-32-10, batch 8, 2,410 parameters; each stage beside making one step proof.

make bench-zk
"""

from __future__ import annotations

import resource
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from table import Row, finish

from pot.zk.engine import EzklEngine
from pot.zk.exact import Weights, step
from pot.zk.kit import build_kit, commit_vectors
from pot.zk.packing import blinds, state_vector
from pot.zk.prover import prove_step
from pot.zk.spec import CircuitSpec
from pot.zk.srs import make_srs

T = TypeVar("T")
PROOFS = 3
VECTORS = 20


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Wall seconds, and the result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def random_step(spec: CircuitSpec) -> tuple[Weights, np.ndarray, np.ndarray]:
    """Weights as after training, and a batch."""
    rng = np.random.default_rng(0)
    grid = float(1 << spec.weight_bits)
    weights = Weights(
        *(
            np.rint(rng.normal(0, 0.15, shape) * grid).astype(np.int64)
            for shape in ((spec.hidden, spec.inputs), (spec.hidden,), (spec.outputs, spec.hidden), (spec.outputs,))
        )
    )
    return weights, rng.integers(0, 17, (spec.batch, spec.inputs)), rng.integers(0, spec.outputs, spec.batch)


def main() -> None:
    """Run the stages once and print them."""
    engine, spec, secret = EzklEngine(), CircuitSpec.digits(), secrets.token_bytes(32)
    weights, features, labels = random_step(spec)
    with tempfile.TemporaryDirectory() as folder:
        srs_seconds, srs = timed(lambda: make_srs(engine, spec.logrows))
        kit_seconds, kit = timed(lambda: build_kit(spec, srs, Path(folder) / "kit", engine))
        prove = []
        for number in range(1, PROOFS + 1):
            seconds, proof = timed(
                lambda number=number: prove_step(
                    kit, secret=secret, precommit_sha256="0" * 64, number=number, weights=weights, features=features,
                    labels=labels, engine=engine,
                )
            )  # fmt: skip
            prove.append((seconds, bytes.fromhex(proof.proof)))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        files = kit.verifying
        verify_seconds, valid = timed(
            lambda: engine.verify([body for _, body in prove], files.settings, files.verifying_key, files.srs)
        )
        vector = state_vector(spec, weights, blinds(spec, secret, "state", 0))
        commit_seconds, _ = timed(lambda: commit_vectors(files, [vector] * VECTORS, engine))
    step_seconds, _ = timed(lambda: [step(spec, weights, features, labels) for _ in range(100)])
    assert valid == [True] * PROOFS
    one = min(seconds for seconds, _ in prove)
    size = len(prove[0][1])
    rows = [
        Row("reference string", srs_seconds, "s", "one step proof", srs_seconds / one, 2),
        Row("circuit and keys", kit_seconds, "s", "one step proof", kit_seconds / one, 4),
        Row("one step proof", one, "s", "itself", 1, 1),
        Row("its peak memory", peak, "GB", "16 GB", peak / 16, 0.1),
        Row("its size", size, "bytes", "the state it speaks of, int64", size / (8 * spec.parameters), 0.5),
        Row("verify one of them", verify_seconds / PROOFS, "s", "one step proof", verify_seconds / PROOFS / one, 0.1),
        Row("commit to a state", commit_seconds / VECTORS, "s", "one step proof", commit_seconds / VECTORS / one, 0.05),
        Row("the step itself", step_seconds / 100, "s", "one step proof", step_seconds / 100 / one, 0.001),
    ]
    finish("zk", rows)


if __name__ == "__main__":
    main()
