"""The program that `make bench-recorder` trains: a small GPT, recorded as asked, or not at all.

    python recorder_program.py segment|step STEPS SEGMENT WIDTH LAYERS BATCH RESULT

It writes CPU seconds of all its threads, wall seconds, the peak of its memory, and a digest of its last weights to the
file RESULT. With BENCH_PLAIN set it is not recorded, but takes the batches that the run in this folder will take.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from pot import begin, record
from pot.commitments.state import tensors_digest
from pot.recording.batches.feeding import CommittedFeed
from pot.recording.pytorch.state import TorchState

CONTEXT = 128
VOCABULARY = 256


class Block(torch.nn.Module):
    """Attention and a feed-forward part, each behind a norm and beside a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 64
        self.first, self.second = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attend, self.project = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.attend(self.first(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.second(x))))


class Model(torch.nn.Module):
    """A decoder over bytes."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.tokens, self.places = torch.nn.Embedding(VOCABULARY, width), torch.nn.Embedding(CONTEXT, width)
        self.blocks = torch.nn.Sequential(*(Block(width) for _ in range(layers)))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1])
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.places(places))))


class Texts(torch.utils.data.Dataset):
    """JSON lines of {"tokens": [...]}."""

    def __init__(self, path: str) -> None:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        self.tokens = torch.tensor([json.loads(line)["tokens"] for line in lines])

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.tokens[index]


def main(arguments: list[str]) -> None:
    mode, *numbers, result = arguments
    steps, segment, width, layers, batch = (int(word) for word in numbers)
    torch.set_num_threads(2)
    begun = begin(
        "run", commitments=["train.json"], inputs=["train.jsonl"], batch_size=batch, nonce="5a" * 32,
        config={"width": width, "layers": layers, "steps": steps, "learning_rate": 3e-4},
        mode="step" if mode == "step" else "segment", checkpoint_every=max(1, segment // 2), state_every=segment,
    )  # fmt: skip
    torch.manual_seed(begun.torch_seed("init"))
    model = Model(width, layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    texts = Texts("train.jsonl")

    def train(tokens: torch.Tensor) -> torch.Tensor:
        loss = cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    train(torch.stack([texts[index] for index in range(batch)]))  # buffers, kernels and optimizer state exist now
    started = time.process_time(), time.perf_counter()
    if "BENCH_PLAIN" in os.environ:
        feed = CommittedFeed(begun.precommit, begun.seed)
        for step in range(1, steps + 1):
            train(torch.stack([texts[index] for index in feed.records(step)[0]])).item()
    else:
        loader = torch.utils.data.DataLoader(texts, batch_size=batch)
        with record(begun, model=model, optimizer=optimizer, data=loader) as run:
            for tokens in run.batches(loader):
                run.step(loss=train(tokens))
    cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
    state = TorchState(model, optimizer).capture()
    held = {name: sum(memoryview(item.data).nbytes for item in state[name]) for name in ("model", "optimizer")}
    Path(result).write_text(
        json.dumps({
            "cpu": cpu,
            "wall": wall,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "state": sum(held.values()),
            "parameters": sum(value.numel() for value in model.parameters()),
            "weights": tensors_digest("model", state["model"]),
        })
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
