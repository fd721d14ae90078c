"""A tiny GELU classifier in family auto, and a run of two steps under its circuit, with honest proofs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pot.recording.transcript import Points
from pot.zk.auto import AutoStep, auto_step
from pot.zk.auto_program import AutoProgram
from pot.zk.auto_steps import next_state
from pot.zk.engine import EzklEngine, Limits
from pot.zk.kit import ProvingKit, build_kit, commit_points, open_kit
from pot.zk.proof import StepProof
from pot.zk.prover import Prepared, assemble, prepare_step, prove_part
from pot.zk.semantics.fixed import quantise_array
from pot.zk.trace import Field
from pot.zk.verifier import Expected

SECRET, RUN = b"s" * 32, "ab" * 32
LOGROWS = 12
FIELDS = {"image": Field("unsigned", (8,), bits=4, width=5), "label": Field("marks", (3,))}


def gelu() -> nn.Module:
    """8-4-3, always the same."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 3))


def tiny_step(module: nn.Module | None = None) -> AutoStep:
    """Cross-entropy, SGD at 1/4, two records, in limbs and tables small enough for 2^12 rows."""
    module = module or gelu()

    def loss(model: Any, batch: Any) -> Any:
        return nn.functional.cross_entropy(model(batch["image"]), batch["label"])

    return auto_step(
        module, loss, torch.optim.SGD(module.parameters(), lr=0.25), FIELDS, batch=2, label="gelu 8-4-3", scale=8,
        lookup_bits=11, limb_bits=10, limbs=3,
    )  # fmt: skip


def tiny_records(seed: int) -> list[dict[str, Any]]:
    """Two records."""
    rng = np.random.default_rng(seed)
    return [{"image": rng.integers(0, 17, 8).tolist(), "label": int(rng.integers(0, 3))} for _ in range(2)]


def start(program: AutoProgram, module: nn.Module) -> dict[str, Any]:
    """The module's parameters on the step's grid."""
    named = module.named_parameters()
    return {name: quantise_array(value.detach().numpy(), program.scale) for name, value in named}


@dataclass(frozen=True)
class AutoRun:
    """Circuit, states, batches, points and proofs. `states[n]` is the state after step n."""

    engine: EzklEngine
    kit: ProvingKit
    states: list[dict[str, Any]]
    batches: list[dict[str, Any]]
    points: list[Points]
    prepared: list[Prepared]
    proofs: list[StepProof]

    def expected(self) -> list[Expected]:
        """What the transcript says."""
        return [Expected(RUN, at, points) for at, points in enumerate(self.points, 1)]


def auto_run(folder: Path) -> AutoRun:
    """Make it: keys, two steps, two proofs."""
    engine, module = EzklEngine(Limits(wall_seconds=240)), gelu()
    step = tiny_step(module)
    build_kit(step, engine.make_srs(LOGROWS), folder, engine, columns=2)
    kit = open_kit(folder)
    states, batches = [start(step.program, module)], [step.program.batch_arrays(tiny_records(at)) for at in range(2)]
    for batch in batches:
        states.append(next_state(kit, states[-1], batch, engine))
    found = commit_points(kit.verifying, SECRET, list(enumerate(states)), list(enumerate(batches, 1)), engine)
    points = [Points(before=found[at], batch=found[3 + at], after=found[at + 1]) for at in range(2)]
    prepared = [
        prepare_step(
            kit.verifying, secret=SECRET, precommit_sha256=RUN, number=at + 1, state=states[at], batch=batches[at],
            after=states[at + 1], engine=engine,
        )
        for at in range(2)
    ]  # fmt: skip
    proofs = [assemble(kit.verifying, item, [prove_part(kit, item, 0, engine)]) for item in prepared]
    return AutoRun(engine, kit, states, batches, points, prepared, proofs)
