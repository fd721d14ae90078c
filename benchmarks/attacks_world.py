"""What every forger of `benchmarks/attacks_forgers.py` has, and the ways in which it cheats.

A program that was committed can be run with something exchanged in its process: its files stay what they were.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from attacks_learning import Batch, learning_of
from attacks_runs import DigitsRun, prepare
from proof_of_learning import ProofOfLearning

from pot.canonical import canonical_bytes

__all__ = [
    "Change", "Forgery", "Items", "World", "batch_of", "begin_anew", "count_back", "told", "with_adam", "with_batches",
    "with_start",
]  # fmt: skip

Items = list[dict[str, Any]]
Change = Callable[[int, Items], Items]


@dataclass(frozen=True)
class World:
    """What a forger has: `honest` and `donor` are finished runs of one program; `folder` is empty and its own."""

    folder: Path
    honest: DigitsRun
    donor: DigitsRun
    seed: int

    def nonce(self, label: str) -> str:
        """32 bytes that a verifier might issue."""
        return random.Random(f"{self.seed} {label}").randbytes(32).hex()

    def copy(self) -> DigitsRun:
        return self.honest.copy(self.folder / "program")

    def train(self, patch: Callable[[], Any], **sizes: Any) -> DigitsRun:
        """A run of its own, with something changed in the running process."""
        run = prepare(self.folder / "program", self.nonce("own"), **sizes)
        run.record(patch)
        return run


@dataclass(frozen=True)
class Forgery:
    """`issued`: the nonce that the verifier did issue. `learning`: what a verifier of proofs of learning gets."""

    run: DigitsRun
    issued: str
    learning: ProofOfLearning


def told(run: DigitsRun, batches: Sequence[Batch] | None = None) -> Forgery:
    return Forgery(run, run.issued, learning_of(run, batches))


def with_batches(change: Change) -> Callable[[], None]:
    """Train on other records than the order gives; the transcript names those that it gives."""

    def patch() -> None:
        from pot.recording.run import Run

        given = Run.batches

        def batches(self: Any, loader: Any, **options: Any) -> Any:
            for number, items in enumerate(given(self, loader, **options), self.done + 1):
                yield change(number, items)

        Run.batches = batches

    return patch


def with_adam(change: Callable[[Callable[..., None], int, Sequence[Any], dict[str, Any]], None]) -> Callable[[], None]:
    """Exchange the arithmetic of the optimizer; `change` gets it as a function of the learning rate, the step's number,
    the parameters, and the counters under "counters"."""

    def patch() -> None:
        module = importlib.import_module("torch.optim.adam")
        given = module.adam

        def adam(params: Any, grads: Any, first: Any, second: Any, most: Any, counters: Any, **options: Any) -> None:
            def update(factor: float = 1.0) -> None:
                rate = options["lr"] * factor
                given(params, grads, first, second, most, counters, **{**options, "lr": rate})

            change(update, int(counters[0].item()) + 1, params, {"counters": counters})

        module.adam = adam

    return patch


def with_start(change: Callable[[Any, Any], None]) -> Callable[[], None]:
    """Change model and optimizer between their making and the first record."""

    def patch() -> None:
        import pot
        from pot.recording.recorder import record

        def start(begun: Any, *, model: Any, optimizer: Any, **rest: Any) -> Any:
            change(model, optimizer)
            return record(begun, model=model, optimizer=optimizer, **rest)

        pot.record = start

    return patch


def begin_anew(run: DigitsRun, document: dict[str, Any]) -> None:
    (run.run_dir / "precommit.json").write_bytes(canonical_bytes(document))
    events = run.events()
    events[0]["precommit_sha256"] = run.precommit.sha256()
    run.restate(events)


def batch_of(items: Items) -> Batch:
    images = np.array([list(bytes.fromhex(item["image"])) for item in items], np.float32) / 16
    return images, np.array([item["label"] for item in items])


def count_back(rest: Mapping[str, Any], steps: int = 1) -> None:
    for counter in rest["counters"]:
        counter -= steps
