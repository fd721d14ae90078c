"""Train a small byte model whose rows several processes share (FSDP2), and leave one transcript of them all.

    torchrun --nproc-per-node 2 train_fsdp.py --data train.jsonl --commitment train.json --run-dir run --out model

No process ever holds the whole model: each commits to its rows of weights and optimizer, and one digest binds theirs.
The released file is put together at the end, and its digest can be computed from the whole weights.
Start the same command again after a crash and the run goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

from pot import begin, record
from pot.data.readers import RecordDataset

CONFIG = {
    "model": "bytes: 16 embeddings of 16, 256-65-256 relu",
    "optimizer": "adamw",
    "learning_rate": 0.003,
    "batch_size": 16,
    "checkpoint_every": 10,
    "state_every": 20,
    "threads": 1,
}
WINDOW = 16
PREDICTED = 8


class Windows(torch.utils.data.Dataset):
    """The beginning of every text as bytes: 16 to look at, 8 to predict one after the other."""

    def __init__(self, path: str) -> None:
        self.records = RecordDataset(path)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> torch.Tensor:
        text = self.records[index]["text"].encode()[: WINDOW + PREDICTED].ljust(WINDOW + PREDICTED, b" ")
        return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


class ByteModel(torch.nn.Module):
    """Logits of the next byte, for each place after the first 16."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(256, 16)
        self.hidden = torch.nn.Linear(16 * WINDOW, 65)
        self.out = torch.nn.Linear(65, 256)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        before = self.embed(windows[:, :-1]).unfold(1, WINDOW, 1)
        return self.out(torch.relu(self.hidden(before.flatten(2).flatten(0, 1))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="training records with a field text, JSON lines")
    parser.add_argument("--commitment", required=True, help="their commitment: pot data commit DATA --view text/1")
    parser.add_argument("--run-dir", required=True, help="folder of the transcript")
    parser.add_argument("--out", required=True, help="folder for model.safetensors")
    parser.add_argument("--steps", type=int, default=110)
    chosen = parser.parse_args()

    torch.set_num_threads(CONFIG["threads"])
    distributed.init_process_group("gloo")
    config = {**CONFIG, "steps": chosen.steps}
    begun = begin(
        chosen.run_dir, commitments=[chosen.commitment], config=config, inputs=[chosen.data], sharding="rows"
    )  # fmt: skip
    torch.manual_seed(begun.torch_seed("init"))
    model = ByteModel()
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    fully_shard(model.hidden, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=CONFIG["learning_rate"])
    loader = torch.utils.data.DataLoader(Windows(chosen.data), batch_size=CONFIG["batch_size"])

    with record(begun, model=model, optimizer=optimizer, data=loader) as run:
        for windows in run.batches(loader):
            loss = cross_entropy(model(windows), windows[:, WINDOW:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)

    whole = {}
    for name, rows in model.state_dict().items():
        tensor = rows.full_tensor()  # every process takes part, the first keeps it
        if distributed.get_rank() == 0:
            whole[name] = tensor
    if distributed.get_rank() == 0:
        Path(chosen.out).mkdir(parents=True, exist_ok=True)
        save_file(whole, str(Path(chosen.out) / "model.safetensors"))
        print(f"{run.done} steps, model in {chosen.out}/model.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
