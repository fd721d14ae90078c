"""What family auto takes for the step of the small benchmark: MLP 64-32-10, batch 8, half the squared error.

The other side of the row "CPU per parameter, exact beside auto" of `step_proof.py`.

    python benchmarks/step_auto.py
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pot.zk.auto import auto_step
from pot.zk.auto_steps import next_state
from pot.zk.engine import EzklEngine
from pot.zk.kit import build_kit
from pot.zk.lowering.optimizers import Sgd
from pot.zk.prover import prove_step
from pot.zk.semantics.fixed import quantise_array
from pot.zk.srs import make_srs
from pot.zk.trace import Field

LOGROWS, COLUMNS, BATCH = 15, 2, 8  # of those tried (2^13 and 2^15 rows, 2 and 10 columns) the cheapest
FIELDS = {"image": Field("unsigned", (64,), bits=4, width=5), "label": Field("marks", (10,))}


def half_squares(model: Any, batch: Any) -> Any:
    """Half the squared error, mean over the batch."""
    wanted = nn.functional.one_hot(batch["label"], 10)
    return ((model(batch["image"]) - wanted) ** 2).sum() / (2 * BATCH)


def auto_digits(folder: Path) -> float:
    """CPU seconds of one step's proof: committing, proving and verifying it, as for family exact."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    step = auto_step(module, half_squares, Sgd(1 / 16), FIELDS, batch=BATCH)
    engine, rng = EzklEngine(), np.random.default_rng(0)
    kit = build_kit(step, make_srs(engine, LOGROWS), folder, engine, columns=COLUMNS)
    state = {
        name: quantise_array(value.detach().numpy(), step.program.scale) for name, value in module.named_parameters()
    }
    records = [{"image": rng.integers(0, 17, 64).tolist(), "label": int(rng.integers(0, 10))} for _ in range(BATCH)]
    batch = step.program.batch_arrays(records)
    after = next_state(kit, state, batch, engine)
    engine.usage.clear()
    prove_step(
        kit, secret=secrets.token_bytes(32), precommit_sha256="ab" * 32, number=1, state=state, batch=batch,
        after=after, engine=engine,
    )  # fmt: skip
    return sum(item.cpu_seconds for item in engine.usage)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sys.stdout.write(f"MLP 64-32-10, batch 8, family auto: {auto_digits(Path(name)):.1f} CPU s\n")
