"""The default circuit at full size: 64-32-10, batch 8, on scikit-learn's digits (about 25 seconds on two cores)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pot.recording.transcript import Points
from pot.zk import exact, kit, prover, srs, verifier
from pot.zk.engine import EzklEngine
from pot.zk.exact import Weights
from pot.zk.fixed import quantise
from pot.zk.spec import CircuitSpec

SPEC = CircuitSpec.digits(rate_shift=3)


def _digits() -> tuple[Any, Any]:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    return digits.data.astype(np.int64), digits.target.astype(np.int64)


def _start() -> Weights:
    rng = np.random.default_rng(1)

    def draw(rows: int, columns: int) -> Any:
        return quantise(rng.normal(0, (2 / columns) ** 0.5, (rows, columns)).astype(np.float32))

    return Weights(draw(32, 64), np.zeros(32, np.int64), draw(10, 32), np.zeros(10, np.int64))


def test_integer_training_learns_the_digits() -> None:
    x, y = _digits()
    order = np.random.default_rng(0).permutation(len(x))
    train, held = order[:1400], order[1400:]
    weights, rng = _start(), np.random.default_rng(2)
    for _ in range(12):
        shuffled = rng.permutation(train)
        for at in range(0, 1400, 8):
            batch = shuffled[at : at + 8]
            weights = exact.step(SPEC, weights, x[batch], y[batch]).weights
    accuracy = (exact.logits(SPEC, weights, x[held]).argmax(axis=1) == y[held]).mean()
    assert accuracy >= 0.95


def test_two_steps_proven_and_linked(tmp_path: Path) -> None:
    pytest.importorskip("ezkl")
    x, y = _digits()
    engine, secret, run = EzklEngine(), b"\7" * 32, "cc" * 32
    made = kit.build_kit(SPEC, srs.make_srs(engine, SPEC.logrows), tmp_path / "kit", engine)
    states = [_start()]
    for n in range(2):
        states.append(exact.step(SPEC, states[-1], x[8 * n : 8 * n + 8], y[8 * n : 8 * n + 8]).weights)
    points = prover.commit_states(made.verifying, secret, list(enumerate(states)), engine)
    batches = prover.commit_batches(
        made.verifying, secret, [(n + 1, x[8 * n : 8 * n + 8], y[8 * n : 8 * n + 8]) for n in range(2)], engine
    )
    proofs = [
        prover.prove_step(
            made, secret=secret, precommit_sha256=run, number=n + 1, weights=states[n],
            features=x[8 * n : 8 * n + 8], labels=y[8 * n : 8 * n + 8], engine=engine,
        )
        for n in range(2)
    ]  # fmt: skip
    expected = [
        verifier.Expected(run, n + 1, Points(before=points[n], batch=batches[n], after=points[n + 1])) for n in range(2)
    ]
    verifier.verify_steps(
        proofs, kit=made.verifying, circuit_sha256=made.circuit.sha256(), expected=expected, engine=engine
    )
    with pytest.raises(verifier.StepProofRefused):
        verifier.verify_steps(
            proofs[::-1], kit=made.verifying, circuit_sha256=made.circuit.sha256(), expected=expected, engine=engine
        )
