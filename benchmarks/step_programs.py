"""The steps that `step_proof.py` proves: programs, and a state and batch each, from fixed seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.digits import mlp_program

if TYPE_CHECKING:
    from pot.zk.semantics.program import Program

__all__ = ["Step", "lenet", "mlp"]

RECORDS = 32


@dataclass(frozen=True)
class Step:
    """One step, ready to be proven."""

    program: Program
    state: Mapping[str, Any]
    batch: Mapping[str, Any]


def mlp(inputs: int, hidden: int, outputs: int, *, width: int, limb_bits: int, batch: int = 8) -> Step:
    """Linear, ReLU, Linear with half the squared error; weights as a fresh network has them."""
    program = mlp_program(
        inputs=inputs, hidden=hidden, outputs=outputs, batch=batch, feature_bits=width - 1, width=width, rate_shift=4,
        limb_bits=limb_bits,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    state = {}
    for index in program.states:
        node = program.nodes[index]
        scale = 2**node.bits / float(node.shape[-1]) ** 0.5
        state[str(node.name)] = np.rint(rng.uniform(-1, 1, node.shape) * scale).astype(np.int64)
    records = [
        {"image": rng.integers(0, 1 << width, inputs).tolist(), "label": int(rng.integers(0, outputs))}
        for _ in range(batch)
    ]
    return Step(program, state, batch_arrays(program, records))


def lenet(batch: int) -> Step:
    """LeNet-5's sizes (61,706 parameters) on 28x28 images, average pooling before each ReLU, half the squared error."""
    import torch
    from torch import nn

    from pot.zk.lower import start_state, step_program
    from pot.zk.trace import Field

    torch.manual_seed(0)
    pooled = (nn.AvgPool2d(2), nn.ReLU())
    module = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), *pooled, nn.Conv2d(6, 16, 5), *pooled, nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    records = [
        {"image": rng.integers(0, 256, (1, 28, 28)).tolist(), "label": int(rng.integers(0, 10))} for _ in range(RECORDS)
    ]

    def loss(model: nn.Module, values: dict[str, torch.Tensor]) -> torch.Tensor:
        wanted = torch.nn.functional.one_hot(values["label"], 10).float()
        return 0.5 * ((model(values["image"]) - wanted) ** 2).sum() / batch

    fields = {"image": Field("unsigned", (1, 28, 28), bits=8, width=8), "label": Field("marks", (10,))}
    optimizer = torch.optim.SGD(module.parameters(), lr=2**-4)
    program = step_program(module, loss, optimizer, fields, records, batch=batch)
    return Step(program, start_state(program, module), batch_arrays(program, records[:batch]))
