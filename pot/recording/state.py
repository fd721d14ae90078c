"""The seam between the recorder and what is trained, and the files of a checkpoint.

A `StateSource` is anything with a state to commit to: PyTorch's model and optimizer (`pot.recording.torch_state`), or
an integer trainer's arrays. The recorder hashes what `capture` gives, adds RNG and cursor itself, and never looks
inside. A component is a list of tensors (written as `NAME.safetensors`) or a JSON value (written as `NAME.json`).

Does not define: which components exist (`pot.commitments.state.COMPONENTS`).
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import JsonValue

from pot.canonical import MAX_DOCUMENT_BYTES, canonical_bytes, parse_canonical, read_file, sha256_hex
from pot.commitments.state import (
    DTYPE_BITS,
    FILELESS,
    TensorEntry,
    entries_from_safetensors,
    json_digest,
    tensors_digest,
)
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, Refused
from pot.recording.journal import sync_folder
from pot.recording.transcript import CheckpointEvent, Points, StateFile

__all__ = [
    "MAX_STATE_BYTES", "STATE_FILE", "Component", "PointSource", "SnapshotSource", "StateSource", "capture_rng",
    "check_files", "checkpoint_files", "checkpoint_name", "copy_checkpoint", "digests", "read_components",
    "read_state_document", "read_state_file", "restore_rng", "write_checkpoint", "write_components",
]  # fmt: skip

MAX_STATE_BYTES: Final = 64 << 30  # one file of a checkpoint
STATE_FILE: Final = "state.json"
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


def checkpoint_name(step: int) -> str:
    """The folder of a checkpoint below the run directory."""
    return f"checkpoints/step-{step:06d}"


def digests(components: Mapping[str, Component], *, threads: int = 1) -> dict[str, str]:
    """The digest of each component, hex. `threads`: that may hash one large tensor at the same time; 0: every core."""
    return {name: _digest(name, value, threads) for name, value in sorted(components.items())}


def _digest(name: str, value: Component, threads: int) -> str:
    tensors = _tensors(value)
    return json_digest(name, value) if tensors is None else tensors_digest(name, tensors, threads=threads)


def _tensors(value: Component) -> list[TensorEntry] | None:
    if isinstance(value, list) and all(isinstance(item, TensorEntry) for item in value):
        return [item for item in value if isinstance(item, TensorEntry)]
    return None


def write_components(folder: Path, components: Mapping[str, Component]) -> None:
    """Write tensors as `NAME.safetensors` and JSON values as `NAME.json`. Raises `EnvironmentFailure`."""
    _write_all(folder, components, durable=False)


def _write_all(folder: Path, components: Mapping[str, Component], *, durable: bool) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file by name, made from what was written, not read back."""
    written = {}
    for name, value in components.items():
        tensors = _tensors(value)
        if tensors is None:
            written[f"{name}.json"] = _write(folder / f"{name}.json", [canonical_bytes(value)], durable)
        else:
            written[f"{name}.safetensors"] = _write(folder / f"{name}.safetensors", _safetensors(tensors), durable)
    return written


def _safetensors(tensors: list[TensorEntry]) -> list[bytes | bytearray | memoryview]:
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


def read_components(folder: Path, names: Sequence[str]) -> dict[str, Component]:
    """Read components that `write_components` wrote. Raises `UsageError` (absent), `Malformed`, `LimitExceeded`."""
    found: dict[str, Component] = {}
    for name in names:
        path = folder / f"{name}.safetensors"
        if path.exists():
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
    final = run_dir / checkpoint_name(step)
    temporary = final.with_name(f".{final.name}.tmp")
    own = {name: value for name, value in components.items() if name not in FILELESS}
    state: Any = {name: components[name] for name in ("rng", "cursor")}
    try:
        for leftover in (temporary, final):  # of an attempt that was killed before its event was written
            if leftover.exists():
                shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        document: Component = {"version": "pot/checkpoint/v1", "step": str(step), **state}
        written = _write_all(temporary, {**own, "state": document}, durable=True)
        sync_folder(temporary)
        temporary.rename(final)
        sync_folder(final.parent)
        sync_folder(run_dir)
    except (OSError, EnvironmentFailure) as error:
        shutil.rmtree(temporary, ignore_errors=True)  # on a full disk it would stand in the way of the transcript
        reason = (error.strerror or error) if isinstance(error, OSError) else error.__cause__ or error
        raise EnvironmentFailure(f"{final}: cannot be written: {reason}; free space and resume") from None
    return tuple(
        StateFile(path=f"{checkpoint_name(step)}/{name}", bytes=str(size), sha256=sha256)
        for name, (size, sha256) in sorted(written.items())
    )


