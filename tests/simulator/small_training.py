"""Small honest trainings in one process, recorded as a user's loop would be: what screening must pass over in silence.

A `Recipe` says everything about a training; `train` records it into a folder, or goes on with one that was stopped.
Needs torch and scikit-learn.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from recorded_run import RecordedRun
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from pot import begin, record
from pot.canonical import canonical_bytes
from pot.data.commit import commit, write_committed

WINDOW = 32
Extra = Callable[[int, nn.Module, torch.optim.Optimizer, Any], None]


@dataclass(frozen=True)
class Recipe:
    """One training: `segments` of `every` steps; `records` 0: all that the task has."""

    name: str
    task: str = "mlp"  # mlp, cnn, norm (batch normalisation), lm, tied (one weight twice), lora, halves (bfloat16)
    optimizer: str = (
        "adam"  # sgd, momentum, nesterov, damped, adam, adamw, amsgrad, nadam, radam, rmsprop, grouped, tensor-rate
    )
    rate: float = 1e-3
    schedule: str = "constant"  # warmup, linear and cosine (both end at 0), steps, restarts, onecycle
    segments: int = 20
    every: int = 10
    batch: int = 32
    records: int = 0
    decay: float = 0.0
    clip: float = 0.0
    dropout: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    seed: int = 0
    poison: float = 0.0  # A12: this part of the labels is not the committed one
    skip: float = 0.0  # A11: this part of the batches is not trained on
    factor: float = 1.0  # A20: the rate is trained with times this

    @property
    def steps(self) -> int:
        return self.segments * self.every


@dataclass
class TrainedRun(RecordedRun):
    """A recorded training, with what it takes to train on."""

    recipe: Recipe = Recipe("")

    def go_on(self) -> None:
        """Train from the latest checkpoint of the transcript to the end, and tell it as if it had not stopped."""
        train(self.folder, self.recipe)
        self.restate([event for event in self.events() if event["type"] != "resume"])


class Records:
    """Rows of tensors; a batch comes as tensors."""

    def __init__(self, *columns: torch.Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, row: int) -> tuple[torch.Tensor, ...]:
        return tuple(column[row] for column in self.columns)

    def __getitems__(self, rows: list[int]) -> tuple[torch.Tensor, ...]:
        return tuple(column[rows] for column in self.columns)


class TinyLM(nn.Module):
    """Bytes to bytes: one transformer block of width 32."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 32)
        self.place = nn.Embedding(WINDOW, 32)
        self.block = nn.TransformerEncoderLayer(32, 2, 64, dropout, batch_first=True, norm_first=True)
        self.out = nn.Linear(32, 128)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        size = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(size)
        hidden = self.embed(tokens) + self.place(torch.arange(size))
        return self.out(self.block(hidden, src_mask=mask, is_causal=True))


class LowRank(nn.Module):
    """A frozen layer with a trained product of two thin ones beside it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(4, layer.in_features) / 8)
        self.up = nn.Parameter(torch.zeros(layer.out_features, 4))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values) + values @ self.down.T @ self.up.T


@cache
def _columns(task: str) -> tuple[torch.Tensor, ...]:
    if task == "lm":
        text = Path(argparse.__file__).read_bytes()[: 600 * WINDOW]
        tokens = torch.frombuffer(bytearray(byte & 127 for byte in text), dtype=torch.uint8).long()
        return (tokens.reshape(-1, WINDOW),)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32) / 16
    return images, torch.tensor(digits.target)


def build(recipe: Recipe) -> nn.Module:
    """The model with its first weights, from PyTorch's generator."""
    drop = nn.Dropout(recipe.dropout)
    if recipe.task == "cnn":
        layers = [nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), drop, nn.Linear(256, 10)]
        return nn.Sequential(*layers)
    if recipe.task == "norm":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), drop, nn.Linear(32, 10))
    if _data(recipe) == "lm":
        language = TinyLM(recipe.dropout)
        if recipe.task == "tied":
            language.out.weight = language.embed.weight
        return language
    if recipe.task == "lora":
        return nn.Sequential(nn.Flatten(), LowRank(nn.Linear(64, 48)), nn.ReLU(), drop, LowRank(nn.Linear(48, 10)))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), drop, nn.Linear(32, 10))
    return model.bfloat16() if recipe.task == "halves" else model


