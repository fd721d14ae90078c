"""The seam between the recorder and what is trained, and the files of a checkpoint.

A `StateSource` is anything with a state to commit to: PyTorch's model and optimizer (`pot.recording.pytorch.state`), or
an integer trainer's arrays. The recorder hashes what `capture` gives, adds RNG and cursor itself, and never looks
inside. A component is a list of tensors (written as `NAME.safetensors`) or a JSON value (written as `NAME.json`).

Does not define: which components exist (`pot.commitments.state.COMPONENTS`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import JsonValue

from pot.canonical import MAX_DOCUMENT_BYTES, canonical_bytes, parse_canonical, read_file
from pot.commitments.sharded import ROWED, join_entries, shard_entries, sharded_digest
from pot.commitments.state import (
    DTYPE_BITS,
    FILELESS,
    TensorEntry,
    entries_from_safetensors,
    json_digest,
    tensors_digest,
)
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, Refused
from pot.recording.generators import capture_rng, restore_rng
from pot.recording.program import file_sha256
from pot.recording.transcript import Points, StateFile
from pot.recording.writing.file_names import STATE_FILE, checkpoint_files, checkpoint_name, shard_name
from pot.recording.writing.journal import sync_folder

__all__ = [
    "MAX_STATE_BYTES", "STATE_FILE", "Component", "PointSource", "SnapshotSource", "StateSource", "capture_rng",
    "check_files", "check_size", "checkpoint_files", "checkpoint_name", "digests", "dropped", "moved_in",
    "new_folder", "read_components", "read_state_document", "read_state_file", "restore_rng", "safetensors_parts",
    "unfinished",
    "write_checkpoint", "write_components", "write_files",
]  # fmt: skip

MAX_STATE_BYTES: Final = 64 << 30  # one file of a checkpoint
_MUCH: Final = 1 << 20  # bytes of a component from which on a thread for it costs less than it saves
_MOST: Final = 0.75  # of all bytes in one component: above, one core would wait too long for the other
Component = list[TensorEntry] | JsonValue


class StateSource(Protocol):
    """What is trained, as the recorder sees it. A source may also be a `SnapshotSource` and a `PointSource`."""

    def capture(self) -> Mapping[str, Component]:
        """The components now: tensors sorted by name, without copying where possible. At least "model"."""

    def load(self, folder: Path) -> None:
        """Put the state of a folder that the recorder wrote back: `NAME.safetensors` for tensors, `NAME.json` for JSON.

        Hyper-parameters in it are compared, never taken over.
        """


class SnapshotSource(Protocol):
    """A source that can copy its state aside, so that it is hashed and written while training goes on."""

    def snapshot(self) -> Mapping[str, Component]:
        """What `capture` gives, in memory that training does not touch until the next call."""

    @property
    def in_place(self) -> bool:
        """Whether `capture` gives the tensors' own memory: hashing it at once costs less than copying it first."""


class PointSource(Protocol):
    """A source whose step events carry KZG points; asked for once per segment, before its events are written."""

    def points_for_segment(self, steps: list[int]) -> Sequence[Points] | None:
        """One `Points` per step number, in order; None where this machine cannot compute them (only in a replay)."""


def digests(components: Mapping[str, Component], *, threads: int = 1, processes: int = 1) -> dict[str, str]:
    """The digest of each component, hex. `threads`: that may hash at the same time; 0: every core.

    `processes`: among which whole tensors are cut by rows (`pot.commitments.sharded`).
    """
    largest = _own(components) if threads == 0 else None
    if largest is None:
        return {name: _digest(name, value, threads, processes) for name, value in sorted(components.items())}
    with ThreadPoolExecutor(1, "pot-hasher") as other:
        rest = other.submit(
            digests, {name: components[name] for name in components if name != largest}, processes=processes
        )
        found = {largest: _digest(largest, components[largest], 1, processes), **rest.result()}
    return dict(sorted(found.items()))


