"""Train a small classifier of handwritten digits: an ordinary script, which knows nothing of pot.

    pot run --commitment train.json --input train.jsonl --batch-size 32 --epochs 15 -- python plain_mlp.py train.jsonl

Started by itself (`python plain_mlp.py train.jsonl`) it trains in an order of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    """JSON lines of {"image": 8 rows of 8 numbers 0..16, "label": 0..9}."""

    def __init__(self, path: str) -> None:
        self.records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self.records[index]
        return torch.tensor(record["image"], dtype=torch.float32).reshape(64) / 16, record["label"]


def main() -> None:
    options = argparse.ArgumentParser(description="Train a digit classifier.")
    options.add_argument("data", help="JSON lines to train on")
    options.add_argument("--epochs", type=int, default=15)
    options.add_argument("--out", default="model.pt", help="where to save the weights")
    chosen = options.parse_args()

    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=chosen.epochs)
    loader = DataLoader(Digits(chosen.data), batch_size=32, shuffle=True, drop_last=True)
    for epoch in range(chosen.epochs):
        total = 0.0
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        schedule.step()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.4f}")
    torch.save(model.state_dict(), chosen.out)


if __name__ == "__main__":
    main()
