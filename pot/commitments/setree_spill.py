"""The set tree for more keys than fit in memory: the same root and the same proofs, with the keys in a file.

Keys arrive in chunks, in any order and with repeats. They are dealt to 64 files by their top 6 bits; each file is
sorted and freed of repeats, or dealt again by the next 6 bits where it is too large. Only then is the number of keys
known, and with it the depth; one pass over the sorted keys hashes the buckets.

Spec: `specs/commitments.md`, "Set tree".

Memory: 512 MiB, and 1 to 2 bytes per distinct key for the nodes and the index that stay in memory. At 10^9 keys that
is 1.2 GB for nodes and index, under 2 GB in all. Disk: up to 16 bytes per key while building, 8 per distinct key until
the tree is closed. A group of buckets that somebody fattened by grinding prefixes is held in memory as a whole.

Shows / does not show: see `pot.commitments.setree_verify`, which holds the checks.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from pot.commitments.setree import KEPT_FROM, BucketTree, group_tops
from pot.commitments.setree_arrays import Keys, check_keys, dealt, distinct, top_bits
from pot.commitments.setree_verify import KEY_BYTES, MAX_COUNT, depth_for
from pot.errors import EnvironmentFailure, LimitExceeded, UsageError

__all__ = ["SpilledTree", "spilled"]

_FILE_TYPE: Final = np.dtype("<u8")
_DEAL_BITS: Final = 6  # 64 open files: few enough for any system's limit
_DEAL_KEYS: Final = 1 << 22  # keys dealt at a time (32 MiB), so that each file gets a long piece
_SORT_KEYS: Final = 1 << 24  # keys sorted at a time (128 MiB, twice that without repeats)
_PASS_KEYS: Final = 1 << 19  # keys hashed at a time: 4 MiB, within the processor's cache
_MAX_READ: Final = 1 << 30  # bytes; Linux reads no more than 2 GiB at once


@contextmanager
def spilled(chunks: Iterable[Keys], folder: Path) -> Iterator[SpilledTree]:
    """The tree over all keys of `chunks` (rows of uint64, any order, repeats allowed), for the time of the context.

    Files lie in a folder of their own below `folder` and are removed on any way out. Raises `UsageError` for no keys or
    chunks of another type, `LimitExceeded`, `EnvironmentFailure` (disk full, I/O).
    """
    with ExitStack() as stack:
        try:
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pot-set-", dir=folder)))
            count = _sort_to_file(chunks, own, own / "sorted")
            tree = stack.enter_context(SpilledTree(own / "sorted", count))
        except OSError as error:
            raise EnvironmentFailure(
                f"{folder}: the set tree's temporary files cannot be used: {error.strerror or error}; "
                "free some space or name another folder"
            ) from None
        yield tree


class SpilledTree(BucketTree):
    """A set tree whose ascending keys lie in a file of 8 bytes per key, little endian. A context that holds it open."""

    def __init__(self, path: Path, count: int) -> None:
        """Hash the buckets of the `count` distinct, ascending keys in `path`. Raises `OSError`."""
        depth = depth_for(count)
        groups = 1 << (depth - min(KEPT_FROM, depth))
        self._stream: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 - held until close
        try:
            # where each group's keys begin in the file, and where the last one's end
            self._starts = np.zeros(groups + 1, np.int64)
            tops = np.empty((groups, 32), np.uint8)
            self._hash_groups(depth, count, tops)
            np.cumsum(self._starts, out=self._starts)
            super().__init__(count, tops)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def _hash_groups(self, depth: int, count: int, tops: NDArray[np.uint8]) -> None:
        """Fill `tops`, and in `_starts[1:]` the number of keys of each group."""
        groups, bits = len(tops), depth - min(KEPT_FROM, depth)
        held, done, position = np.empty(0, np.uint64), 0, 0
        while done < groups:
            size = min(_PASS_KEYS, count - position)
            held = np.concatenate([held, self._read(position, size)])
            position += size
            of_group = top_bits(held, bits).astype(np.int64)
            end = groups if position == count else int(of_group[-1])  # the last group may go on in the next block
            ready = int(np.searchsorted(of_group, end))
            if end > done:
                self._starts[done + 1 : end + 1] = np.bincount(of_group[:ready] - done, minlength=end - done)
                tops[done:end] = group_tops(held[:ready], depth, done, end - done)
            held, done = held[ready:], end

    def _gather(self, groups: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64]]:
        starts, stops = self._starts[groups], self._starts[groups + 1]
        runs = np.flatnonzero(np.concatenate([[True], starts[1:] != stops[:-1]]))  # groups that follow each other
        lasts = np.concatenate([runs[1:], [len(groups)]]) - 1
        out = np.empty(int((stops - starts).sum()), _FILE_TYPE)
        view, at = out.view(np.uint8).data, 0
        try:
            handle = self._stream.fileno()
            for start, size in zip((starts[runs]).tolist(), (stops[lasts] - starts[runs]).tolist(), strict=True):
                wanted = KEY_BYTES * size
                if wanted > _MAX_READ or os.preadv(handle, [view[at : at + wanted]], KEY_BYTES * start) != wanted:
                    out[at // KEY_BYTES : at // KEY_BYTES + size] = self._read(start, size)
                at += wanted
        except (OSError, ValueError) as error:  # ValueError: the context is closed
            reason = getattr(error, "strerror", None) or str(error)
            raise EnvironmentFailure(f"the set tree's sorted keys cannot be read: {reason}") from None
        return out.astype(np.uint64, copy=False), stops - starts

    def _read(self, position: int, size: int) -> Keys:
        """`size` keys from `position` on, however many reads that takes."""
        out = np.empty(size, _FILE_TYPE)
        view, at = out.view(np.uint8).data, 0
        while at < len(view):
            got = os.preadv(self._stream.fileno(), [view[at : at + _MAX_READ]], KEY_BYTES * position + at)
            if not got:
                raise EnvironmentFailure("the set tree's sorted keys cannot be read: their file was cut short")
            at += got
        return out.astype(np.uint64, copy=False)


def _sort_to_file(chunks: Iterable[Keys], folder: Path, target: Path) -> int:
    """Write the distinct keys of `chunks`, ascending, to `target`; returns how many there are."""
    with open(target, "wb", buffering=0) as out:
        count = _deal_and_sort(chunks, folder, _DEAL_BITS, out)
    if not count:
        raise UsageError("set tree: there is no record to commit to")
    if count > MAX_COUNT:
        raise LimitExceeded(f"set tree: more than {MAX_COUNT} records")
    return count


def _deal_and_sort(chunks: Iterable[Keys], folder: Path, bits: int, out: BinaryIO) -> int:
    """Deal keys to files by their top `bits` bits, of which all but the last few are the same for all."""
    paths = [folder / f"{bits}-{number}" for number in range(1 << _DEAL_BITS)]
    streams = [open(path, "wb", buffering=0) for path in paths]  # noqa: SIM115 - closed below
    try:
        for block in _blocks(chunks):
            ordered, ends = dealt(block, bits, _DEAL_BITS)
            for stream, start, stop in zip(streams, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
                if start < stop:
                    _write(stream, ordered[start:stop])
    finally:
        for stream in streams:
            stream.close()
    total = 0
    for path in paths:
        total += _sort_one(path, folder, bits, out)
        path.unlink()
    return total


def _sort_one(path: Path, folder: Path, bits: int, out: BinaryIO) -> int:
    size = path.stat().st_size // KEY_BYTES
    if size > _SORT_KEYS and bits < 64:
        return _deal_and_sort(_chunks_of(path), folder, min(bits + _DEAL_BITS, 64), out)
    keys = np.fromfile(path, _FILE_TYPE, count=1 if bits == 64 else -1)  # after 64 bits, all are one key
    keys = distinct(keys.astype(np.uint64, copy=False))
    _write(out, keys)
    return len(keys)


def _chunks_of(path: Path) -> Iterator[Keys]:
    with open(path, "rb") as stream:
        while len(keys := np.fromfile(stream, _FILE_TYPE, count=_DEAL_KEYS)):
            yield keys.astype(np.uint64, copy=False)


def _blocks(chunks: Iterable[Keys]) -> Iterator[Keys]:
    """The keys in blocks of at most `_DEAL_KEYS`."""
    held: list[Keys] = []
    size = 0
    for chunk in chunks:
        check_keys(chunk, "set tree")
        for start in range(0, len(chunk), _DEAL_KEYS):
            piece = chunk[start : start + _DEAL_KEYS]
            if size + len(piece) > _DEAL_KEYS:
                yield np.concatenate(held) if len(held) > 1 else held[0]
                held, size = [], 0
            held.append(piece)
            size += len(piece)
    if held:
        yield np.concatenate(held) if len(held) > 1 else held[0]


def _write(stream: BinaryIO, keys: Keys) -> None:
    view = keys.astype(_FILE_TYPE, copy=False).view(np.uint8).data
    while len(view):
        view = view[stream.write(view) :]
