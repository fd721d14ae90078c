"""Recorded runs told as proofs of learning (`proof_of_learning.py`), and the re-execution that its verifier does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attacks_program import BATCH, network
from attacks_runs import RECORDS, DigitsRun, records
from forgeries import State, states
from numpy.typing import NDArray
from proof_of_learning import Checkpoint, ProofOfLearning, data_hash
from torch.nn.functional import cross_entropy

__all__ = ["Batch", "execute", "learning_of", "steered"]

Batch = tuple[NDArray[Any], NDArray[Any]]
STEERED = 40  # checkpoints of A05's forger
STEERED_RATE = 0.1
ROUNDS = 25  # of optimising one batch


def learning_of(run: DigitsRun, batches: Sequence[Batch] | None = None) -> ProofOfLearning:
    """The run's checkpoints as they lie on disk; `batches` as its order has them, unless the forger tells others."""
    if batches is None:
        found = records(run)
        images = np.array([list(bytes.fromhex(item["image"])) for item in found], np.float32) / 16
        labels = np.array([item["label"] for item in found])
        batches = [(images[numbers], labels[numbers]) for numbers in run.order()]
    told = [Checkpoint(dict(state.model), _adam(state)) for _, state in sorted(states(run).items())]
    every = int(run.precommit.checkpoint_every)
    return ProofOfLearning(told, batches, [data_hash(batch[0]) for batch in batches], every, RECORDS // BATCH)


def _adam(state: State) -> dict[str, Any]:
    group = state.document["groups"][0]
    return {
        "rate": float(group["lr"]["real"]),
        "moments": {name: value.copy() for name, value in state.optimizer.items()},
    }


def execute(start: Checkpoint, batches: Sequence[Batch]) -> Checkpoint:
    """Train from a checkpoint with the rate and the moments that lie in it; dropout is the verifier's own."""
    torch.manual_seed(17)
    model = network()
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in start.weights.items()})
    optimizer = _optimizer(model, start.optimizer)
    for images, labels in batches:
        loss = cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Checkpoint({name: value.numpy().copy() for name, value in model.state_dict().items()}, None)


def _optimizer(model: torch.nn.Module, state: dict[str, Any]) -> torch.optim.Optimizer:
    if "moments" not in state:
        return torch.optim.SGD(model.parameters(), lr=state["rate"])
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.param_groups[0]["lr"] = state["rate"]  # a negative one too: a state that is loaded is not looked at
    for name, parameter in model.named_parameters():
        prefix = f"state.{name}/"
        entries = {key.removeprefix(prefix): value for key, value in state["moments"].items() if key.startswith(prefix)}
        if entries:
            optimizer.state[parameter] = {key: torch.from_numpy(value.copy()) for key, value in entries.items()}
    return optimizer


def steered(first: State, last: State, seed: int) -> ProofOfLearning:
    """A05: a line between two states, and for each of its steps a batch of inputs whose gradient leads along it.

    As Zhang et al. 2022 do it: the inputs are optimised through the step of the optimizer, here plain SGD.
    """
    generator = torch.Generator().manual_seed(seed)
    names = sorted(first.model)
    ends = [{name: torch.from_numpy(state.model[name].copy()) for name in names} for state in (first, last)]
    line = [
        {name: ends[0][name] + (ends[1][name] - ends[0][name]) * (at / STEERED) for name in names}
        for at in range(STEERED + 1)
    ]
    labels = torch.arange(BATCH) % 10
    model, batches = network().eval(), []
    for before, after in itertools.pairwise(line):
        wanted = [(before[name] - after[name]) / STEERED_RATE for name in names]
        inputs = torch.rand((BATCH, 64), generator=generator).requires_grad_(True)
        search = torch.optim.Adam([inputs], lr=0.1)
        weights = {name: value.clone().requires_grad_(True) for name, value in before.items()}
        for _ in range(ROUNDS):
            loss = cross_entropy(torch.func.functional_call(model, weights, (inputs,)), labels)
            gradients = torch.autograd.grad(loss, [weights[name] for name in names], create_graph=True)
            gap = sum(((g - w) ** 2).sum() for g, w in zip(gradients, wanted, strict=True))
            search.zero_grad()
            gap.backward()
            search.step()
        batches.append((inputs.detach().numpy().copy(), labels.numpy()))
    told = [Checkpoint({name: value.numpy() for name, value in item.items()}, {"rate": STEERED_RATE}) for item in line]
    return ProofOfLearning(told, batches, [data_hash(batch[0]) for batch in batches], 1, RECORDS // BATCH)
