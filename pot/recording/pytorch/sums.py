"""Sums over processes in an order that a replay has too: for DDP with more than two processes.

DDP adds gradients in buckets, which it lays out anew after its first step, and a ring adds each piece of a bucket in
another order: after a resumption or at the start of a replayed segment the layout is the first one again, and sums of
three numbers come out otherwise. `model.register_comm_hook(None, average_in_order)` gathers and adds in the order of
the processes, whatever the layout. Two processes need nothing (a + b = b + a), nor does FSDP2, whose layout is fixed.

Shows / does not show: nothing. Cost: each process receives every other's gradients, W times what a ring moves.
"""

from __future__ import annotations

from typing import Any

from pot.recording.pytorch.rows import is_ddp

__all__ = ["adds_in_any_order", "average_in_order"]


def average_in_order(group, bucket):  # type: ignore[no-untyped-def]  # PyTorch compares annotations with its classes
    """A communication hook of `DistributedDataParallel`: the mean of a bucket, added in the order of the processes.

    `group`: the process group, None for all processes.
    """
    import torch
    from torch import distributed

    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    work: Any = distributed.all_gather(parts, own, group=group, async_op=True)

    def added(_: Any) -> Any:
        total = parts[0]
        for part in parts[1:]:
            total.add_(part)
        return total.div_(len(parts))

    return work.get_future().then(added)


def adds_in_any_order(model: Any, world: int) -> bool:
    """Whether a replay of this model's training may add the processes' gradients in another order."""
    if world <= 2 or not is_ddp(model):
        return False
    return all(hook is not average_in_order for hook, _ in getattr(model, "_comm_hooks", ()))