def optimizer_of(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the parameters that are trained."""
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = recipe.rate * recipe.factor, recipe.decay
    heavy: dict[str, Any] = {"lr": rate, "momentum": 0.9, "weight_decay": decay}
    adaptive: dict[str, Any] = {"lr": rate, "weight_decay": decay, "betas": recipe.betas}
    slow: dict[str, Any] = {"params": own[:2], "lr": rate / 10, "weight_decay": 0.0}
    kinds: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(own, lr=rate, weight_decay=decay),
        "momentum": lambda: torch.optim.SGD(own, **heavy),
        "nesterov": lambda: torch.optim.SGD(own, nesterov=True, **heavy),
        "damped": lambda: torch.optim.SGD(own, dampening=0.5, **heavy),
        "adam": lambda: torch.optim.Adam(own, **adaptive),
        "adamw": lambda: torch.optim.AdamW(own, **adaptive),
        "amsgrad": lambda: torch.optim.AdamW(own, amsgrad=True, **adaptive),
        "nadam": lambda: torch.optim.NAdam(own, **adaptive),
        "radam": lambda: torch.optim.RAdam(own, **adaptive),
        "grouped": lambda: torch.optim.AdamW([slow, {"params": own[2:]}], **adaptive),
        "tensor-rate": lambda: torch.optim.Adam(own, **{**adaptive, "lr": torch.tensor(rate)}),
        "rmsprop": lambda: torch.optim.RMSprop(own, lr=rate, weight_decay=decay),
    }
    return kinds[recipe.optimizer]()


def schedule_of(recipe: Recipe, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
    """The schedule, stepped after every step."""
    steps = recipe.steps
    shapes: dict[str, Callable[[int], float]] = {
        "warmup": lambda step: min(1.0, (step + 1) / (steps / 5)),
        "linear": lambda step: min((step + 1) / (steps / 10), 1 - step / steps),
        "cosine": lambda step: min((step + 1) / (steps / 10), (1 + math.cos(math.pi * step / steps)) / 2),
        "steps": lambda step: 0.1 ** (3 * step // steps),
        "restarts": lambda step: (1 + math.cos(math.pi * (step % (steps // 3)) / (steps // 3))) / 2,
    }
    if recipe.schedule == "constant":
        return None
    if recipe.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=steps + 1)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, shapes[recipe.schedule])


def _loss(recipe: Recipe, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    if _data(recipe) == "lm":
        (tokens,) = batch
        return cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    images, labels = batch
    if recipe.task == "halves":
        images = images.bfloat16()
    return cross_entropy(model(images).float(), labels)


def _prepare(folder: Path, recipe: Recipe) -> tuple[torch.Tensor, ...]:
    """The records; their file and commitment, where they are not there yet. The file stands for the tensors."""
    columns = tuple(column[: recipe.records or len(column)] for column in _columns(_data(recipe)))
    if not (folder / "train.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.jsonl").write_bytes(_lines(_data(recipe), len(columns[0])))
        write_committed(commit([folder / "train.jsonl"], "json/1", "training"), folder / "train.json")
    return columns


def _data(recipe: Recipe) -> str:
    return "lm" if recipe.task in ("lm", "tied") else "digits"


@cache
def _lines(data: str, count: int) -> bytes:
    columns = _columns(data)
    rows = range(count)
    return b"".join(canonical_bytes({"record": row, "sum": int(columns[0][row].sum())}) + b"\n" for row in rows)


def train(folder: Path, recipe: Recipe, extra: Extra | None = None) -> TrainedRun:
    """Record the training in `folder`, or go on with it. `extra`: called after every step, by A10's forger."""
    torch.set_num_threads(1)
    columns = _prepare(folder, recipe)
    records = Records(*columns)
    config = json.loads(json.dumps({"rate": repr(recipe.rate), "optimizer": recipe.optimizer, "task": recipe.task}))
    with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()):
        begun = begin(
            "run", commitments=["train.json"], config=config, inputs=["train.jsonl"], batch_size=recipe.batch,
            steps=recipe.steps, checkpoint_every=recipe.every,
        )  # fmt: skip
        torch.manual_seed(recipe.seed)
        model = build(recipe)
        optimizer = optimizer_of(recipe, model)
        schedule = schedule_of(recipe, optimizer)
        draw = torch.Generator().manual_seed(recipe.seed)
        with record(begun, model=model, optimizer=optimizer, scheduler=schedule, data=records) as run:
            for batch in _tampered(recipe, run.batches(records), records, draw):
                loss = _loss(recipe, model, batch)
                optimizer.zero_grad()
                loss.backward()
                if recipe.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                optimizer.step()
                if extra is not None:
                    extra(run.done + 1, model, optimizer, lambda batch=batch: _loss(recipe, model, batch))
                if schedule is not None:
                    schedule.step()
                run.step(loss=loss)
    return TrainedRun(folder, [], recipe)


