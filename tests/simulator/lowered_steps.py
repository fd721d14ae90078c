"""Small PyTorch models, records for them, and training in floats and in integers side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from pot.zk.lower import lower_step, start_state
from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.exact import run
from pot.zk.trace import Field, torch_batch

BATCH = 4
IMAGE = {"image": Field("unsigned", (1, 8, 8), bits=4, width=5), "label": Field("marks", (5,))}
FLAT = {"image": Field("unsigned", (64,), bits=4, width=5), "label": Field("marks", (5,))}
TEXT = {"tokens": Field("marks", (4, 7)), "next": Field("marks", (4, 7))}


class Block(nn.Module):
    """Embedding, causal attention with two heads, ReLU layers, both with LayerNorm and residuals."""

    def __init__(self, words: int = 7, length: int = 4, wide: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, wide), nn.Parameter(torch.randn(length, wide) * 0.1)
        self.before, self.mixed, self.joined = nn.LayerNorm(wide), nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)
        self.between, self.up, self.down = nn.LayerNorm(wide), nn.Linear(wide, 2 * wide), nn.Linear(2 * wide, wide)
        self.out, self.heads = nn.Linear(wide, words), heads

    def forward(self, tokens: Any) -> Any:
        x = self.words(tokens) + self.places
        batch, length, wide = x.shape
        mixed = self.mixed(self.before(x)).view(batch, length, 3, self.heads, wide // self.heads)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.joined(seen.transpose(1, 2).reshape(batch, length, wide))
        return self.out(x + self.down(torch.relu(self.up(self.between(x)))))


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(64, 12), nn.Linear(12, 5)
        self.down, self.up = nn.Parameter(torch.randn(3, 64) * 0.1), nn.Parameter(torch.zeros(12, 3))
        self.base.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.base(x) + 0.5 * (x @ self.down.T) @ self.up.T))


def mlp() -> nn.Module:
    """64-12-5 with ReLU."""
    return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 5))


def cross_entropy(module: Any, batch: Mapping[str, Any]) -> Any:
    """Of images."""
    return F.cross_entropy(module(batch["image"]), batch["label"])


def half_squares(module: Any, batch: Mapping[str, Any]) -> Any:
    """Half the squared error against one-hot labels, mean over the batch."""
    return ((module(batch["image"]) - F.one_hot(batch["label"], 5)) ** 2).sum() / 2 / BATCH


def mean_squares(module: Any, batch: Mapping[str, Any]) -> Any:
    """Mean squared error against one-hot labels."""
    return F.mse_loss(module(batch["image"]), F.one_hot(batch["label"], 5).float())


def next_word(module: Any, batch: Mapping[str, Any]) -> Any:
    """Cross-entropy of the next token."""
    return F.cross_entropy(module(batch["tokens"]).flatten(0, 1), batch["next"].flatten())


def sgd(rate: float, **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    """An optimizer for parameters to come."""
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, **options)


def records(fields: Mapping[str, Field], *, count: int = 64, seed: int = 0) -> list[dict[str, Any]]:
    """Records with something to learn: each label lights another part of the image, each text counts on."""
    rng = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    for _ in range(count):
        if "tokens" in fields:
            first, step = int(rng.integers(0, 7)), int(rng.integers(1, 3))
            text = [(first + step * at) % 7 for at in range(5)]
            made.append({"tokens": text[:4], "next": text[1:]})
            continue
        label = int(rng.integers(0, 5))
        pixels = rng.integers(0, 8, 64)
        pixels[label * 12 : label * 12 + 12] += 8
        made.append({"image": pixels.tolist(), "label": label})
    return made


@dataclass(frozen=True)
class Course:
    """What some steps of both trainings did."""

    drift: float
    """Distance of the weights at the end, over the distance that float training went."""
    losses: list[float]
    exact_losses: list[float]
    notes: list[str]
    program: Any


def both(
    module: nn.Module, loss: Any, optimizer: Any, fields: Mapping[str, Field], *, steps: int, seed: int = 0,
    **options: Any,
) -> Course:  # fmt: skip
    """Train a copy in float32 and the lowered program in integers, on the same batches."""
    data = records(fields, seed=seed)
    lowered = lower_step(module, loss, optimizer(module.parameters()), fields, data, batch=BATCH, **options)
    program, state = lowered.program, start_state(lowered.program, module)
    floats, exact = copy.deepcopy(module), copy.deepcopy(module)
    made = optimizer([one for one in floats.parameters() if one.requires_grad])
    losses: tuple[list[float], list[float]] = ([], [])
    for step in range(steps):
        batch = [data[(step * BATCH + at) % len(data)] for at in range(BATCH)]
        tensors = torch_batch(fields, batch)
        made.zero_grad()
        value = loss(floats, tensors)
        value.backward()
        made.step()
        write(program, state, exact)
        losses[0].append(value.item())
        losses[1].append(loss(exact, tensors).item())
        state = run(program, state, batch_arrays(program, batch)).next
    write(program, state, exact)
    return Course(_drift(module, floats, exact), *losses, lowered.notes, program)


def write(program: Any, state: Mapping[str, Any], module: nn.Module) -> None:
    """Put integer weights into a module."""
    bits = {program.nodes[index].name: program.nodes[index].bits for index in program.states}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in state:
                parameter.copy_(torch.from_numpy(state[name] * 2.0 ** -bits[name]))


def _drift(start: nn.Module, floats: nn.Module, exact: nn.Module) -> float:
    apart, moved = _distance(floats, exact), _distance(floats, start)
    return apart / moved


def _distance(one: nn.Module, two: nn.Module) -> float:
    pairs: Sequence[tuple[Any, Any]] = list(zip(one.parameters(), two.parameters(), strict=True))
    return float(sum(float(((a.detach() - b.detach()) ** 2).sum()) for a, b in pairs) ** 0.5)
