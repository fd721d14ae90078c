"""The default circuit at full size: 64-32-10, batch 8, on scikit-learn's digits, trained, proven and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pot.recording.transcript import Points
from pot.zk import verifier
from pot.zk.engine import EzklEngine
from pot.zk.kit import build_kit, commit_points
from pot.zk.prover import prove_step
from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.digits import digits_program
from pot.zk.semantics.exact import run

PROGRAM = digits_program(rate_shift=3)
BITS = 28


def _digits() -> tuple[Any, Any]:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    return digits.data.astype(np.int64), digits.target.astype(np.int64)


def _start() -> dict[str, Any]:
    rng = np.random.default_rng(1)

    def draw(rows: int, columns: int) -> Any:
        return np.round(rng.normal(0, (1 / columns) ** 0.5 / 2, (rows, columns)) * 2**BITS).astype(np.int64)

    return {
        "0.weight": draw(32, 64), "0.bias": np.zeros(32, np.int64),
        "2.weight": draw(10, 32), "2.bias": np.zeros(10, np.int64),
    }  # fmt: skip


def _batch(x: Any, y: Any, rows: Any) -> dict[str, Any]:
    return batch_arrays(PROGRAM, [{"image": x[row].tolist(), "label": int(y[row])} for row in rows])


def test_integer_training_learns_the_digits() -> None:
    x, y = _digits()
    order = np.random.default_rng(0).permutation(len(x))
    train, held = order[:1400], order[1400:]
    state, rng = _start(), np.random.default_rng(2)
    for _ in range(8):
        shuffled = rng.permutation(train)
        for at in range(0, 1400, 8):
            state = run(PROGRAM, state, _batch(x, y, shuffled[at : at + 8])).next
    weights = {name: values / 2**BITS for name, values in state.items()}
    hidden = np.maximum(x[held] / 16 @ weights["0.weight"].T + weights["0.bias"], 0)
    scores = hidden @ weights["2.weight"].T + weights["2.bias"]
    assert (scores.argmax(axis=1) == y[held]).mean() >= 0.95


def test_two_steps_proven_and_linked(tmp_path: Path) -> None:
    pytest.importorskip("ezkl")
    x, y = _digits()
    engine, secret, precommit = EzklEngine(), b"\7" * 32, "cc" * 32
    kit = build_kit(PROGRAM, engine.make_srs(13), tmp_path / "kit", engine)
    batches = [_batch(x, y, range(8 * n, 8 * n + 8)) for n in range(2)]
    states = [_start()]
    for batch in batches:
        states.append(run(PROGRAM, states[-1], batch).next)
    found = commit_points(kit.verifying, secret, list(enumerate(states)), list(enumerate(batches, 1)), engine)
    points = [Points(before=found[n], batch=found[3 + n], after=found[n + 1]) for n in range(2)]
    proofs = [
        prove_step(
            kit, secret=secret, precommit_sha256=precommit, number=n, state=states[n - 1], batch=batches[n - 1],
            engine=engine,
        )
        for n in (1, 2)
    ]  # fmt: skip
    assert [proof.points for proof in proofs] == points
    assert len(kit.circuit.parts) == 1
    assert sum(len(text) // 2 for text in proofs[0].proofs) <= 16 << 10
    expected = [verifier.Expected(precommit, n, points[n - 1]) for n in (1, 2)]
    pinned = kit.circuit.sha256()
    verifier.verify_steps(proofs, kit=kit.verifying, circuit_sha256=pinned, expected=expected, engine=engine)
    with pytest.raises(verifier.StepProofRefused):
        verifier.verify_steps(proofs[::-1], kit=kit.verifying, circuit_sha256=pinned, expected=expected, engine=engine)
