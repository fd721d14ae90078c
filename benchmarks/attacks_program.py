"""The program that the forgers of `make bench-attacks` commit to, and honest runs train with: digits, a small network.

python train.py DATA COMMITMENT RUN STEPS EVERY RATE
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from pot import begin, record
from pot.data.readers import RecordDataset

BATCH = 16


def network() -> torch.nn.Module:
    """With PyTorch's own initial weights, from its generator."""
    return torch.nn.Sequential(
        torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 10)
    )  # fmt: skip


def tensors(items: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 64 numbers up to 1, and labels."""
    images = bytearray(b"".join(bytes.fromhex(item["image"]) for item in items))
    labels = torch.tensor([item["label"] for item in items])
    return torch.frombuffer(images, dtype=torch.uint8).reshape(-1, 64) / 16, labels


def main(arguments: list[str]) -> None:
    data, commitment, run_dir = arguments[:3]
    steps, every, rate = int(arguments[3]), int(arguments[4]), float(arguments[5])
    torch.set_num_threads(1)
    begun = begin(
        run_dir, commitments=[commitment], inputs=[data], nonce="verifier", batch_size=BATCH,
        config={"rate": arguments[5], "steps": steps, "checkpoint_every": every},
    )  # fmt: skip
    torch.manual_seed(begun.torch_seed("init"))
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    dataset = RecordDataset(data)
    with record(begun, model=model, optimizer=optimizer, data=dataset) as run:
        for items in run.batches(dataset):
            images, labels = tensors(items)
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)


if __name__ == "__main__":
    main(sys.argv[1:])
