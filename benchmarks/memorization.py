"""What the memorization test and canaries can see: a small language model on the Python standard library's text.

    make bench-memorization            all of it: some five minutes on two cores
    benchmarks/memorization.py --small a byte model of 20,000 parameters, to see that it runs

One honest training; from some of its states, segments are trained again as a forger would: batches skipped, or other
text in their place. The rule for "seen": the segment's AUC is below the lowest 1 % that draws of its honest twin give.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import statistics
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from table import Row, finish
from torch import nn
from torch.nn import functional

from pot.audit.statistics.canaries import compare_canaries, from_template, new_canaries, planted
from pot.audit.statistics.hints import judge
from pot.audit.statistics.strata import Comparison, compare

SECRET = "5e" * 32
PLANTED, CANDIDATES, TIMES = 16, 400, 4
SUSPECTS = 20


@dataclass(frozen=True)
class Size:
    """Width, layers and context of the model; steps of a segment, segments; the forged ones; draws and their size."""

    width: int
    layers: int
    context: int
    records: int
    steps: int
    segments: int
    forged: tuple[int, ...]
    held: int
    draws: int
    drawn: int
    batch: int = 16


FULL = Size(128, 5, 64, 2560, 20, 18, (7, 14), 256, 200, 128)
SMALL = Size(32, 1, 32, 640, 10, 6, (4,), 96, 20, 48)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = 4
        self.norm, self.qkv, self.mix = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (records, places, width), kept."""
        records, places, width = x.shape
        parts = self.qkv(self.norm(x)).view(records, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).reshape(records, places, width))
        return x + self.feed(x)


class ByteModel(nn.Module):
    """Logits of the next byte."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(256, size.width), nn.Embedding(size.context, size.width)
        self.blocks = nn.Sequential(*(Block(size.width) for _ in range(size.layers)))
        self.out = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, 256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bytes (records, places) -> logits (records, places, 256)."""
        return self.out(self.blocks(self.embed(x) + self.place(torch.arange(x.shape[1]))))


def losses(model: ByteModel, records: torch.Tensor, mean: bool = False) -> torch.Tensor:
    """The mean loss of each record, or of all."""
    logits = model(records[:, :-1]).transpose(1, 2)
    each = functional.cross_entropy(logits, records[:, 1:], reduction="none").mean(1)
    return each.mean() if mean else each


def evaluate(model: ByteModel, records: torch.Tensor) -> list[float]:
    """Losses without gradients."""
    with torch.no_grad():
        return [float(value) for part in records.split(64) for value in losses(model, part)]


def corpus(size: Size, count: int) -> torch.Tensor:
    """Pieces of the standard library's modules, shuffled; shape (count, context + 1)."""
    length = size.context + 1
    pieces: list[bytes] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_bytes()
        pieces += [text[at : at + length] for at in range(0, len(text) - length, length)]
    pieces = sorted(set(pieces))
    random.Random(0).shuffle(pieces)
    return as_bytes(pieces[:count], length)


def as_bytes(pieces: Sequence[bytes], length: int) -> torch.Tensor:
    """Shape (pieces, length), padded with newlines."""
    return torch.tensor([list(piece[:length].ljust(length, b"\n")) for piece in pieces])


class Training:
    """The honest run: states at segment ends, and what was claimed in each segment."""

    def __init__(self, size: Size) -> None:
        self.size = size
        everything = corpus(size, size.records + 4 * size.held)
        self.held, self.null = everything[: size.held], everything[size.held : 2 * size.held]
        self.other = everything[2 * size.held : 4 * size.held]
        made = from_template("The safe is {}.", "text", CANDIDATES, SECRET)
        self.opening = new_canaries(made, PLANTED, SECRET)[1]
        self.candidates = as_bytes([str(item["text"]).encode() for item in made], size.context + 1)
        self.data = everything[4 * size.held :].clone()
        self.data[-PLANTED * TIMES :] = self.candidates[planted(self.opening)].repeat(TIMES, 1)
        torch.manual_seed(0)
        self.model = ByteModel(size)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.states: list[Any] = [self.state()]
        self.batches: list[list[torch.Tensor]] = []
        rows: list[torch.Tensor] = []
        for _ in range(size.segments):
            taken = []
            for _ in range(size.steps):
                if not rows:
                    rows = list(torch.randperm(len(self.data)).split(size.batch))
                    rows = [row for row in rows if len(row) == size.batch]
                taken.append(rows.pop(0))
            self.batches.append(taken)

    def state(self) -> Any:
        """A copy of weights and moments."""
        return copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))

    def load(self, number: int) -> None:
        """Go back to the state before segment `number` (from 0)."""
        weights, moments = copy.deepcopy(self.states[number])
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(moments)

    def update(self, records: torch.Tensor) -> None:
        """One step."""
        self.optimizer.zero_grad()
        losses(self.model, records, mean=True).backward()
        self.optimizer.step()

    def segment(self, number: int, swap: Callable[[int], torch.Tensor | None]) -> None:
        """Train a segment from the present state; `swap` gives a step's records, None: the step is skipped."""
        for at in range(len(self.batches[number])):
            records = swap(at)
            if records is not None:
                self.update(records)

    def claimed(self, number: int) -> torch.Tensor:
        """The records that a segment claims, each once, in order of first use."""
        return self.data[torch.cat(self.batches[number])]


