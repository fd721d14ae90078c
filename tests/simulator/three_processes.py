"""A program for three processes: DDP's training in one go, and stopped half-way and wrapped anew, gives which weights?

Writes sums.json: for "any" and "ordered" sums, whether both give the same bits. Started by `test_distributed.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from pot.recording.pytorch.sums import adds_in_any_order, average_in_order


def train(first: int, last: int, state: dict[str, Any] | None, ordered: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    layers = [layer for _ in range(5) for layer in (torch.nn.Linear(64, 64), torch.nn.Tanh())]
    inner = torch.nn.Sequential(*layers)
    if state is not None:
        inner.load_state_dict(state)
    model = DistributedDataParallel(inner, bucket_cap_mb=0.02)
    assert adds_in_any_order(model, 3)
    if ordered:
        model.register_comm_hook(None, average_in_order)
        assert not adds_in_any_order(model, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(first, last):
        generator = torch.Generator().manual_seed(1000 * distributed.get_rank() + step)
        optimizer.zero_grad()
        model(torch.randn(8, 64, generator=generator)).square().mean().backward()
        optimizer.step()
    return {name: value.clone() for name, value in inner.state_dict().items()}


def main() -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    found = {}
    for name, ordered in (("any", False), ("ordered", True)):
        whole = train(0, 6, None, ordered)
        halves = train(3, 6, train(0, 3, None, ordered), ordered)
        found[name] = all(torch.equal(whole[key], halves[key]) for key in whole)
    if distributed.get_rank() == 0:
        Path("sums.json").write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
