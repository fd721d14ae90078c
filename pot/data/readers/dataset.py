"""Records by index: `RecordDataset` for training on .jsonl, and records from any map-style dataset.

Spec: `specs/containers.md`, "Datasets in memory". Neither imports torch: a map-style dataset is an object with
`__len__` and `__getitem__`.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pot.data.readers.jsonl import parse_line
from pot.data.readers.record import Record, check_size, json_value, record_cap, seen_by, wanted_names
from pot.data.readers.shards import shard_files
from pot.data.readers.source import Source, parsing
from pot.errors import EnvironmentFailure, UsageError

__all__ = ["DatasetRecords", "RecordDataset", "dataset_records"]


class RecordDataset:
    """Map-style access to the JSON records of a .jsonl file or a folder of them, in commitment order.

    Fits `torch.utils.data.DataLoader` without importing torch. Keeps only the line offsets in memory and one open file
    per shard and process.
    """

    def __init__(self, path: str | Path) -> None:
        """Index the lines of `path`. Raises `UsageError`, `LimitExceeded`, `EnvironmentFailure`."""
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
        return parse_line(data, where)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": {}}  # open files stay in their process

    def _index(self, number: int, file: Path) -> None:
        start = 0
        try:
            with Source(file) as source:
                stream = source.stream()
                while line := stream.readline(record_cap() + 1):
                    check_size(len(line), f"{file} byte {start}")
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
            with Source(self._files[shard]) as source:
                stream = self._streams[key] = source.duplicate()
        return stream


class DatasetRecords:
    """The records of a map-style dataset in index order: what a shard reader is, without a file."""

    container = "dataset"
    skipped = 0
    cut = False

    def __init__(self, dataset: Any, needs: str = "object", fields: Mapping[str, str] | None = None) -> None:
        """Raises `UsageError` for an object without `__len__` and `__getitem__`."""
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__") or isinstance(dataset, (str, bytes)):
            raise UsageError(f"{type(dataset).__name__}: no map-style dataset; it needs __len__ and __getitem__")
        self._dataset = dataset
        self._wanted = wanted_names(needs, fields or {})

    def spans(self, needs: str) -> None:
        """None: a dataset in memory has no columns to hand over."""

    def records(self) -> Iterator[Record]:
        """Record i is item i. Raises `Malformed` for items that are no records, whatever the dataset raises as such."""
        for index in range(len(self._dataset)):
            where = f"{type(self._dataset).__name__} item {index}"
            with parsing(where, "item"):
                item = self._dataset[index]
            yield self._record(item, where)

    def _record(self, item: Any, where: str) -> Record:
        if isinstance(item, bytes):
            check_size(len(item), where)
            return Record(where, item, None)
        if not isinstance(item, Mapping):
            raise UsageError(f"{where}: is a {type(item).__name__}; a record is a mapping from field names, or bytes")
        with parsing(where, "item"):
            value = {name: plain_value(part) for name, part in item.items()}
        return Record(where, b"", json_value(value, where) if not self._wanted else seen_by(self._wanted, value, where))


def dataset_records(dataset: Any, needs: str = "object", fields: Mapping[str, str] | None = None) -> DatasetRecords:
    """The records of a torch `Dataset`, a list, or whatever has `__len__` and `__getitem__`. Raises `UsageError`."""
    return DatasetRecords(dataset, needs, fields)


def plain_value(value: Any) -> Any:
    """A tensor or an image as an array, a NumPy number as Python's, tuples as lists; everything else as it is."""
    origin = type(value).__module__.partition(".")[0]
    if origin == "torch" and hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
        return value.item() if value.ndim == 0 else value
    if origin == "PIL" and hasattr(value, "mode"):
        import numpy as np

        if value.mode not in ("L", "RGB", "RGBA"):
            raise UsageError(f"an image of mode {value.mode[:16]!r}; convert it to L, RGB or RGBA")
        return np.asarray(value)
    if origin == "numpy" and hasattr(value, "item"):
        return value.item() if value.ndim == 0 else value
    if isinstance(value, (list, tuple)):
        return [plain_value(part) for part in value]
    if isinstance(value, Mapping):
        return {name: plain_value(part) for name, part in value.items()}
    return value