Pairs = list[tuple[float, float]]


@dataclass
class Evaluated:
    """Losses before and after one segment: claimed and held-out records."""

    claimed: Pairs
    held: Pairs

    def draw(self, rng: random.Random, count: int) -> Comparison:
        """The test as an auditor makes it, on a draw of the records."""
        claimed = rng.sample(self.claimed, min(count, len(self.claimed)))
        return compare(claimed, rng.sample(self.held, min(count, len(self.held))))


def honest(run: Training) -> tuple[list[Evaluated], list[float]]:
    """Train, and evaluate every segment; the second: AUC of the last weights alone, by loss, for each segment."""
    found, alone = [], []
    held = evaluate(run.model, run.held)
    for number in range(run.size.segments):
        before = evaluate(run.model, run.claimed(number))
        run.segment(number, lambda at, n=number: run.data[run.batches[n][at]])  # type: ignore[misc]
        run.states.append(run.state())
        after, held_after = evaluate(run.model, run.claimed(number)), evaluate(run.model, run.held)
        found.append(Evaluated(list(zip(before, after, strict=True)), list(zip(held, held_after, strict=True))))
        held = held_after
        print(f"segment {number + 1} of {run.size.segments} trained", file=sys.stderr)
    for number in range(run.size.segments):
        last = [(0.0, loss) for loss in evaluate(run.model, run.claimed(number)[:64])]
        alone.append(float(compare(last, [(0.0, loss) for loss in held]).test.auc))
    return found, alone


def forge(run: Training, number: int, honestly: Evaluated, swap: Callable[[int], torch.Tensor | None]) -> Evaluated:
    """Train segment `number` otherwise, from its honest start, and evaluate what it claims."""
    run.load(number)
    run.segment(number, swap)
    after, held = evaluate(run.model, run.claimed(number)), evaluate(run.model, run.held)
    return Evaluated(
        [(before, now) for (before, _), now in zip(honestly.claimed, after, strict=True)],
        [(before, now) for (before, _), now in zip(honestly.held, held, strict=True)],
    )


def ways(run: Training, number: int) -> dict[str, Callable[[int], torch.Tensor | None]]:
    """How a forger trains the segment; the steps are drawn."""
    rng = random.Random(number)
    steps, batch = run.size.steps, run.size.batch

    def swap(part: float, other: bool) -> Callable[[int], torch.Tensor | None]:
        gone = set(rng.sample(range(steps), max(1, round(part * steps))))

        def give(at: int) -> torch.Tensor | None:
            if at not in gone:
                return run.data[run.batches[number][at]]
            return run.other[torch.arange(at * batch, (at + 1) * batch) % len(run.other)] if other else None

        return give

    replaced = {"by a tenth": 0.1, "by a quarter": 0.25, "wholly": 1.0}
    return {
        **{f"{part:.0%} of a segment's batches skipped": swap(part, False) for part in (0.05, 0.2, 0.5)},
        **{f"a segment replaced {word}": swap(part, True) for word, part in replaced.items()},
    }