def _tampered(
    recipe: Recipe, batches: Iterator[Any], records: Records, draw: torch.Generator
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The batches as they are trained on: the committed ones, where the recipe is honest."""
    before: Any = None
    for batch in batches:
        if recipe.skip and before is not None and torch.rand((), generator=draw) < recipe.skip:
            yield before  # a batch is skipped: the one before is used again, so that the counts are right
            continue
        before = batch
        if recipe.poison:
            images, labels = batch
            bad = torch.rand(len(labels), generator=draw) < recipe.poison
            batch = images, torch.where(bad, (labels + 1) % 10, labels)
        yield batch


def honest_recipes() -> list[Recipe]:
    """Seventy honest trainings: tasks, optimizers, schedules, rates small and large, few and many segments."""
    base = Recipe("")
    found = [
        replace(base, optimizer=kind, rate=rate, schedule=schedule)
        for kind, rate in (("sgd", 0.1), ("momentum", 0.05), ("nesterov", 0.05), ("adam", 2e-3), ("adamw", 2e-3))
        for schedule in ("constant", "cosine", "steps", "warmup")
    ]
    found += [
        replace(base, task=task, optimizer=kind, rate=rate, schedule=schedule, segments=12, decay=decay)
        for task in ("cnn", "lm", "norm", "lora")
        for kind, rate, schedule, decay in (
            ("momentum", 0.03, "linear", 5e-4),
            ("adamw", 3e-3, "cosine", 0.1),
            ("adam", 3e-3, "constant", 0.0),
        )
    ]
    found += [
        replace(base, optimizer="adam", rate=1e-6, segments=40),
        replace(base, optimizer="adam", rate=0.1, segments=15),
        replace(base, optimizer="adamw", rate=1e-3, decay=0.5, segments=40, every=4),
        replace(base, optimizer="adam", schedule="onecycle", rate=0.01, segments=30),
        replace(base, optimizer="momentum", schedule="onecycle", rate=0.1, segments=30),
        replace(base, optimizer="adamw", schedule="restarts", rate=5e-3, segments=30),
        replace(base, optimizer="momentum", schedule="restarts", rate=0.1, segments=30),
        replace(base, optimizer="amsgrad", rate=3e-3, schedule="linear"),
        replace(base, optimizer="nadam", rate=2e-3),
        replace(base, optimizer="radam", rate=2e-3),
        replace(base, optimizer="rmsprop", rate=1e-3, schedule="cosine"),
        replace(base, optimizer="damped", rate=0.1),
        replace(base, optimizer="momentum", rate=0.5, segments=30, every=5),
        replace(base, optimizer="momentum", rate=1e-5, segments=30, every=5),
        replace(base, optimizer="sgd", rate=1e-4, segments=40, every=5),
        replace(base, optimizer="sgd", rate=1.5, segments=10, every=25),
        replace(base, optimizer="adam", clip=0.1, rate=5e-3, segments=25),
        replace(base, optimizer="momentum", clip=0.5, rate=0.2, segments=25, schedule="linear"),
        replace(base, optimizer="adamw", dropout=0.5, rate=3e-3, segments=25),
        replace(base, optimizer="adam", batch=256, records=256, rate=1e-4, segments=20, every=5),  # whole batches
        replace(base, optimizer="momentum", batch=256, records=256, rate=0.1, segments=20, every=10),
        replace(base, optimizer="sgd", batch=256, records=256, rate=0.05, segments=20, every=10),
        replace(base, optimizer="adam", batch=4, records=64, rate=2e-3, segments=30, every=16),  # learnt by heart
        replace(base, optimizer="adam", batch=1, rate=1e-3, segments=30, every=20),
        replace(base, optimizer="momentum", batch=2, rate=0.01, segments=20, every=30),
        replace(base, task="halves", optimizer="adamw", rate=2e-3, segments=20, schedule="linear"),
        replace(base, task="halves", optimizer="momentum", rate=0.05, segments=20),
        replace(base, task="lm", optimizer="adamw", rate=1e-2, dropout=0.2, segments=30, every=5, schedule="warmup"),
        replace(base, task="cnn", optimizer="adam", betas=(0.5, 0.9), rate=1e-3, segments=15),
        replace(base, optimizer="adam", betas=(0.95, 0.95), rate=1e-3, segments=30, every=1),  # every step a segment
        replace(base, optimizer="momentum", rate=0.05, segments=40, every=1),
        replace(base, optimizer="adam", rate=1e-3, segments=10, every=60, schedule="steps"),
        replace(base, optimizer="momentum", rate=0.02, batch=8, records=256, segments=20, every=100),  # learnt by heart
        replace(base, optimizer="adam", rate=3e-3, batch=8, records=256, segments=20, every=100),
        replace(base, optimizer="momentum", rate=0.3, batch=128, records=128, segments=25, every=20),  # on the edge
        replace(base, optimizer="sgd", rate=2e-3, batch=128, records=128, segments=20, every=5),  # all but straight
        replace(base, task="cnn", optimizer="momentum", rate=0.02, batch=16, segments=12, every=50, schedule="steps"),
        replace(base, optimizer="grouped", rate=5e-3, decay=0.1, schedule="cosine"),
        replace(base, optimizer="tensor-rate", rate=2e-3),
        replace(base, task="tied", optimizer="adam", rate=3e-3, segments=12, every=5),
    ]
    return [replace(recipe, name=_name(recipe, at), seed=at) for at, recipe in enumerate(found)]


def _name(recipe: Recipe, at: int) -> str:
    return (
        f"{at:02d} {recipe.task} {recipe.optimizer} {recipe.rate:g} {recipe.schedule} {recipe.segments}x{recipe.every}"
    )
