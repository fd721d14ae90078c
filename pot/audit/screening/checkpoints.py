"""A committed checkpoint opened to be measured: its files compared with their digests, its tensors as arrays, lazily.

Files are mapped, not read, and tensors are converted in chunks, so that memory stays bounded whatever their size; only
tensors that processes held by rows are put together as a copy. The files must not shrink while they are read: work on
a copy that nobody else writes to.

Shows: that the files are those of the transcript's event, and the tensors those of its digests.
Does not show: how the state came about.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pot.canonical import MAX_DOCUMENT_BYTES, parse
from pot.commitments.sharded import join_entries, joined_digest
from pot.commitments.state import TensorEntry, entries_from_safetensors, tensors_digest
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, Refused
from pot.recording.state import MAX_STATE_BYTES
from pot.recording.transcript import CheckpointEvent, StateFile
from pot.recording.writing.file_names import component_files

__all__ = ["CHUNK", "Group", "Opened", "chunks", "elements", "open_checkpoint", "readable", "state_of", "unit_roundoff"]

CHUNK: Final = 1 << 18  # elements converted at a time: 2 MiB as float64
_GROUPS_ENTRY: Final = "pot.groups"  # that of pot.recording.pytorch.state, which imports torch's world
_MAX_PARAMETERS: Final = 1_000_000
_MAX_NUMBER: Final = 64  # characters; Python's repr of a double has 24

Floats = NDArray[np.float64]

_NUMPY: Final = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip
_ROUNDOFF: Final = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}


@dataclass(frozen=True)
class Group:
    """One optimizer group: hyper-parameters as numbers, NaN where they are absent or no number."""

    parameters: tuple[str, ...] = field(repr=False)
    rate: float
    peak: float
    """The largest rate that the group names: of now, at the start, or of the schedule's top."""
    momentum: float
    dampening: float
    betas: tuple[float, float]
    eps: float
    decay: float
    keys: frozenset[str] = field(repr=False)
    decoupled: bool


@dataclass(frozen=True)
class Opened:
    """A checkpoint's tensors by name. `groups` is None where there is no optimizer that PyTorch's groups describe."""

    step: int
    model: dict[str, TensorEntry] = field(repr=False)
    optimizer: dict[str, TensorEntry] = field(repr=False)
    groups: tuple[Group, ...] | None
    scheduled: bool
    """Whether a schedule may change the rates, and a gradient scaler leave steps out."""
    scaled: bool


def open_checkpoint(run_dir: Path, event: CheckpointEvent) -> Opened:
    """Open the files of a checkpoint. Raises `Refused`, `Malformed`, `EnvironmentFailure`: lost, or not committed."""
    tensors: dict[str, list[TensorEntry]] = {}
    if not event.files:
        raise Refused(f"step {event.step}: the checkpoint has no files")
    data = {file.path: memoryview(_mapped(run_dir / file.path, file)) for file in event.files}
    for component, committed in event.components.items():
        paths = [file.path for file in component_files(event.files, component)]
        if not paths:
            continue
        parts = [entries_from_safetensors(data[path], what=path) for path in paths]
        digests = [tensors_digest(component, part) for part in parts]
        if (digests[0] if len(parts) == 1 else joined_digest(component, digests)) != committed:
            raise Refused(f"{paths[0]}: its tensors are not those of the committed component")
        tensors[component] = parts[0] if len(parts) == 1 else join_entries(parts)
    model = {entry.name: entry for entry in tensors.get("model", ())}
    optimizer = {entry.name: entry for entry in tensors.get("optimizer", ())}
    groups = optimizer.pop(_GROUPS_ENTRY, None)
    return Opened(
        int(event.step), model, optimizer, None if groups is None else _groups(groups),
        "scheduler" in event.components, "scaler" in event.components,
    )  # fmt: skip


def _mapped(path: Path, file: StateFile) -> mmap.mmap | bytes:
    size = int(file.bytes)
    if size > MAX_STATE_BYTES:
        raise LimitExceeded(f"{path}: {size} bytes, more than the limit of {MAX_STATE_BYTES}")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: this file of a committed checkpoint cannot be opened: {error}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise Refused(f"{path}: not a file of the committed {size} bytes")
        data: mmap.mmap | bytes = mmap.mmap(handle, 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be read: {error.strerror or error}") from None
    finally:
        os.close(handle)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise Refused(f"{path}: not the committed file; its SHA-256 is not {file.sha256}")
    return data


def elements(entry: TensorEntry) -> int:
    """How many elements a tensor has."""
    return math.prod(entry.shape)


def readable(entry: TensorEntry) -> bool:
    """Whether the element type can be turned into numbers here."""
    return entry.dtype in _NUMPY or entry.dtype == "BF16"


def unit_roundoff(entry: TensorEntry) -> float:
    """Half the distance from 1 to the next larger number of the element type; 0 for integers."""
    return _ROUNDOFF.get(entry.dtype, 0.0)


def chunks(*entries: TensorEntry) -> Iterator[tuple[Floats, ...]]:
    """The elements of tensors with as many elements each, as float64, `CHUNK` at a time; types must be readable."""
    count = elements(entries[0])
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        yield tuple(_floats(entry, start, stop) for entry in entries)


def _floats(entry: TensorEntry, start: int, stop: int) -> Floats:
    if entry.dtype == "BF16":  # the upper half of a float32
        halves = np.frombuffer(entry.data, "<u2", stop - start, 2 * start).astype(np.uint32)
        return (halves << np.uint32(16)).view(np.float32).astype(np.float64)
    kind = np.dtype(_NUMPY[entry.dtype])
    return np.frombuffer(entry.data, kind, stop - start, start * kind.itemsize).astype(np.float64)


def state_of(opened: Opened, parameter: str, key: str) -> TensorEntry | None:
    """One tensor of the optimizer's state, None where it is absent or no numbers can be read from it."""
    entry = opened.optimizer.get(f"state.{parameter}/{key}")
    return entry if entry is not None and readable(entry) else None


def _groups(entry: TensorEntry) -> tuple[Group, ...]:
    what = "the optimizer's groups"
    document = parse(bytes(entry.data), what=what, limit=MAX_DOCUMENT_BYTES)
    groups = document.get("groups") if isinstance(document, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise Malformed(f"{what}: not a list of groups")
    found = tuple(_group(group, what) for group in groups)
    if sum(len(group.parameters) for group in found) > _MAX_PARAMETERS:
        raise LimitExceeded(f"{what}: more than {_MAX_PARAMETERS} parameters")
    return found


def _group(group: dict[str, Any], what: str) -> Group:
    names = group.get("params")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Malformed(f"{what}: params is not a list of names")
    betas = group.get("betas")
    pair = betas if isinstance(betas, list) and len(betas) == 2 else [None, None]
    rates = [_number(group[key]) for key in ("lr", "initial_lr", "max_lr") if key in group]
    return Group(
        tuple(names), _number(group.get("lr")), max(rates, default=math.nan), _number(group.get("momentum")),
        _number(group.get("dampening")), (_number(pair[0]), _number(pair[1])), _number(group.get("eps")),
        _number(group.get("weight_decay", 0)), frozenset(group), group.get("decoupled_weight_decay") is True,
    )  # fmt: skip


def _number(value: Any) -> float:
    """A number as the recorder writes it: 1, {"real": "0.1"}, {"tensor": ..., "value": ...}; NaN for anything else."""
    if isinstance(value, dict) and "tensor" in value:
        value = value.get("value")
    if isinstance(value, dict):
        text = value.get("real")
        if not isinstance(text, str) or len(text) > _MAX_NUMBER:
            return math.nan
        value = text
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
