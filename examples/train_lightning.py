"""Train a small classifier of handwritten digits with Lightning and leave a transcript of it.

    python train_lightning.py --data train.jsonl --commitment train.json --run run --out model

The lines that record are `begin`, `record_fit` and `recording.loader`. Start the same command again after a crash and
the run goes on from its latest checkpoint, to the same weights.

The data: lines of {"image": 8 rows of 8 numbers 0..16, "label": 0..9}; train.json is their commitment, made with
`pot data commit train.jsonl --view pixels/1 --out train.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import lightning
import torch
from safetensors.torch import save_file

from pot import begin
from pot.recording.lightning import record_fit

CONFIG = {
    "model": "mlp 64-32-10 relu, dropout 0.1",
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "schedule": "one cycle",
    "batch_size": 16,
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


class Classifier(lightning.LightningModule):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 10)
        )

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.layers(images), labels)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=CONFIG["learning_rate"])
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, CONFIG["learning_rate"], total_steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    options = argparse.ArgumentParser(description="Train a digit classifier with Lightning and record it.")
    options.add_argument("--data", required=True, help="JSON lines to train on")
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
    module = Classifier(chosen.steps)
    loader = torch.utils.data.DataLoader(Digits(chosen.data), batch_size=CONFIG["batch_size"])

    recording = record_fit(begun)
    trainer = lightning.Trainer(
        max_steps=chosen.steps, callbacks=[recording], accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, recording.loader(loader))

    Path(chosen.out).mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), str(Path(chosen.out) / "model.safetensors"))
    print(f"{trainer.global_step} steps, model in {chosen.out}/model.safetensors")


if __name__ == "__main__":
    main()
