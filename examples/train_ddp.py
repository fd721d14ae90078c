"""Train a small classifier of handwritten digits with several processes (DDP), and leave one transcript of them all.

    torchrun --nproc-per-node 2 train_ddp.py --data train.jsonl --commitment train.json --run-dir run --out model

What is new beside `train_digits.py`: the processes are joined before `begin`, `batch_size` is that of one process, and
no DistributedSampler is needed, because the committed order tells every process which records are its own. Each
process draws its own dropout. Start the same command again after a crash and the run goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from pot import begin, record

CONFIG = {
    "model": "mlp 64-32-10 relu, dropout 0.1",
    "optimizer": "adam",
    "learning_rate": 0.003,
    "batch_size": 16,
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


def build_model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 10)
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="training records, JSON lines")
    parser.add_argument("--commitment", required=True, help="their commitment: pot data commit DATA --view pixels/1")
    parser.add_argument("--run-dir", required=True, help="folder of the transcript")
    parser.add_argument("--out", required=True, help="folder for model.safetensors")
    parser.add_argument("--steps", type=int, default=120)
    chosen = parser.parse_args()

    torch.set_num_threads(CONFIG["threads"])
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    config = {**CONFIG, "steps": chosen.steps}
    begun = begin(chosen.run_dir, commitments=[chosen.commitment], config=config, inputs=[chosen.data])
    torch.manual_seed(begun.torch_seed("init"))
    model = DistributedDataParallel(build_model())
    torch.manual_seed(begun.torch_seed(f"dropout/{rank}"))
    optimizer = torch.optim.Adam(model.parameters(), lr=CONFIG["learning_rate"])
    loader = torch.utils.data.DataLoader(Digits(chosen.data), batch_size=CONFIG["batch_size"])

    with record(begun, model=model, optimizer=optimizer, data=loader) as run:
        for images, labels in run.batches(loader):
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)

    if rank == 0:
        Path(chosen.out).mkdir(parents=True, exist_ok=True)
        save_file(model.module.state_dict(), str(Path(chosen.out) / "model.safetensors"))
        print(f"{run.done} steps, model in {chosen.out}/model.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
