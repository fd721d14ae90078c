"""The work folder of a commitment in the making: finished shards, so that an interrupted commitment goes on from there.

For each shard it holds the listing in two files and, written last, an entry that says from which file (name, size, time
of change, inode) and with which settings it came. An entry counts only if all of that is still so; a changed file is
read again. One commitment at a time works in a folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from pot.canonical import MAX_DOCUMENT_BYTES, read_file, sha256_hex, write_file
from pot.data.digest import Job, ShardResult, Sink
from pot.errors import EnvironmentFailure, PotError, Refused, UsageError

__all__ = ["WorkFolder", "clear", "take_listing"]

_FORMAT: Final = "pot/work/v1"  # another number where listings are written in another way
_LOCK: Final = "lock"
_LISTING: Final = "listing"
_OURS: Final = re.compile(rf"[0-9a-f]{{32}}\.(json|numbers|list)|{_LISTING}|{_LOCK}|\.[0-9a-f]{{32}}\.json\.\w{{8}}")
"""With what `write_file` leaves where it is killed."""
_COPY_BYTES: Final = 1 << 22


class WorkFolder:
    """A context that holds the folder's lock."""

    def __init__(self, folder: Path, jobs: Sequence[Job]) -> None:
        """`jobs`: the shards in order; each gets its files in `folder`, which is made where it is missing."""
        self.folder = folder
        self.jobs = [replace(job, folder=folder) for job in jobs]
        self._results: dict[str, ShardResult] = {}
        self._origins: dict[str, list[Any]] = {}
        self._lock: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / _LOCK).exists() and any(self.folder.iterdir()):
                raise UsageError(f"{self.folder}: holds other files; it is needed as a work folder, so move them away")
            self._lock = open(self.folder / _LOCK, "wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{self.folder}: another commitment is being made there; wait for it") from None
        except OSError as error:
            raise EnvironmentFailure(f"{self.folder}: cannot be used: {error.strerror or error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        if kind is not None and not any(int(result.shard.records) for result in self._results.values()):
            clear(self.folder)  # nothing that would save anybody time
        self._lock.close()

    def open_jobs(self, *, in_memory: bool) -> list[Job]:
        """The jobs that are not done. `in_memory`: their listings come back as bytes, to be kept by `keep`."""
        missing = []
        for job in self.jobs:
            self._origins[job.name] = _origin(job)  # before it is read: a file that changes later counts as another
            result = self._kept(job)
            if result is None:
                missing.append(replace(job, folder=None) if in_memory else job)
            else:
                self._results[job.name] = result
        return missing

    def keep(self, job: Job, result: ShardResult) -> None:
        """Note that a shard is done. Raises `EnvironmentFailure`."""
        whole = replace(job, folder=self.folder)
        if result.listing is not None:
            try:
                sink = Sink(whole.stem)
                sink.write(*result.listing)
                sink.close()
            except OSError as error:
                raise EnvironmentFailure(f"{self.folder}: cannot be written: {error.strerror or error}") from None
        result = replace(result, listing=None)
        entry = [self._origins[job.name], _sizes(whole), json.loads(result.to_json())]
        write_file(_entry(whole), json.dumps(entry).encode())
        self._results[job.name] = result

    def assemble(self, gram: bool, *, keep: bool) -> tuple[Any, list[ShardResult]]:
        """All listings joined: memory-mapped from the folder with `keep`, else in memory; and the shards' results."""
        import numpy as np

        target = self.folder / _LISTING
        endings = (".numbers", ".list") if gram else (".list",)
        try:
            with open(target, "wb") as out:
                for ending in endings:
                    for job in self.jobs:
                        with open(f"{job.stem}{ending}", "rb") as part:
                            shutil.copyfileobj(part, out, _COPY_BYTES)
                out.flush()
                os.fsync(out.fileno())
            size = target.stat().st_size
            listing = np.fromfile(target, np.uint8) if not (keep and size) else np.memmap(target, np.uint8, "r")
        except OSError as error:
            raise EnvironmentFailure(f"{target}: cannot be written: {error.strerror or error}") from None
        return listing, [self._results[job.name] for job in self.jobs]

    def _kept(self, job: Job) -> ShardResult | None:
        entry = _entry(job)
        if not entry.is_file():
            return None
        try:
            origin, sizes, value = json.loads(read_file(entry, limit=MAX_DOCUMENT_BYTES))
            result = ShardResult.from_json(value)
        except (PotError, ValueError, TypeError, KeyError):  # ours, damaged by a crash: the shard is read again
            return None
        return result if origin == self._origins[job.name] and sizes == _sizes(job) else None


def take_listing(folder: Path, target: Path) -> None:
    """Move the joined listing out of a work folder, on the same disk. Raises `EnvironmentFailure`."""
    try:
        os.replace(folder / _LISTING, target)
    except OSError as error:
        raise EnvironmentFailure(f"{target}: cannot be written: {error.strerror or error}") from None


def clear(folder: Path) -> None:
    """Remove what a work folder kept, and the folder itself if nothing else lies in it."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)
    with suppress(OSError):  # somebody put a file there: theirs to remove
        folder.rmdir()


def _sizes(job: Job) -> list[int]:
    """Lengths of a shard's two files, -1 for one that is not there: a crash or a full disk may have cut them."""
    paths = [Path(f"{job.stem}{ending}") for ending in (".numbers", ".list")]
    return [path.stat().st_size if path.is_file() else -1 for path in paths]


def _entry(job: Job) -> Path:
    return Path(f"{job.stem}.json")


def _origin(job: Job) -> list[Any]:
    """What a result depends on: the file as it lies there, and the settings."""
    state = job.path.stat()
    key = None if job.key is None else job.key.hiding.id
    settings = [_FORMAT, job.name, job.container, job.view, job.role, job.fields, job.on_error, key]
    return [sha256_hex(json.dumps(settings).encode()), state.st_size, state.st_mtime_ns, state.st_ino]
