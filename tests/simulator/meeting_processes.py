"""A program for two processes that tries what goes wrong between them; each writes what it was told to said-RANK.json.

Started by `tests/integration/test_distributed.py`, which looks at the sentences and at the runs that are left.
"""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from pot import begin, record
from pot.errors import PotError

CONFIG = {"batch_size": 4, "steps": 8, "checkpoint_every": 2}
SAID: dict[str, str] = {}


class Numbers(torch.utils.data.Dataset):
    """Forty rows of five numbers."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.arange(5, dtype=torch.float32) * index / 100


def network(norm: bool = False) -> torch.nn.Module:
    layers = [torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7) if norm else torch.nn.ReLU(), torch.nn.Linear(7, 3)]
    return torch.nn.Sequential(*layers)


def limit(size: int | None) -> None:
    """Files of this process cannot grow beyond `size`, as on a full disk."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def train(
    name: str,
    wrap: str = "ddp",
    *,
    config: dict[str, Any] | None = None,
    norm: bool = False,
    full: int | None = None,
    stop: int | None = None,
    on_error: Any = "stop",
    frozen: bool = False,
    **options: Any,
) -> None:
    """Train in the run directory `name`. `full`: process whose disk is full in steps 4 and 5. `stop`: after a step.

    `frozen`: the first layer is not trained and recorded apart.
    """
    options = {"commitments": ["numbers.json"], "sharding": "rows" if wrap == "fsdp" else "replicated", **options}
    begun = begin(name, config=config or CONFIG, **options)
    torch.manual_seed(begun.torch_seed("init"))
    model: Any = network(norm)
    model[0].requires_grad_(not frozen)
    if wrap == "ddp":
        model = DistributedDataParallel(model)
    elif wrap == "fsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05) if frozen else torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=4)
    parts = {"model": model, "optimizer": optimizer, "scheduler": schedule, "data": loader}
    with record(begun, **parts, on_error=on_error, frozen_apart=frozen) as run:
        for batch in run.batches(loader):
            if distributed.get_rank() == full:
                limit({3: 60, 5: None}.get(run.done, resource.getrlimit(resource.RLIMIT_FSIZE)[0]))
            loss = model(batch).square().mean()
            loss.backward()
            if run.completes:
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            run.step(loss=loss)
            if run.done == stop:
                break


def case(name: str, **how: Any) -> None:
    try:
        train(how.pop("run", name), **how)
        SAID[name] = "done"
    except PotError as error:
        SAID[name] = f"{type(error).__name__}: {error}"
    finally:
        limit(None)
    distributed.barrier()


def main() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    case("accumulated", accumulate=2, config={**CONFIG, "steps": 5})
    case("normalised", norm=True)
    case("apart", wrap="none")
    case("normalised rows", wrap="fsdp", norm=True)
    case("no data", commitments=())
    case("other configuration", config={**CONFIG, "rate": rank})
    case("sharding", wrap="fsdp", sharding="replicated")
    case("stream", stream=True)
    case("full first", full=0)
    case("full first again", run="full first")
    case("full rows", wrap="fsdp", full=1)
    case("full rows again", run="full rows", wrap="fsdp")
    case("gap", wrap="fsdp", full=1, on_error="gap")
    case("frozen", wrap="fsdp", frozen=True, stop=5)
    case("frozen again", run="frozen", wrap="fsdp", frozen=True)
    case("bent", wrap="fsdp", stop=5)
    if rank == 0:
        path = Path("bent/checkpoints/step-000004/model-00001-of-00002.safetensors")
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    distributed.barrier()
    case("bent again", run="bent", wrap="fsdp")
    Path(f"said-{rank}.json").write_text(json.dumps(SAID), encoding="utf-8")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
