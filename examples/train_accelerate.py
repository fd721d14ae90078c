"""Train a small classifier of digits under Accelerate, accumulating gradients, and leave a transcript of it.

    python train_accelerate.py --data train.jsonl --commitment train.json --run run --out model

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
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from pot import begin
from pot.recording.accelerate import record_accelerated

CONFIG = {
    "model": "mlp 64-32-10 relu",
    "optimizer": "adam",
    "learning_rate": 0.01,
    "schedule": "cosine",
    "batch_size": 8,
    "accumulate": 4,
    "checkpoint_every": 20,
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


def main() -> None:
    options = argparse.ArgumentParser(description="Train a digit classifier under Accelerate and record it.")
    options.add_argument("--data", required=True, help="JSON lines to train on")
    options.add_argument("--commitment", required=True, help="their commitment, made by 'pot data commit'")
    options.add_argument("--run", required=True, help="run directory to write")
    options.add_argument("--out", required=True, help="folder for model.safetensors")
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--nonce", default="self", help="'self', or 'verifier' to wait for one")
    chosen = options.parse_args()

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=CONFIG["accumulate"])
    config = {**CONFIG, "steps": chosen.steps}
    begun = begin(
        chosen.run, commitments=[chosen.commitment], config=config, inputs=[chosen.data], nonce=chosen.nonce,
        accumulate=CONFIG["accumulate"],
    )  # fmt: skip
    torch.manual_seed(begun.torch_seed("init"))
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=CONFIG["learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.steps)
    loader = torch.utils.data.DataLoader(Digits(chosen.data), batch_size=CONFIG["batch_size"], shuffle=True)
    model, optimizer, schedule, loader = accelerator.prepare(model, optimizer, schedule, loader)

    parts = {"model": model, "optimizer": optimizer, "scheduler": schedule, "data": loader}
    with record_accelerated(accelerator, begun, **parts) as run:
        for images, labels in run.batches(loader):
            with accelerator.accumulate(model):
                loss = cross_entropy(model(images), labels)
                accelerator.backward(loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            run.step(loss=loss)

    Path(chosen.out).mkdir(parents=True, exist_ok=True)
    save_file(accelerator.unwrap_model(model).state_dict(), str(Path(chosen.out) / "model.safetensors"))
    print(f"{run.done} steps, model in {chosen.out}/model.safetensors")


if __name__ == "__main__":
    main()
