"""A small training in PyTorch that can be recorded on "another machine": other bits, and an environment that says so.

Usage: python float_training.py DATA COMMITMENT RUN STEPS EVERY BATCH [STATE_EVERY]

POT_TEST_MACHINE, while it is recorded: "plain" computes with the plainest instruction set and says so; "other" computes
with it too, but names one that no variable can ask for. No replay sees the variable.
"""

from __future__ import annotations

import os
import random
import sys

MACHINE = os.environ.pop("POT_TEST_MACHINE", "")
if MACHINE:
    os.environ["ATEN_CPU_CAPABILITY"] = "default"

import torch  # noqa: E402

torch.backends.cpu.get_cpu_capability()  # from here on the variable has done its work
if MACHINE:
    del os.environ["ATEN_CPU_CAPABILITY"]
if MACHINE == "other":
    torch.backends.cpu.get_cpu_capability = lambda: "ANOTHER"

from pot import begin, record  # noqa: E402
from pot.data.readers import RecordDataset  # noqa: E402

WIDTH = 24


def tensors(batch: list[dict[str, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [[(item["id"] * (place + 3) % 17) / 17 for place in range(WIDTH)] for item in batch]
    return torch.tensor(rows), torch.tensor([item["value"] % 4 for item in batch])


def weights(rows: int, columns: int) -> torch.nn.Parameter:
    """Drawn by Python: PyTorch draws others with another instruction set."""
    return torch.nn.Parameter(torch.tensor([[random.gauss(0, 0.3) for _ in range(columns)] for _ in range(rows)]))


def main(arguments: list[str]) -> None:
    data, commitment, run_dir = arguments[:3]
    steps, every, batch = (int(text) for text in arguments[3:6])
    options = {"state_every": int(arguments[6])} if len(arguments) > 6 else {}
    torch.set_num_threads(1)
    begun = begin(
        run_dir, commitments=[commitment], inputs=[data], **options,
        config={"rate": 0.01, "steps": steps, "checkpoint_every": every, "batch_size": batch},
    )  # fmt: skip
    torch.manual_seed(begun.torch_seed("init"))
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 4)
    )
    for layer in (model[0], model[3]):
        layer.weight = weights(*layer.weight.shape)
        torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    dataset = RecordDataset(data)
    with record(begun, model=model, optimizer=optimizer, data=dataset) as run:
        for items in run.batches(dataset):
            rows, labels = tensors(items)
            loss = torch.nn.functional.cross_entropy(model(rows), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)


if __name__ == "__main__":
    main(sys.argv[1:])
