"""Readers: from containers on disk to records, one at a time, with the digests of the very bytes that were read.

Spec: `specs/commitments.md`, "Containers". Two containers: "jsonl" (one JSON object per line) and "file" (each file is
one record). A folder stands for the files in it, in name order.
"""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from blake3 import blake3

from pot.canonical import parse
from pot.commitments.model import safe_files
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, UsageError

__all__ = [
    "MAX_RECORD_BYTES",
    "MAX_SHARDS",
    "Container",
    "Record",
    "RecordDataset",
    "ShardReader",
    "read_one",
    "read_records",
    "shard_files",
]

Container = Literal["jsonl", "file"]
MAX_RECORD_BYTES: Final = 256 << 20  # one record is held in memory whole
MAX_SHARDS: Final = 50_000  # so that a commitment's document stays below its own cap
JSONL_SUFFIX: Final = ".jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """One record: `where` for messages, its stored bytes, and its JSON object if the container is "jsonl"."""

    where: str
    data: bytes
    value: dict[str, Any] | None


@dataclass
class ShardReader:
    """Reads one shard; after `records` is exhausted, the digests and size are those of the bytes it read."""

    path: Path
    container: Container
    bytes_read: int = 0
    _sha256: Any = field(default_factory=hashlib.sha256)
    _blake3: Any = field(default_factory=blake3)

    def records(self) -> Iterator[Record]:
        """The shard's records in order. Raises `Malformed`, `UsageError`, `LimitExceeded`, `EnvironmentFailure`."""
        try:
            with _open(self.path) as stream:
                yield from self._lines(stream) if self.container == "jsonl" else self._whole(stream)
        except OSError as error:
            raise EnvironmentFailure(f"{self.path}: cannot be read: {error.strerror or error}") from None

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the bytes read so far."""
        return str(self._sha256.hexdigest())

    @property
    def blake3(self) -> str:
        """BLAKE3-256 (hex) of the bytes read so far."""
        return str(self._blake3.hexdigest())

    def _take(self, data: bytes, where: str) -> None:
        if len(data) > MAX_RECORD_BYTES:
            raise LimitExceeded(f"{where}: more than the limit of {MAX_RECORD_BYTES} bytes for one record")
        self._sha256.update(data)
        self._blake3.update(data)
        self.bytes_read += len(data)

    def _lines(self, stream: BinaryIO) -> Iterator[Record]:
        number = 0
        while line := stream.readline(MAX_RECORD_BYTES + 1):
            number += 1
            where = f"{self.path} line {number}"
            self._take(line, where)
            yield Record(where, line, _parse_line(line, where))

    def _whole(self, stream: BinaryIO) -> Iterator[Record]:
        data = stream.read(MAX_RECORD_BYTES + 1)
        self._take(data, str(self.path))
        yield Record(str(self.path), data, None)


def read_records(path: Path) -> Iterator[Record]:
    """The records of a .jsonl file, a folder of them, one file, or a folder of files (by suffix).

    Raises `Malformed`, `UsageError`, `LimitExceeded`, `EnvironmentFailure`.
    """
    container = _guess(path)
    for _, file in shard_files([path], container):
        yield from ShardReader(file, container).records()


def read_one(path: Path, container: Container) -> Record:
    """The only record of a file (for "jsonl" of any suffix). Raises `UsageError` unless there is exactly one."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, one record's file is expected")
    ((_, file),) = _expand(path)
    records = list(islice(ShardReader(file, container).records(), 2))
    if len(records) != 1:
        raise UsageError(f"{path}: holds {'no record' if not records else 'more than one record'}, expected one")
    return records[0]


def shard_files(paths: list[Path], container: Container) -> list[tuple[str, Path]]:
    """(name, file) of every shard below `paths`: paths in the given order, a folder's files in name order.

    Symbolic links are refused, as are two shards of one name. Raises `UsageError`, `LimitExceeded`.
    """
    found: list[tuple[str, Path]] = []
    try:
        for path in paths:
            files = _expand(path)
            if not files:
                raise UsageError(f"{path}: holds no file to read records from")
            found += files
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{str(paths[0])[:256]}: cannot be used as a path: {reason}") from None
    if not found:
        raise UsageError("no file to read records from was given")
    if len(found) > MAX_SHARDS:
        raise LimitExceeded(f"{len(found)} files, more than the limit of {MAX_SHARDS}; join small files into .jsonl")
    seen: set[str] = set()
    for name, file in found:
        if name in seen:
            raise UsageError(f"{file}: a second file named {name!r}; shards need different names")
        if container == "jsonl" and not name.endswith(JSONL_SUFFIX):
            raise UsageError(f"{file}: not a .jsonl file; for plain files use the view file/1")
        seen.add(name)
    return found


def _expand(path: Path) -> list[tuple[str, Path]]:
    if path.is_symlink():
        raise UsageError(f"{path}: is a symbolic link; give the file itself")
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if path.is_dir():
        return [(name, path / name) for name in safe_files(path)]
    return [(path.name, path)]


class RecordDataset:
    """Map-style access to the JSON records of a .jsonl file or a folder of them, in commitment order.

    Fits `torch.utils.data.DataLoader` without importing torch. Keeps only the line offsets in memory and one open file
    per shard and process.
    """

    def __init__(self, path: str | Path) -> None:
        """Index the lines of `path`. Raises `UsageError`, `EnvironmentFailure`."""
        self.path = Path(path)
        self._files = [file for _, file in shard_files([self.path], "jsonl")]
        self._shard, self._start, self._length = array("L"), array("Q"), array("Q")
        for number, file in enumerate(self._files):
            self._index(number, file)
        self._streams: dict[tuple[int, int], BinaryIO] = {}

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Record `index` (from 0) as its JSON object, parsed as strictly as for the commitment."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")  # the sequence protocol ends iteration by it
        shard = self._shard[index]
        where = f"{self._files[shard]} record {index}"
        try:
            data = os.pread(self._stream(shard).fileno(), self._length[index], self._start[index])
        except OSError as error:
            raise EnvironmentFailure(f"{where}: cannot be read: {error.strerror or error}") from None
        return _parse_line(data, where)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": {}}  # open files stay in their process

    def _index(self, number: int, file: Path) -> None:
        start = 0
        try:
            with _open(file) as stream:
                while line := stream.readline(MAX_RECORD_BYTES + 1):
                    if len(line) > MAX_RECORD_BYTES:
                        raise LimitExceeded(f"{file}: a record has more than the limit of {MAX_RECORD_BYTES} bytes")
                    self._shard.append(number)
                    self._start.append(start)
                    self._length.append(len(line))
                    start += len(line)
        except OSError as error:
            raise EnvironmentFailure(f"{file}: cannot be read: {error.strerror or error}") from None

    def _stream(self, shard: int) -> BinaryIO:
        key = (os.getpid(), shard)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _open(self._files[shard])
        return stream


def _open(path: Path) -> BinaryIO:
    """Open a regular file without following a link and without waiting on a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UsageError(f"{path}: not a regular file")
    return os.fdopen(handle, "rb")


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    if not line.strip():
        raise Malformed(f"{where}: empty line; each line must hold one JSON object")
    value = parse(line, what=where, limit=MAX_RECORD_BYTES)
    if not isinstance(value, dict):
        raise Malformed(f"{where}: not a JSON object")
    return value


def _guess(path: Path) -> Container:
    if path.is_dir():
        names = safe_files(path)
        return "jsonl" if names and all(name.endswith(JSONL_SUFFIX) for name in names) else "file"
    return "jsonl" if path.name.endswith(JSONL_SUFFIX) else "file"