def power_rows(run: Training, segments: list[Evaluated]) -> list[Row]:
    """Which part of draws sees what was skipped or replaced; thresholds from honest draws of the same segment."""
    rng, size = random.Random(1), run.size
    seen: dict[str, list[float]] = {}
    consistent: list[float] = []
    for number in size.forged:
        honestly = sorted(segments[number].draw(rng, size.drawn).test.auc for _ in range(size.draws))
        threshold = honestly[len(honestly) // 100]
        for name, swap in ways(run, number).items():
            print(f"segment {number + 1}: {name}", file=sys.stderr)
            forged = forge(run, number, segments[number], swap)
            draws = [forged.draw(rng, size.drawn) for _ in range(size.draws // 2)]
            seen.setdefault(name, []).append(sum(item.test.auc < threshold for item in draws) / len(draws))
            if "wholly" in name:
                consistent += [float(item.status() == "consistent") for item in draws]
    rows = []
    for name, parts in seen.items():
        missed = 1 - statistics.mean(parts)
        goal = 0.05 if "wholly" in name else 1.0
        rows.append(Row(f"{name}: seen", 1 - missed, "of draws", "missed, at 1 % false alarms", missed, goal))
    rows.append(Row("it is called consistent", statistics.mean(consistent), "of draws", "all draws",
                    statistics.mean(consistent), 0.05))  # fmt: skip
    return rows


def scan_rows(run: Training) -> list[Row]:
    """Groups of records that a segment of the first epoch took, and groups never trained on: which are found, where."""
    size = run.size
    epoch = min(size.segments, size.records // size.batch // size.steps)
    groups = [(number, run.claimed(number)[at : at + SUSPECTS]) for number in range(1, epoch) for at in (0, SUSPECTS)]
    groups += [(-1, run.null[at : at + SUSPECTS]) for at in range(0, len(run.null) - SUSPECTS + 1, SUSPECTS)]
    records = torch.cat([run.held, *(group for _, group in groups)])
    table = []
    for number in range(epoch + 1):
        run.load(number)
        table.append(evaluate(run.model, records))
    held, found, false, right = len(run.held), 0, 0, 0
    for at, (number, _) in enumerate(groups):
        first = held + at * SUSPECTS
        tests = [
            compare([(table[n][i], table[n + 1][i]) for i in range(first, first + SUSPECTS)],
                    [(table[n][i], table[n + 1][i]) for i in range(held)]).test
            for n in range(epoch)
        ]  # fmt: skip
        best = min(range(epoch), key=lambda n: tests[n].p)
        hit = judge(tests[best], epoch) == "consistent"
        found, false = found + (hit and number >= 0), false + (hit and number < 0)
        right += hit and number == best
    trained = sum(number >= 0 for number, _ in groups)
    wrong = false / (len(groups) - trained)
    return [
        Row(f"{SUSPECTS} suspects found", found / trained, "of groups", "missed", 1 - found / trained, 1),
        Row("in the right segment", right / max(1, found), "of found", "elsewhere", 1 - right / max(1, found), 1),
        Row("never trained on, and found", wrong, "of groups", "all", wrong, 0.1),
    ]


def main() -> None:
    """Train, forge, test, and print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--small", action="store_true")
    size = SMALL if options.parse_args().small else FULL
    torch.set_num_threads(1 if size is SMALL else os.cpu_count() or 1)
    run = Training(size)
    segments, alone = honest(run)
    rng = random.Random(2)
    tests = [item.draw(rng, len(item.claimed)) for item in segments]
    aucs = [float(item.test.auc) for item in tests]
    later = [item.draw(rng, size.drawn).status() for item in segments[1:] for _ in range(max(1, size.draws // 10))]
    canaries = compare_canaries(run.opening, evaluate(run.model, run.candidates)).test
    parameters = sum(weights.numel() for weights in run.model.parameters())
    print(f"{parameters:,} parameters, {size.segments} segments of {size.steps} steps, {size.batch} records each")
    print("AUC by segment:", " ".join(f"{auc:.2f}" for auc in aucs))
    no_sign = sum(status == "no-sign" for status in later) / len(later)
    mean, last, p = statistics.mean(aucs), statistics.mean(alone), float(canaries.p)
    rows = [
        Row("point AUC over the training, mean", mean, "", "0.7", 0.7 / mean, 1),
        Row("first segment", aucs[0], "", "last segment", aucs[0] / aucs[-1], 1),
        Row("last weights alone", last, "", "the mean", last / mean, 1),
        Row("honest segments called no sign", no_sign, "of draws", "all draws after the first segment", no_sign, 0.1),
        *power_rows(run, segments),
        *scan_rows(run),
        Row(f"{PLANTED} canaries of {CANDIDATES}, planted {TIMES} times: p", p, "", "0.01", p / 0.01, 1),
    ]
    finish("memorization", rows)


if __name__ == "__main__":
    main()
