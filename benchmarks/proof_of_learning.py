"""The published proof-of-learning verifier, written anew from its paper, to be set beside ours in `attacks.py`.

Source: Jia, Yaghini, Choquette-Choo, Dullerud, Thudi, Chandrasekaran, Papernot, "Proof-of-Learning: Definitions and
Practice", IEEE S&P 2021 (arXiv 2103.05633), section V. Distances, thresholds, Q and the digest of the data are those
that the authors' program has by default, but for cosine (0.001 there). They are what its breaks are measured against:
Zhang et al., "'Adversarial Examples' for Proof-of-Learning", IEEE S&P 2022 (arXiv 2108.09454); Fang et al.,
"Proof-of-Learning is Currently More Broken Than You Think", EuroS&P 2023 (arXiv 2208.03567). No code is taken from any.

A proof of learning holds checkpoints every k steps (weights, optimizer with its hyper-parameters), the records of every
step, and digests of the batches. The verifier

1. tests that each weight matrix and bias of W_0 has the distribution that the program draws it from
   (Kolmogorov-Smirnov, p >= 0.01),
2. compares the digests of the batches with those of the data that it was given,
3. ranks the updates |W_{i+k} - W_i| of each epoch, and re-executes the Q = 2 largest from the proof's own checkpoints,
4. accepts if every distance d(W_{i+k}, W'_{i+k}) is at most delta: 1000 in l1, 10 in l2, 0.1 in l-infinity, 0.01 in
   cosine distance; or, normalised, at most a part of d_ref, the distance between two trainings of this kind.

Shows: what these rules accept. Does not show: what they would accept with thresholds made for one model; the absolute
ones are large beside a small model's weights, which is why the normalised one is there too.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NORMALISED", "RULES", "Checkpoint", "ProofOfLearning", "data_hash", "distance", "ks_probability", "verify"]

Array = NDArray[Any]
RULES: Final = {"l1": 1000.0, "l2": 10.0, "linf": 0.1, "cos": 0.01}
NORMALISED: Final = 0.1
"""The part of d_ref: a bound that honest runs, at a few percent of it, keep with room."""

_LARGEST: Final = 2
_INITIAL_P: Final = 0.01


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and the optimizer's state as the prover wrote it, hyper-parameters included."""

    weights: dict[str, Array]
    optimizer: Any

    def vector(self) -> Array:
        """All weights in a row, float64."""
        return np.concatenate([self.weights[name].astype(np.float64).ravel() for name in sorted(self.weights)])


@dataclass(frozen=True)
class ProofOfLearning:
    """What the prover hands over. `batches` and `hashes`: of every step; `every`: steps between two checkpoints."""

    checkpoints: Sequence[Checkpoint]
    batches: Sequence[Any]
    hashes: Sequence[str]
    every: int
    steps_per_epoch: int


Execute = Callable[[Checkpoint, Sequence[Any]], Checkpoint]
"""Trains from a checkpoint on batches, with the hyper-parameters that its optimizer state names."""


def data_hash(batch: Array) -> str:
    """SHA-256 of what NumPy prints of an array: of a large one the first and last three of each axis."""
    return hashlib.sha256(str(batch).encode()).hexdigest()


def distance(one: Array, other: Array, kind: str) -> float:
    """Between two vectors, in one of `RULES`."""
    if kind == "cos":
        length = float(np.linalg.norm(one) * np.linalg.norm(other))
        return float(1 - (one @ other) / length) if length else 1.0
    order = {"l1": 1, "l2": 2, "linf": math.inf}[kind]
    return float(np.linalg.norm(one - other, order))


def ks_probability(values: Array, bound: float) -> float:
    """That values uniform in [-bound, bound] are as far from uniform as these; Kolmogorov's series for many values."""
    ordered = np.sort(values.astype(np.float64).ravel())
    count = len(ordered)
    expected = np.clip((ordered + bound) / (2 * bound), 0, 1)
    steps = np.arange(count + 1) / count
    gap = max(float((steps[1:] - expected).max()), float((expected - steps[:-1]).max()))
    scaled = gap * (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count))  # Stephens' correction for few values
    if scaled < 0.2:
        return 1.0
    return min(1.0, 2 * sum((1 if n % 2 else -1) * math.exp(-2 * (n * scaled) ** 2) for n in range(1, 101)))


def verify(proof: ProofOfLearning, execute: Execute, reference: float) -> dict[str, bool]:
    """By rule, whether it accepts. `reference`: d_ref, the l2 distance between two trainings of this kind."""
    accepted = _initial(proof.checkpoints[0]) and all(
        data_hash(np.asarray(batch[0])) == digest for batch, digest in zip(proof.batches, proof.hashes, strict=True)
    )
    bounds = {**RULES, "normalised": NORMALISED * reference}
    if not accepted:
        return dict.fromkeys(bounds, False)
    found = dict.fromkeys(bounds, True)
    executed: dict[int, Array] = {}
    for rule, bound in bounds.items():
        kind = "l2" if rule == "normalised" else rule
        for place in _largest(proof, kind):
            if place not in executed:
                batches = proof.batches[place * proof.every : (place + 1) * proof.every]
                executed[place] = execute(proof.checkpoints[place], batches).vector()
            # a distance that is no number is not small
            if not distance(proof.checkpoints[place + 1].vector(), executed[place], kind) <= bound:
                found[rule] = False
                break
    return found


def _initial(first: Checkpoint) -> bool:
    """PyTorch draws weights and biases of a linear layer uniformly, up to one over the root of its inputs."""
    for name, values in first.weights.items():
        inputs = first.weights[name.removesuffix("bias").removesuffix("weight") + "weight"].shape[1]
        if ks_probability(values, 1 / math.sqrt(inputs)) < _INITIAL_P:
            return False
    return True


def _largest(proof: ProofOfLearning, kind: str) -> list[int]:
    """The places of the largest updates of each epoch."""
    vectors = [checkpoint.vector() for checkpoint in proof.checkpoints]
    sizes = [distance(a, b, kind) for a, b in itertools.pairwise(vectors)]
    epochs: dict[int, list[int]] = {}
    for place in range(len(sizes)):
        epochs.setdefault(place * proof.every // proof.steps_per_epoch, []).append(place)
    return [
        place for places in epochs.values() for place in sorted(places, key=lambda p: sizes[p], reverse=True)[:_LARGEST]
    ]