def check_files(run_dir: Path, files: Sequence[StateFile]) -> None:
    """Check that a checkpoint's files are those of its event. Raises `Refused` naming the first that is not."""
    for file in files:
        path = run_dir / file.path
        if not path.is_file() or path.is_symlink():
            raise Refused(f"{path}: this file of a committed checkpoint is missing")
        content = read_state_file(path)
        if len(content) != int(file.bytes) or sha256_hex(content) != file.sha256:
            raise Refused(f"{path}: not the committed file; its SHA-256 is not {file.sha256}")


def checkpoint_files(step: int, components: Collection[str]) -> list[frozenset[str]]:
    """For each file that a checkpoint of these components has, sorted: the paths that it may have, tensors or JSON."""
    folder = checkpoint_name(step)
    own = sorted(set(components) - FILELESS)
    names = [frozenset({f"{folder}/{name}.json", f"{folder}/{name}.safetensors"}) for name in own]
    return sorted([*names, frozenset({f"{folder}/{STATE_FILE}"})], key=min)


def read_state_document(path: Path) -> dict[str, JsonValue]:
    """`state.json` of a checkpoint: version, step, generators and cursor. Raises `Malformed`, `UsageError` (absent)."""
    document = parse_canonical(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))
    if not isinstance(document, dict) or set(document) != {"version", "step", "rng", "cursor"}:
        raise Malformed(f"{path}: must hold version, step, rng and cursor")
    return document


def copy_checkpoint(run_dir: Path, event: CheckpointEvent, target: Path, *, only_generators: bool = False) -> None:
    """Write a checkpoint anew from what its event's digests cover: names, tensors and values, and no byte beside them.

    `only_generators`: nothing but `state.json`. Raises `Refused` where files and digests disagree, `Malformed`,
    `UsageError` for a file that is absent, `EnvironmentFailure`.
    """
    folder = run_dir / checkpoint_name(int(event.step))
    document = read_state_document(folder / STATE_FILE)
    found: dict[str, Component] = {}
    if not only_generators:
        found = read_components(folder, sorted(set(event.components) - FILELESS))
    own = {"rng": document["rng"], "cursor": document["cursor"]}
    for name, digest in digests({**found, **own}).items():
        if event.components.get(name) != digest:
            raise Refused(f"{folder}: {name} has the digest {digest}, committed is {event.components.get(name)}")
    write_components(target, found)
    write_components(target, {"state": {"version": "pot/checkpoint/v1", "step": event.step, **own}})


def capture_rng() -> dict[str, JsonValue]:
    """The states of Python's, NumPy's and PyTorch's global generators, as far as these modules are loaded."""
    version, words, gauss = random.getstate()
    state: dict[str, JsonValue] = {
        "python": [str(version), _words(words), "none" if gauss is None else float(gauss).hex()]
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, keys, position, has_gauss, cached = numpy.random.get_state()
        state["numpy"] = [kind, _words(keys), str(position), str(has_gauss), float(cached).hex()]
    torch = sys.modules.get("torch")
    if torch is not None:
        state["torch"] = bytes(torch.get_rng_state().numpy()).hex()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = [bytes(item.numpy()).hex() for item in torch.cuda.get_rng_state_all()]
    return state


def restore_rng(state: Any, *, what: str) -> None:
    """Set the generators to a state that `capture_rng` gave. Raises `Malformed`."""
    try:
        version, words, gauss = state["python"]
        random.setstate((int(version), _unwords(words), None if gauss == "none" else float.fromhex(gauss)))
        if "numpy" in state:
            import numpy

            kind, keys, position, has_gauss, cached = state["numpy"]
            array = numpy.array(_unwords(keys), dtype=numpy.uint32)
            numpy.random.set_state((kind, array, int(position), int(has_gauss), float.fromhex(cached)))
        if "torch" in state:
            import torch

            torch.set_rng_state(_byte_tensor(torch, state["torch"]))
            if "cuda" in state:
                torch.cuda.set_rng_state_all([_byte_tensor(torch, item) for item in state["cuda"]])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise Malformed(f"{what}: not the state of the random generators: {error}") from None


def _byte_tensor(torch: Any, text: str) -> Any:
    return torch.frombuffer(bytearray(bytes.fromhex(text)), dtype=torch.uint8).clone()


def _words(words: Any) -> str:
    return b"".join(int(word).to_bytes(4, "little") for word in words).hex()


def _unwords(text: str) -> tuple[int, ...]:
    data = bytes.fromhex(text)
    return tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))


def _write(path: Path, parts: Sequence[bytes | bytearray | memoryview], durable: bool) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("wb", buffering=0) as stream:
            for part in parts:
                view = memoryview(part).cast("B") if len(part) else memoryview(b"")
                digest.update(view)
                size += view.nbytes
                while view:
                    view = view[stream.write(view) :]
            if durable:
                os.fsync(stream.fileno())
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be written: {error.strerror or error}") from error
    return size, digest.hexdigest()
