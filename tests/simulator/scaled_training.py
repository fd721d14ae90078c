"""A plain loop with all at once: 16-bit autocast, a gradient scaler, accumulation, two groups, joined schedules."""

from __future__ import annotations

import sys
from typing import Any

import torch

from pot import begin, record

STEPS = 120


class Pairs(torch.utils.data.Dataset[Any]):
    """60 records whose inputs and targets follow from their number."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(6.0) * index / 60, torch.tensor(float(index % 3))


def train(
    run_dir: str,
    commitment: str,
    *,
    dtype: torch.dtype = torch.float16,
    schedule: str = "joined",
    stop: int | None = None,
) -> list[torch.Tensor]:
    """Record 120 steps of four micro-batches of 3 records, or up to `stop`; returns the weights."""
    begun = begin(
        run_dir, commitments=[commitment], config={"schedule": schedule, "dtype": str(dtype)}, batch_size=3,
        accumulate=4, steps=STEPS, checkpoint_every=10,
    )  # fmt: skip
    torch.manual_seed(begun.torch_seed("init"))
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[3].parameters(), "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.02)
    scheduler = schedulers(optimizer)[schedule]()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17, growth_interval=10)  # the first steps overflow
    loader = torch.utils.data.DataLoader(Pairs(), batch_size=3)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    with record(begun, data=loader, **parts) as run:
        for inputs, targets in run.batches(loader):
            with torch.autocast("cpu", dtype):
                loss = torch.nn.functional.mse_loss(model(inputs).squeeze(1).float(), targets)
            scaler.scale(loss / 4).backward()
            if run.completes:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                scheduler.step()
            run.step(loss=loss)
            if run.done == stop:
                break
    return [value.clone() for value in model.state_dict().values()]


def schedulers(optimizer: Any) -> dict[str, Any]:
    """Makers of schedules by name."""
    kinds = torch.optim.lr_scheduler
    rise = {"start_factor": 0.1, "total_iters": 20}
    return {
        "joined": lambda: kinds.SequentialLR(
            optimizer, [kinds.LinearLR(optimizer, **rise), kinds.CosineAnnealingLR(optimizer, STEPS - 20)], [20]
        ),
        "cycle": lambda: kinds.OneCycleLR(optimizer, [0.01, 0.02], total_steps=STEPS),
        "cosine": lambda: kinds.CosineAnnealingLR(optimizer, STEPS),
        "restarts": lambda: kinds.CosineAnnealingWarmRestarts(optimizer, 17, 2),
        "lambda": lambda: kinds.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], sys.argv[2])