def _own(components: Mapping[str, Component]) -> str | None:
    """The component that this core should hash while the other of two hashes the rest; None where that is no gain.

    Two cores that share each tensor use a quarter more of their time than two that share none, and the other core is
    still busy for a while with what training's other thread waits for (decision 0008).
    """
    if len(os.sched_getaffinity(0)) != 2:
        return None
    sizes = {name: sum(len(item.data) for item in _tensors(value) or ()) for name, value in components.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    return largest if _MUCH < sizes[largest] <= _MOST * sum(sizes.values()) else None


def _digest(name: str, value: Component, threads: int, processes: int) -> str:
    tensors = _tensors(value)
    if tensors is None:
        return json_digest(name, value)
    if processes > 1 and name in ROWED:
        return sharded_digest(name, tensors, processes, threads=threads)
    return tensors_digest(name, tensors, threads=threads)


def _tensors(value: Component) -> list[TensorEntry] | None:
    if isinstance(value, list) and all(isinstance(item, TensorEntry) for item in value):
        return [item for item in value if isinstance(item, TensorEntry)]
    return None


def write_components(folder: Path, components: Mapping[str, Component], *, processes: int = 1) -> None:
    """Write tensors as `NAME.safetensors` and JSON values as `NAME.json`. Raises `EnvironmentFailure`.

    `processes`: among which whole tensors are cut by rows, with a file for what each holds.
    """
    for rank in range(processes):
        cut = {name: value for name, value in components.items() if name in ROWED} if processes > 1 else {}
        for name, value in cut.items():
            write_files(folder, {name: shard_entries(_tensors(value) or [], rank, processes)}, rank, processes)
        if rank == 0:
            write_files(folder, {name: value for name, value in components.items() if name not in cut})


def write_files(
    folder: Path, components: Mapping[str, Component], rank: int = 0, processes: int = 1, *, durable: bool = False
) -> dict[str, tuple[int, str]]:
    """Write what one process holds; size and SHA-256 of each file by name, made from what was written, not read back.

    `durable`: a power cut loses none of it. What is not is for one replay only, and has no SHA-256 ("").

    Raises `EnvironmentFailure`.
    """
    written = {}
    for name, value in components.items():
        tensors = _tensors(value)
        if tensors is not None and processes > 1 and name in ROWED:
            own = shard_name(name, rank, processes)
            written[own] = _write(folder / own, safetensors_parts(tensors), durable)
        elif tensors is None:
            written[f"{name}.json"] = _write(folder / f"{name}.json", [canonical_bytes(value)], durable)
        else:
            written[f"{name}.safetensors"] = _write(folder / f"{name}.safetensors", safetensors_parts(tensors), durable)
    return written


def safetensors_parts(tensors: Sequence[TensorEntry]) -> list[bytes | bytearray | memoryview]:
    """The parts of a safetensors file, widest elements first, so that each tensor is aligned; nothing is copied."""
    ordered = sorted(tensors, key=lambda item: (-DTYPE_BITS[item.dtype], item.name))
    header: dict[str, JsonValue] = {}
    at = 0
    for item in ordered:
        size = memoryview(item.data).nbytes
        header[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [at, at + size]}
        at += size
    text = canonical_bytes(header)
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *(item.data for item in ordered)]


def read_components(folder: Path, names: Sequence[str], *, processes: int = 1) -> dict[str, Component]:
    """Read components that `write_components` wrote. Raises `UsageError` (absent), `Malformed`, `LimitExceeded`.

    `processes`: among which tensors are cut by rows; they are put together again.
    """
    found: dict[str, Component] = {}
    for name in names:
        path = folder / f"{name}.safetensors"
        if processes > 1 and name in ROWED:
            paths = [folder / shard_name(name, rank, processes) for rank in range(processes)]
            found[name] = join_entries(
                [entries_from_safetensors(read_state_file(path), what=str(path)) for path in paths]
            )
        elif path.exists():
            found[name] = entries_from_safetensors(read_state_file(path), what=str(path))
        else:
            path = folder / f"{name}.json"
            found[name] = parse_canonical(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))
    return found


def read_state_file(path: Path) -> bytes:
    """The bytes of one file of a checkpoint. Raises as `read_file` does, `LimitExceeded` above `MAX_STATE_BYTES`."""
    size = path.stat().st_size if path.is_file() else 0
    if size > MAX_STATE_BYTES:
        raise LimitExceeded(f"{path}: {size} bytes, more than the limit of {MAX_STATE_BYTES}")
    return read_file(path, limit=size)  # the cap is far above memory, so the size is the buffer


