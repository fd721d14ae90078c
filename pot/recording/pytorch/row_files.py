"""Loading a checkpoint that several processes wrote: each reads its own rows, and whole only what it holds whole.

Files are mapped, so of another process's file no more is read than its header and the tensors that are needed.

Shows / does not show: see `pot.recording.pytorch.load`. What is loaded is hashed and compared afterwards.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pot.commitments.sharded import join_entries
from pot.commitments.state import TensorEntry, entries_from_safetensors
from pot.errors import EnvironmentFailure, Malformed, Refused
from pot.recording.pytorch.rows import Rows, is_cut
from pot.recording.pytorch.tensors import tensor
from pot.recording.writing.file_names import shard_name

if TYPE_CHECKING:
    from pot.recording.pytorch.state import TorchState

__all__ = ["RowFiles", "load_model_rows", "state_tensors"]


class RowFiles:
    """The files of one component, opened as they are needed."""

    def __init__(self, folder: Path, component: str, rows: Rows) -> None:
        self._folder = folder
        self._component = component
        self._rows = rows
        self._parts: dict[int, dict[str, TensorEntry]] = {}

    def names(self) -> list[str]:
        """The names of all tensors: the first process holds the first rows of every one."""
        return list(self._part(0))

    def first(self, name: str) -> TensorEntry:
        """The first process's part of a tensor. Raises `Refused`."""
        if name not in self._part(0):
            raise Refused(f"{self._folder}: {self._component} has no tensor {name[:64]!r}")
        return self._part(0)[name]

    def own(self, name: str) -> TensorEntry | None:
        """This process's rows; None where it has none."""
        return self._part(self._rows.rank).get(name)

    def whole(self, name: str) -> TensorEntry:
        """All rows, joined. Raises `Refused`, `Malformed`."""
        first = self.first(name)
        if not first.shape:
            return first
        parts = [self._part(rank) for rank in range(self._rows.world)]
        return join_entries([[part[name]] if name in part else [] for part in parts])[0]

    def _part(self, rank: int) -> dict[str, TensorEntry]:
        if rank not in self._parts:
            path = self._folder / shard_name(self._component, rank, self._rows.world)
            try:
                with path.open("rb") as stream:
                    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:  # ValueError: an empty file
                raise EnvironmentFailure(f"{path}: cannot be read: {error}") from None
            self._parts[rank] = {
                entry.name: entry for entry in entries_from_safetensors(memoryview(data), what=str(path))
            }
        return self._parts[rank]


def load_model_rows(source: TorchState, rows: Rows, folder: Path) -> None:
    """Copy this process's part of the component `model` into the program's model. Raises `Refused`, `Malformed`."""
    import torch

    files = RowFiles(folder, "model", rows)
    own = {name: value for name, value in source.model.state_dict().items() if name not in source.frozen_names}
    if sorted(own) != sorted(files.names()):
        raise Refused("checkpoint: the model's tensors are not those of the program's model")
    with torch.no_grad():
        for name, value in own.items():
            entry = files.own(name) if is_cut(value) else files.whole(name)
            rows.target(value, None if entry is None else tensor(entry), name)


def state_tensors(
    files: RowFiles, rows: Rows, cut: Mapping[str, Any], parameters: Mapping[str, Any], names: list[str]
) -> dict[str, Any]:
    """The optimizer's tensors by entry name, cut as their parameters are where `cut` gives the whole shape.

    Raises `Refused` for a parameter that the program does not cut, `Malformed`.
    """
    found: dict[str, Any] = {}
    for full in names:
        shape = cut.get(full)
        if shape is None:
            found[full] = tensor(files.whole(full))
            continue
        name = full.removeprefix("state.").rpartition("/")[0]
        if name not in parameters or not is_cut(parameters[name]):
            raise Refused(f"checkpoint: the optimizer's state of {name[:64]!r} is cut by rows, the program's is not")
        if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
            raise Malformed("checkpoint: the optimizer's rows must have lists of sizes as shapes")
        first, own = files.first(full), files.own(full)
        empty = TensorEntry(full, first.dtype, (0, *shape[1:]), b"")
        found[full] = rows.like(parameters[name], tensor(own or empty), tuple(shape))
    return found
