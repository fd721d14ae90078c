"""Train a small byte model on text records and leave a transcript of it.

    python train_text.py --data train.jsonl --commitment train.json --run run --out model

The model predicts a byte from the 16 before it. Each record gives one window a step, at a place that follows from its
length and the epoch, so nothing is random but the first weights and the order, which the recorder seeds.

The data: lines of {"text": "..."}; train.json is their commitment, made with
`pot data commit train.jsonl --view text/1 --out train.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from pot import begin, record
from pot.data.readers import RecordDataset

CONFIG = {
    "model": "bytes: 16 embeddings of 16, 256-128-256 relu",
    "optimizer": "adam",
    "learning_rate": 0.003,
    "batch_size": 64,
    "checkpoint_every": 50,
    "threads": 1,
}
WINDOW = 16
PREDICTED = 32


class Windows(torch.utils.data.Dataset):
    """The middle of every text as bytes: 16 to look at, 32 to predict one after the other."""

    def __init__(self, path: str) -> None:
        self.records = RecordDataset(path)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> torch.Tensor:
        text = self.records[index]["text"].encode()
        start = max(0, len(text) - WINDOW - PREDICTED) // 2
        window = text[start : start + WINDOW + PREDICTED].ljust(WINDOW + PREDICTED, b" ")
        return torch.frombuffer(bytearray(window), dtype=torch.uint8).long()


class ByteModel(torch.nn.Module):
    """Logits of the next byte, for each place after the first 16."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(256, 16)
        self.hidden = torch.nn.Linear(16 * WINDOW, 128)
        self.out = torch.nn.Linear(128, 256)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        before = self.embed(windows[:, :-1]).unfold(1, WINDOW, 1)
        return self.out(torch.relu(self.hidden(before.flatten(2))))


def main() -> None:
    options = argparse.ArgumentParser(description="Train a byte model and record it.")
    options.add_argument("--data", required=True, help="JSON lines with a field text to train on")
    options.add_argument("--commitment", required=True, help="their commitment, made by 'pot data commit'")
    options.add_argument("--run", required=True, help="run directory to write")
    options.add_argument("--out", required=True, help="folder for model.safetensors")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--nonce", default="self", help="'self', or 'verifier' to wait for one")
    chosen = options.parse_args()

    torch.set_num_threads(1)
    config = {**CONFIG, "steps": chosen.steps}
    begun = begin(chosen.run, commitments=[chosen.commitment], config=config, inputs=[chosen.data], nonce=chosen.nonce)
    torch.manual_seed(begun.torch_seed("init"))
    model = ByteModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=CONFIG["learning_rate"])
    loader = torch.utils.data.DataLoader(Windows(chosen.data), batch_size=CONFIG["batch_size"])

    with record(begun, model=model, optimizer=optimizer, data=loader) as run:
        for windows in run.batches(loader):
            loss = cross_entropy(model(windows).flatten(0, 1), windows[:, WINDOW:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)

    Path(chosen.out).mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), str(Path(chosen.out) / "model.safetensors"))
    print(f"{run.done} steps, loss {loss.item():.2f} nats a byte, model in {chosen.out}/model.safetensors")


if __name__ == "__main__":
    main()
