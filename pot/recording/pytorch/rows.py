"""PyTorch tensors that several processes hold together: DDP's copies, FSDP2's rows (`DTensor`s cut along dimension 0).

A process captures its own rows, whatever way it holds them: of a tensor that it holds whole it takes the rows that
would be its own (`pot.commitments.sharded`), so that the digest does not depend on how it was held. What a process
holds whole must be the same in all of them.

Shows / does not show: nothing; this is a form of holding. Tensor parallelism, meshes of more than one dimension and
FSDP1 are refused.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

from pot.commitments.sharded import rows_of
from pot.errors import Refused, UsageError

__all__ = ["Rows", "broadcasts_buffers", "is_cut", "is_ddp", "sharding_of", "unwrapped"]


def unwrapped(model: Any) -> Any:
    """The module inside of `DistributedDataParallel`, else the model itself. Raises `UsageError` for FSDP1."""
    if type(model).__name__ == "FullyShardedDataParallel":
        raise UsageError("record: FullyShardedDataParallel hides its parameters' rows; use fully_shard (FSDP2)")
    return model.module if is_ddp(model) else model


def broadcasts_buffers(model: Any) -> bool:
    """Whether the first process's buffers replace the others' before they are used."""
    return is_ddp(model) and bool(model.broadcast_buffers)


def sharding_of(model: Any) -> Literal["replicated", "rows"]:
    """How the processes hold a model's parameters."""
    return "rows" if any(is_cut(value) for value in unwrapped(model).parameters()) else "replicated"


def is_cut(value: Any) -> bool:
    """Whether processes hold different rows of a tensor. Raises `UsageError` for any other division."""
    kind = _dtensor()
    if kind is None or not isinstance(value, kind):
        return False
    placements = [str(placement) for placement in value.placements]
    if placements == ["R"]:
        return False
    if placements != ["S(0)"] or value.device_mesh.ndim != 1:
        raise UsageError(
            f"record: a tensor is divided as {', '.join(placements)[:64]}; what can be recorded is rows (dimension 0)"
            " over all processes, as fully_shard makes them"
        )
    return bool(value.device_mesh.size() > 1)


class Rows:
    """What this process holds, `rank` of `world`. With a world of 1 tensors are left as they are."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank = rank
        self.world = world

    def own(self, value: Any) -> Any | None:
        """This process's rows as an ordinary tensor that shares memory; None where it has none."""
        cut, local = self._local(value)
        if self.world == 1:
            return local
        if value.dim() == 0 or value.numel() == 0:
            return (local.new_empty(tuple(value.shape)) if cut else local) if self.rank == 0 else None
        first, after = rows_of(value.shape[0], self.rank, self.world)
        if not cut:
            local = local[first:after]
        elif local.shape[0] != after - first:
            raise UsageError(
                f"record: this process holds {local.shape[0]} of {value.shape[0]} rows, {after - first} are expected"
            )
        return local if first < after else None

    def target(self, value: Any, found: Any, name: str) -> None:
        """Copy rows, or a whole tensor, into what this process holds of `value`. Raises `Refused` for other shapes."""
        _, local = self._local(value)
        if found is None:  # no rows of it are this process's
            found = local.new_empty((0, *local.shape[1:]))
        if local.shape != found.shape or local.dtype != found.dtype:
            raise Refused(f"checkpoint: tensor {name[:64]!r} has another shape or dtype than the program's")
        local.copy_(found)

    def like(self, parameter: Any, found: Any, shape: tuple[int, ...]) -> Any:
        """Rows as a tensor that is cut as `parameter` is, `shape` of the whole."""
        import torch

        kind: Any = _dtensor()
        _, local = self._local(parameter)
        stride = torch.empty(shape, device="meta").stride()
        return kind.from_local(
            found.to(local.device), parameter.device_mesh, parameter.placements, run_check=False,
            shape=torch.Size(shape), stride=stride,
        )  # fmt: skip

    def _local(self, value: Any) -> tuple[bool, Any]:
        kind = _dtensor()
        if kind is None or not isinstance(value, kind):
            return False, value.detach()
        return is_cut(value), value.detach().to_local()


def _dtensor() -> Any:
    """The class of distributed tensors; None where the program has not imported it, so that it has none."""
    module = sys.modules.get("torch.distributed.tensor")
    return getattr(module, "DTensor", None)


def is_ddp(model: Any) -> bool:
    """Whether the model is wrapped in `DistributedDataParallel`."""
    return any(kind.__name__ == "DistributedDataParallel" for kind in type(model).__mro__)