def write_checkpoint(run_dir: Path, step: int, components: Mapping[str, Component]) -> tuple[StateFile, ...]:
    """Write a checkpoint beside its final place, make it durable, then move it there. Raises `EnvironmentFailure`.

    `components`: all of them but those without files, and with `rng` and `cursor`, which go into `state.json`.
    """
    temporary = new_folder(run_dir, step)
    with _made_whole(run_dir, step):
        written = write_files(temporary, _filed(step, components), durable=True)
    return moved_in(run_dir, step, written)


def _filed(step: int, components: Mapping[str, Component]) -> dict[str, Component]:
    state: Any = {name: components[name] for name in ("rng", "cursor")}
    own = {name: value for name, value in components.items() if name not in FILELESS}
    return {**own, "state": {"version": "pot/checkpoint/v1", "step": str(step), **state}}


def new_folder(run_dir: Path, step: int) -> Path:
    """An empty folder beside the checkpoint's final place, which is cleared. Raises `EnvironmentFailure`."""
    final = run_dir / checkpoint_name(step)
    temporary = unfinished(run_dir, step)
    with _made_whole(run_dir, step):
        for leftover in (temporary, final):  # of an attempt that was killed before its event was written
            if leftover.exists():
                shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
    return temporary


def dropped(run_dir: Path, step: int) -> None:
    """Remove what was written of a checkpoint that cannot be finished: on a full disk it would stand in the way."""
    shutil.rmtree(unfinished(run_dir, step), ignore_errors=True)


def moved_in(run_dir: Path, step: int, written: Mapping[str, tuple[int, str]]) -> tuple[StateFile, ...]:
    """Make the names durable, move the folder to its final place, and list its files. Raises `EnvironmentFailure`."""
    final = run_dir / checkpoint_name(step)
    temporary = unfinished(run_dir, step)
    with _made_whole(run_dir, step):
        sync_folder(temporary)
        temporary.rename(final)
        sync_folder(final.parent)
        sync_folder(run_dir)
    return tuple(
        StateFile(path=f"{checkpoint_name(step)}/{name}", bytes=str(size), sha256=sha256)
        for name, (size, sha256) in sorted(written.items())
    )


def unfinished(run_dir: Path, step: int) -> Path:
    """Where a checkpoint is written before it is moved to its final place."""
    final = run_dir / checkpoint_name(step)
    return final.with_name(f".{final.name}.tmp")


@contextmanager
def _made_whole(run_dir: Path, step: int) -> Iterator[None]:
    """Nothing of a checkpoint that could not be written stays. Raises `EnvironmentFailure`."""
    final = run_dir / checkpoint_name(step)
    try:
        yield
    except (OSError, EnvironmentFailure) as error:
        dropped(run_dir, step)
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or cause or error
        raise EnvironmentFailure(f"{final}: cannot be written: {reason}; free space and resume") from None


def check_files(run_dir: Path, files: Sequence[StateFile]) -> None:
    """Check that a checkpoint's files are those of its event. Raises `Refused` naming the first that is not."""
    for file in files:
        path = run_dir / file.path
        if not path.is_file() or path.is_symlink():
            raise Refused(f"{path}: this file of a committed checkpoint is missing")
        check_size(path, file)
        if file_sha256(path) != file.sha256:
            raise Refused(f"{path}: not the committed file; its SHA-256 is not {file.sha256}")


def check_size(path: Path, file: StateFile) -> None:
    """Check a file's size before anything is read: one of any size costs its sender nothing. Raises `Refused`."""
    size = path.stat().st_size if path.is_file() else int(file.bytes)
    if size != int(file.bytes):
        raise Refused(f"{path}: not the committed file; it has {size} bytes, committed are {file.bytes}")


def read_state_document(path: Path) -> dict[str, JsonValue]:
    """`state.json` of a checkpoint: version, step, generators and cursor. Raises `Malformed`, `UsageError` (absent)."""
    document = parse_canonical(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))
    if not isinstance(document, dict) or set(document) != {"version", "step", "rng", "cursor"}:
        raise Malformed(f"{path}: must hold version, step, rng and cursor")
    return document


def _write(path: Path, parts: Sequence[bytes | bytearray | memoryview], durable: bool) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("wb", buffering=0) as stream:
            for part in parts:
                view = memoryview(part).cast("B") if len(part) else memoryview(b"")
                if durable:
                    digest.update(view)
                size += view.nbytes
                while view:
                    view = view[stream.write(view) :]
            if durable:
                os.fsync(stream.fileno())
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be written: {error.strerror or error}") from error
    return size, digest.hexdigest() if durable else ""
