"""The seam between the recorder and what is trained, and the files of a checkpoint.

A `StateSource` is anything with a state to commit to: PyTorch's model and optimizer (`pot.recording.torch_state`), or
an integer trainer's arrays. The recorder hashes what `capture` gives, adds RNG and cursor itself, and never looks
inside. A component is a list of tensors (written as `NAME.safetensors`) or a JSON value (written as `NAME.json`).

Does not define: which components exist (`pot.commitments.state.COMPONENTS`).
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import JsonValue

from pot.canonical import MAX_DOCUMENT_BYTES, canonical_bytes, parse_canonical, read_file, sha256_hex
from pot.commitments.state import DTYPE_BITS, TensorEntry, entries_from_safetensors, json_digest, tensors_digest
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, Refused, UsageError
from pot.recording.journal import sync_folder
from pot.recording.transcript import CheckpointEvent, Points, StateFile

__all__ = [
    "MAX_STATE_BYTES", "STATE_FILE", "Component", "StateSource", "capture_rng", "check_files", "checkpoint_files",
    "checkpoint_name", "copy_checkpoint", "digests", "read_components", "read_state_document", "read_state_file",
    "restore_rng", "write_checkpoint", "write_components",
]  # fmt: skip

MAX_STATE_BYTES: Final = 64 << 30  # one file of a checkpoint
STATE_FILE: Final = "state.json"
Component = list[TensorEntry] | JsonValue


class StateSource(Protocol):
    """What is trained, as the recorder sees it. A source may also have `points_for_segment` (see `PointSource`)."""

    def capture(self) -> Mapping[str, Component]:
        """The components now: tensors sorted by name, without copying where possible. At least "model"."""

    def save(self, folder: Path) -> None:
        """Write the components into an existing empty folder; `write_components(folder, self.capture())` will do."""

    def load(self, folder: Path) -> None:
        """Put the state of a folder that `save` wrote back. Hyper-parameters in it are compared, never taken over."""


class PointSource(Protocol):
    """A source whose step events carry KZG points; asked for once per segment, before its events are written."""

    def points_for_segment(self, steps: list[int]) -> Sequence[Points] | None:
        """One `Points` per step number, in order; None where this machine cannot compute them (only in a replay)."""


def checkpoint_name(step: int) -> str:
    """The folder of a checkpoint below the run directory."""
    return f"checkpoints/step-{step:06d}"


def digests(components: Mapping[str, Component]) -> dict[str, str]:
    """The digest of each component, hex."""
    return {name: _digest(name, value) for name, value in sorted(components.items())}


def _digest(name: str, value: Component) -> str:
    tensors = _tensors(value)
    return json_digest(name, value) if tensors is None else tensors_digest(name, tensors)


def _tensors(value: Component) -> list[TensorEntry] | None:
    if isinstance(value, list) and all(isinstance(item, TensorEntry) for item in value):
        return [item for item in value if isinstance(item, TensorEntry)]
    return None


def write_components(folder: Path, components: Mapping[str, Component]) -> None:
    """Write tensors as `NAME.safetensors` and JSON values as `NAME.json`. Raises `EnvironmentFailure`."""
    for name, value in components.items():
        tensors = _tensors(value)
        if tensors is None:
            _write(folder / f"{name}.json", [canonical_bytes(value)])
        else:
            _write(folder / f"{name}.safetensors", _safetensors(tensors))


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


def write_checkpoint(
    run_dir: Path, step: int, source: StateSource, extra: Mapping[str, JsonValue]
) -> tuple[StateFile, ...]:
    """Write a checkpoint beside its final place, make it durable, then move it there. Raises `EnvironmentFailure`."""
    final = run_dir / checkpoint_name(step)
    temporary = final.with_name(f".{final.name}.tmp")
    try:
        for leftover in (temporary, final):  # of an attempt that was killed before its event was written
            if leftover.exists():
                shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        source.save(temporary)
        _refuse_foreign_files(temporary, source)
        write_components(temporary, {"state": {"version": "pot/checkpoint/v1", "step": str(step), **extra}})
        files = []
        for path in sorted(temporary.iterdir()):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
                content = stream.read()
            files.append(
                StateFile(
                    path=f"{checkpoint_name(step)}/{path.name}", bytes=str(len(content)), sha256=sha256_hex(content)
                )
            )
        sync_folder(temporary)
        temporary.rename(final)
        sync_folder(final.parent)
        sync_folder(run_dir)
    except OSError as error:
        raise EnvironmentFailure(
            f"{final}: cannot be written: {error.strerror or error}; free space and resume"
        ) from None
    return tuple(files)


def _refuse_foreign_files(folder: Path, source: StateSource) -> None:
    """A reader of the transcript refuses files that no component explains; so they are refused here, at step 0."""
    found = sorted(path.name for path in folder.iterdir())
    names = [path.rpartition(".")[0] for path in found]
    if names != sorted(source.capture()) or any(not path.endswith((".json", ".safetensors")) for path in found):
        raise UsageError(
            f"record: the state source's save() wrote {', '.join(found)[:200] or 'nothing'}; it must write one file for"
            " each component of capture(), which write_components(folder, self.capture()) does"
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
    own = sorted(set(components) - {"rng", "cursor"})
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
        found = read_components(folder, sorted(set(event.components) - {"rng", "cursor"}))
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


def _write(path: Path, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    try:
        with path.open("wb") as stream:
            for part in parts:
                stream.write(part)
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be written: {error.strerror or error}") from None
