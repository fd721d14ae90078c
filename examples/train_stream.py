"""Train a small byte model on an iterable dataset, shuffled in a buffer, and leave a transcript of what it yielded.

    python train_stream.py --data train.jsonl --commitment train.json --run run --out model

No seed fixes a stream's order: the transcript holds the digest of every batch instead. The buffer draws from a
generator of its own, seeded anew for each pass, so that a pass can be begun again when the run goes on or is replayed.

The data: lines of {"text": "..."}; train.json is their commitment, made with
`pot data commit train.jsonl --view text/1 --out train.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from pot import begin, record

CONFIG = {
    "model": "bytes: 16 embeddings of 16, 256-128-256 relu",
    "optimizer": "adam",
    "learning_rate": 0.003,
    "batch_size": 32,
    "shuffle_buffer": 64,
    "checkpoint_every": 50,
    "threads": 1,
}
WINDOW = 16


class Shuffled(torch.utils.data.IterableDataset):
    """The first 17 bytes of every text, in an order that a buffer of 64 makes."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        held: list[torch.Tensor] = []
        with Path(self.path).open(encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"].encode()[: WINDOW + 1].ljust(WINDOW + 1, b" ")
                held.append(torch.frombuffer(bytearray(text), dtype=torch.uint8).long())
                if len(held) >= CONFIG["shuffle_buffer"]:
                    yield held.pop(int(torch.randint(len(held), (), generator=generator)))
        yield from held


def main() -> None:
    options = argparse.ArgumentParser(description="Train a byte model on a stream and record it.")
    options.add_argument("--data", required=True, help="JSON lines with a field text to train on")
    options.add_argument("--commitment", required=True, help="their commitment, made by 'pot data commit'")
    options.add_argument("--run", required=True, help="run directory to write")
    options.add_argument("--out", required=True, help="folder for model.safetensors")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--nonce", default="self", help="'self', or 'verifier' to wait for one")
    chosen = options.parse_args()

    torch.set_num_threads(1)
    begun = begin(
        chosen.run, commitments=[chosen.commitment], config={**CONFIG, "steps": chosen.steps}, inputs=[chosen.data],
        nonce=chosen.nonce, stream=True,
    )  # fmt: skip
    torch.manual_seed(begun.torch_seed("init"))
    model = torch.nn.Sequential(
        torch.nn.Embedding(256, 16), torch.nn.Flatten(), torch.nn.Linear(16 * WINDOW, 128), torch.nn.ReLU(),
        torch.nn.Dropout(0.1), torch.nn.Linear(128, 256),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=CONFIG["learning_rate"])
    loader = torch.utils.data.DataLoader(Shuffled(chosen.data), batch_size=CONFIG["batch_size"])

    with record(begun, model=model, optimizer=optimizer, data=loader) as run:
        for windows in run.batches(loader):
            loss = cross_entropy(model(windows[:, :WINDOW]), windows[:, WINDOW])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)

    Path(chosen.out).mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), str(Path(chosen.out) / "model.safetensors"))
    print(f"{run.done} steps, loss {loss.item():.2f} nats a byte, model in {chosen.out}/model.safetensors")


if __name__ == "__main__":
    main()
