"""Train a small classifier of handwritten digits and leave a transcript of it.

    python train_digits.py --data train.jsonl --commitment train.json --run run --out model --test test.jsonl

The three lines that record are the `with`, the `for` and `run.step`. Start the same command again after a crash and the
run goes on from its latest checkpoint, to the same weights.

The data: lines of {"image": 8 rows of 8 numbers 0..16, "label": 0..9}; train.json is their commitment, made with
`pot data commit train.jsonl --view pixels/1 --out train.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import mse_loss, one_hot

from pot import begin, record

CONFIG = {
    "model": "mlp 64-32-10 relu",
    "optimizer": "sgd",
    "loss": "mean squared error",
    "learning_rate": 0.5,
    "schedule": "linear up over the first tenth of the steps, then linear to 0",
    "momentum": 0.9,
    "batch_size": 32,
    "checkpoint_every": 25,
    "threads": 1,
}


class Digits(torch.utils.data.Dataset):
    """JSON lines of {"image": 8 rows of 8 numbers 0..16, "label": 0..9}."""

    def __init__(self, path: str) -> None:
        self.records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self.records[index]
        return torch.tensor(record["image"], dtype=torch.float32).reshape(64) / 16, record["label"]


def build_model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def accuracy(model: torch.nn.Module, path: str) -> float:
    digits = Digits(path)
    images, labels = zip(*(digits[index] for index in range(len(digits))), strict=True)
    with torch.no_grad():
        right = model(torch.stack(images)).argmax(dim=1) == torch.tensor(labels)
    return right.float().mean().item()


def main() -> None:
    options = argparse.ArgumentParser(description="Train a digit classifier and record it.")
    options.add_argument("--data", required=True, help="JSON lines to train on")
    options.add_argument("--commitment", required=True, help="their commitment, made by 'pot data commit'")
    options.add_argument("--run", required=True, help="run directory to write")
    options.add_argument("--out", required=True, help="folder for model.safetensors")
    options.add_argument("--steps", type=int, default=1000)
    options.add_argument("--nonce", default="self", help="'self', or 'verifier' to wait for one")
    options.add_argument("--test", help="JSON lines to measure the accuracy on")
    chosen = options.parse_args()

    torch.set_num_threads(1)
    config = {**CONFIG, "steps": chosen.steps}
    begun = begin(chosen.run, commitments=[chosen.commitment], config=config, inputs=[chosen.data], nonce=chosen.nonce)
    torch.manual_seed(begun.torch_seed("init"))
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=CONFIG["learning_rate"], momentum=CONFIG["momentum"])
    warm_up = chosen.steps // 10
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 1 - step / chosen.steps)
    )
    loader = torch.utils.data.DataLoader(Digits(chosen.data), batch_size=CONFIG["batch_size"])

    with record(begun, model=model, optimizer=optimizer, scheduler=schedule, data=loader) as run:
        for images, labels in run.batches(loader):
            loss = mse_loss(model(images), one_hot(labels, 10).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            run.step(loss=loss)

    Path(chosen.out).mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), str(Path(chosen.out) / "model.safetensors"))
    print(f"{run.done} steps, model in {chosen.out}/model.safetensors")
    if chosen.test:
        print(f"test accuracy {accuracy(model, chosen.test):.4f}")


if __name__ == "__main__":
    main()
