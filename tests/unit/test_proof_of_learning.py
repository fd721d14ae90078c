"""The published verifier as it is set beside ours: what its own distances accept, honest training and a line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PLACE = Path(__file__).resolve().parents[2] / "benchmarks" / "proof_of_learning.py"
RATE = 0.05
EVERY, EPOCH, STEPS = 5, 20, 40


@pytest.fixture(scope="module")
def published() -> Any:
    spec = importlib.util.spec_from_file_location("proof_of_learning", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def batches(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs of a linear map and what it makes of them."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(30, 40))
    inputs = [rng.normal(size=(16, 40)) for _ in range(STEPS)]
    return [(x, x @ truth.T) for x in inputs]


@pytest.fixture(scope="module")
def execute(published: Any) -> Callable[..., Any]:
    """Least squares by gradient descent, with the rate that the checkpoint names."""

    def run(start: Any, some: Sequence[Any]) -> Any:
        weight = start.weights["weight"].copy()
        for inputs, targets in some:
            weight -= start.optimizer["rate"] * (inputs @ weight.T - targets).T @ inputs / len(inputs)
        return published.Checkpoint({"weight": weight}, dict(start.optimizer))

    return run


@pytest.fixture(scope="module")
def honest(published: Any, execute: Any) -> Any:
    rng = np.random.default_rng(1)
    given = batches()
    told = [published.Checkpoint({"weight": rng.uniform(-1, 1, (30, 40)) / np.sqrt(40)}, {"rate": RATE})]
    for at in range(0, STEPS, EVERY):
        told.append(execute(told[-1], given[at : at + EVERY]))
    hashes = [published.data_hash(batch[0]) for batch in given]
    return published.ProofOfLearning(told, given, hashes, EVERY, EPOCH)


def test_honest_training_is_accepted_by_every_rule(published: Any, execute: Any, honest: Any) -> None:
    found = published.verify(honest, execute, 1.0)
    assert found == dict.fromkeys([*published.RULES, "normalised"], True)


def test_a_line_to_random_weights_at_a_tiny_rate_is_accepted(published: Any, execute: Any, honest: Any) -> None:
    start, count = honest.checkpoints[0].weights["weight"], 80
    end = start + np.random.default_rng(2).normal(size=start.shape) / 10
    told = [
        published.Checkpoint({"weight": start + (end - start) * at / count}, {"rate": 1e-9}) for at in range(count + 1)
    ]
    forged = replace(honest, checkpoints=told, batches=honest.batches * 2, hashes=honest.hashes * 2, every=1)
    reference = float(np.linalg.norm(end - start))
    assert all(published.verify(forged, execute, reference).values())


def test_a_jump_is_seen_only_by_thresholds_below_it(published: Any, execute: Any, honest: Any) -> None:
    told = list(honest.checkpoints)
    jumped = told[3].weights["weight"].copy()
    jumped[0, 0] += 5
    told[3] = replace(told[3], weights={"weight": jumped})
    found = published.verify(replace(honest, checkpoints=told), execute, 10.0)
    assert (found["l1"], found["l2"], found["linf"], found["normalised"]) == (True, True, False, False)


def test_only_the_two_largest_updates_of_an_epoch_are_executed(published: Any, execute: Any, honest: Any) -> None:
    seen = []

    def counting(start: Any, some: Sequence[Any]) -> Any:
        seen.append(next(at for at, told in enumerate(honest.checkpoints) if told is start))
        return execute(start, some)

    published.verify(honest, counting, 1.0)
    sizes = [
        float(np.linalg.norm(b.vector() - a.vector()))
        for a, b in zip(honest.checkpoints, honest.checkpoints[1:], strict=False)
    ]
    first, second = (sorted(range(at, at + 4), key=lambda p: sizes[p])[-2:] for at in (0, 4))
    assert {*first, *second} <= set(seen)
    assert len(seen) < 8  # four distances rank alike, or nearly; never all segments


def test_trained_weights_are_no_initial_ones(published: Any, execute: Any, honest: Any) -> None:
    backwards = replace(honest, checkpoints=honest.checkpoints[::-1])
    assert not any(published.verify(backwards, execute, 1.0).values())


def test_sorted_into_a_fresh_initialisation_they_are(published: Any, execute: Any, honest: Any) -> None:
    """A06: the values of one drawing, in the order of trained weights."""
    trained = honest.checkpoints[-1].weights["weight"]
    drawn = np.sort(np.random.default_rng(3).uniform(-1, 1, trained.size) / np.sqrt(40))
    start = drawn[np.argsort(np.argsort(trained.ravel()))].reshape(trained.shape)
    told = [published.Checkpoint({"weight": start}, {"rate": RATE})]
    for at in range(0, STEPS, EVERY):
        told.append(execute(told[-1], honest.batches[at : at + EVERY]))
    assert all(published.verify(replace(honest, checkpoints=told), execute, 1.0).values())
    assert np.corrcoef(start.ravel(), trained.ravel())[0, 1] > 0.9


def test_the_digest_of_the_data_sees_the_corners_of_an_array(published: Any) -> None:
    array = np.zeros((16, 64), np.float32)
    changed = array.copy()
    changed[5:10, 5:60] = 7.0
    assert published.data_hash(changed) == published.data_hash(array)
    changed[0, 0] = 7.0
    assert published.data_hash(changed) != published.data_hash(array)


def test_another_digest_is_refused(published: Any, execute: Any, honest: Any) -> None:
    forged = replace(honest, hashes=[*honest.hashes[:-1], "00" * 32])
    assert not any(published.verify(forged, execute, 1.0).values())


def test_the_probability_of_uniform_values_is_uniform(published: Any) -> None:
    rng = np.random.default_rng(4)
    found = [published.ks_probability(rng.uniform(-0.5, 0.5, 200), 0.5) for _ in range(2000)]
    for level in (0.01, 0.1, 0.5):
        assert abs(np.mean([p <= level for p in found]) - level) < 0.04
    assert published.ks_probability(rng.normal(0, 0.5, 2000), 0.5) < 1e-3


@pytest.mark.parametrize(("kind", "expected"), [("l1", 7.0), ("l2", 5.0), ("linf", 4.0), ("cos", 1.0)])
def test_distances(published: Any, kind: str, expected: float) -> None:
    one, other = (np.array([3.0, 0.0]), np.array([0.0, 4.0]))
    assert published.distance(one, other, kind) == pytest.approx(expected)


def test_a_state_without_numbers_is_not_near(published: Any, execute: Any, honest: Any) -> None:
    told = [replace(item, weights={"weight": item.weights["weight"] * np.nan}) for item in honest.checkpoints[1:]]
    forged = replace(honest, checkpoints=[honest.checkpoints[0], *told])
    assert not any(published.verify(forged, execute, 1.0).values())
