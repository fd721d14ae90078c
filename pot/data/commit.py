"""Committing to data: from files through a view to a dataset commitment and its digest list.

Spec: `specs/commitments.md`, "Dataset commitment". On disk a commitment `C.json` has its digest list `C.digests`
beside it: 32 bytes per record, in order. The list stays with the data's owner; an exclusion set's list is published.

Shows / does not show: see `pot.commitments.dataset`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from pot.canonical import MAX_DOCUMENT_BYTES, read_file, write_file
from pot.commitments.dataset import DatasetCommitment, Role, Shard, check_digests, commit_digests
from pot.commitments.hashing import DIGEST_BYTES, record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.data.readers import ShardReader, shard_files
from pot.data.views import view_named
from pot.errors import EnvironmentFailure, Malformed, UsageError

__all__ = ["MAX_WORKERS", "Committed", "Progress", "commit", "digests_path", "load_committed", "write_committed"]

MAX_WORKERS: Final = 256

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all files)."""

_REPORT_EVERY: Final = 1 << 20  # bytes between two calls inside one shard


@dataclass(frozen=True, slots=True)
class Committed:
    """A commitment with the digests it was made from: 32 bytes per record, in order."""

    commitment: DatasetCommitment
    digests: bytes


@dataclass(frozen=True, slots=True)
class _ShardResult:
    shard: Shard
    digests: bytes
    view_bytes: int


def commit(
    paths: Sequence[Path], view: str, role: Role = "training", workers: int = 1, progress: Progress | None = None
) -> Committed:
    """Commit to the records of `paths` (files or folders, in this order) through `view`.

    The result does not depend on `workers` (processes, one shard each at a time). Raises `UsageError`, `Malformed`,
    `LimitExceeded`, `EnvironmentFailure`.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise UsageError(f"{workers} workers were asked for, 1 to {MAX_WORKERS} are possible")
    container = view_named(view).container
    shards = shard_files(list(paths), container)
    meter = _Meter(progress, shards)
    results: list[_ShardResult] = []
    with _mapped(shards, view, min(workers, len(shards)), meter) as stream:
        for result in stream:
            results.append(result)
            meter.finish(int(result.shard.bytes))
    digests = b"".join(result.digests for result in results)
    if not digests:
        raise UsageError(f"{paths[0]}: holds no record; an empty commitment would say nothing")
    view_bytes = sum(result.view_bytes for result in results)
    return Committed(commit_digests(role, view, digests, view_bytes, [result.shard for result in results]), digests)


def digests_path(path: Path) -> Path:
    """Where the digest list of the commitment at `path` lies: `C.digests` beside `C.json`."""
    return path.with_name(path.name.removesuffix(".json") + ".digests")


def write_committed(committed: Committed, out: Path) -> None:
    """Write `out` and its digest list, the list first. Raises `EnvironmentFailure`."""
    write_file(digests_path(out), committed.digests)
    write_file(out, committed.commitment.to_bytes())


def load_committed(path: Path) -> Committed:
    """Read a commitment and its digest list, and recompute both roots from the list.

    Raises `UsageError`, `Malformed` (also where list and commitment disagree), `EnvironmentFailure`.
    """
    commitment = DatasetCommitment.from_bytes(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))
    size = DIGEST_BYTES * int(commitment.records.count)
    digests = read_file(digests_path(path), limit=size)
    try:
        check_digests(commitment, digests, limit=size)
    except ProofRefused as error:
        raise Malformed(f"{digests_path(path)}: is not the digest list of {path.name}: {error}") from None
    return Committed(commitment, digests)


class _Meter:
    """Turns bytes read into calls of a progress function; finished shards and the one being read count together."""

    def __init__(self, progress: Progress | None, shards: Sequence[tuple[str, Path]]) -> None:
        self._progress = progress
        self._total = sum(path.stat().st_size for _, path in shards) if progress is not None else 0
        self._finished = self._shown = 0

    def finish(self, size: int) -> None:
        self._finished += size
        self._show(self._finished)

    def inside(self, size: int) -> None:
        if self._finished + size - self._shown >= _REPORT_EVERY:
            self._show(self._finished + size)

    def _show(self, done: int) -> None:
        self._shown = done
        if self._progress is not None:
            self._progress(min(done, self._total), self._total)


def _read_shard(name: str, path: Path, view: str, meter: _Meter | None = None) -> _ShardResult:
    chosen = view_named(view)
    reader = ShardReader(path, chosen.container)
    digests, view_bytes = bytearray(), 0
    for record in reader.records():
        data = chosen.project(record)
        digests += record_digest(data)
        view_bytes += len(data)
        if meter is not None:
            meter.inside(reader.bytes_read)
    shard = Shard(
        name=name,
        bytes=str(reader.bytes_read),
        records=str(len(digests) // DIGEST_BYTES),
        sha256=reader.sha256,
        blake3=reader.blake3,
    )
    return _ShardResult(shard, bytes(digests), view_bytes)


@contextmanager
def _mapped(shards: list[tuple[str, Path]], view: str, workers: int, meter: _Meter) -> Iterator[Iterator[_ShardResult]]:
    """Results in shard order, from this process or from a pool; an error in one shard stops the rest."""
    if workers == 1:
        yield (_read_shard(name, path, view, meter) for name, path in shards)
        return
    # spawn: a fork would copy the caller's threads and locks
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool.map(_read_shard, *zip(*((name, path, view) for name, path in shards), strict=True))
    except BrokenProcessPool:
        raise EnvironmentFailure("a worker process died, perhaps for lack of memory; try fewer workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
