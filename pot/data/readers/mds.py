"""MDS shards, as MosaicML's `streaming` writes them.

Spec: `specs/containers.md`, "mds". `index.json` lists the shards and how their columns are encoded; each shard (raw, or
compressed with zstd) holds offsets, its own copy of the columns' description, and the samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from pot.canonical import parse, read_file
from pot.data.readers.mds_encodings import decode, fixed_size
from pot.data.readers.reader import ShardReader
from pot.data.readers.record import Record, check_size, json_value, record_cap
from pot.data.readers.source import Source, pass_over, take, unpacked_zstd
from pot.errors import LimitExceeded, Malformed, UsageError

__all__ = ["MdsReader", "is_mds", "mds_files"]

INDEX: Final = "index.json"
MAX_INDEX: Final = 64 << 20
MAX_CONFIG: Final = 16 << 20  # a shard's own description of its columns
MAX_COLUMNS: Final = 4096

_Column = tuple[str, str, int | None]


class MdsReader(ShardReader):
    """Reads one shard by the entry for it in the `index.json` beside it."""

    suffixes = (".mds", ".mds.zstd")
    _columns: list[_Column]

    def schema(self) -> dict[str, str]:
        """Record field -> encoding."""
        columns = {name: encoding.partition(":")[0] for name, encoding, _ in _columns(_entry(self.path), self.path)}
        if not self._wanted:
            return columns
        return {name: columns[stored] for name, stored in self._wanted.items() if stored in columns}

    def _pieces(self, source: Source) -> Iterator[tuple[str, bytes | int]]:
        entry = _entry(self.path)
        self._columns = _columns(entry, self.path)
        self._check_wanted(self._columns)
        stream, size = source.stream(), source.size
        if self.path.name.endswith(".zstd"):
            stream, size = unpacked_zstd(stream, self._digests, self.path), _unpacked_size(entry, self.path)
        offsets = _offsets(stream, size, entry, self._columns, self.path)
        for number, length in enumerate((offsets[1:] - offsets[:-1]).tolist()):
            where = f"{self.path} sample {number}"
            if length > record_cap():
                pass_over(stream, length, where)
                yield where, length
            else:
                yield where, take(stream, length, where)
        if stream.read(1):
            raise Malformed(f"{self.path}: unpacks to more than the {size} bytes that {INDEX} gives")

    def _record(self, where: str, piece: bytes | int) -> Record:
        check_size(piece if isinstance(piece, int) else len(piece), where)
        stored = set(self._wanted.values())
        found = {
            name: decode(encoding, data, f"{where}, column {name[:64]!r}")
            for name, encoding, data in _cut(bytes(piece), self._columns, where)
            if not stored or name in stored
        }
        if not self._wanted:
            return Record(where, b"", json_value(found, where))
        return Record(where, b"", {name: found[column] for name, column in self._wanted.items()})

    def _check_wanted(self, columns: list[_Column]) -> None:
        names = [name for name, _, _ in columns]
        for name, stored in self._wanted.items():
            if stored not in names:
                known = ", ".join(repr(column[:64]) for column in names[:20])
                raise UsageError(
                    f"{self.path}: no column {stored[:64]!r}, which is needed as the record's {name}; "
                    f"columns are {known}"
                )


def _unpacked_size(entry: dict[str, Any], path: Path) -> int:
    size = entry["raw_data"].get("bytes") if isinstance(entry.get("raw_data"), dict) else None
    if type(size) is not int or not 0 <= size < 1 << 32:  # offsets are u32
        raise LimitExceeded(f"{path}: {INDEX} gives no unpacked size, or one of 4 GiB or more")
    return size


def is_mds(folder: Path) -> bool:
    """Whether the folder has an `index.json` and a shard."""
    return (folder / INDEX).is_file() and any(folder.glob("*.mds*"))


def mds_files(folder: Path) -> list[tuple[str, Path]]:
    """(name, file) of the shards in the order of `index.json`: the raw file where there is one, else the packed."""
    found = []
    for entry in _entries(folder):
        names = [_basename(entry.get(kind), folder) for kind in ("raw_data", "zip_data")]
        there = [name for name in names if name is not None and (folder / name).exists()]
        name = there[0] if there else next((name for name in names if name is not None), None)
        if name is None:
            raise Malformed(f"{folder / INDEX}: a shard without a file name")
        found.append((name, folder / name))
    return found


def _entries(folder: Path) -> list[dict[str, Any]]:
    value = parse(read_file(folder / INDEX, limit=MAX_INDEX), what=str(folder / INDEX), limit=MAX_INDEX)
    shards = value.get("shards") if isinstance(value, dict) else None
    if (
        not isinstance(shards, list)
        or not all(isinstance(shard, dict) for shard in shards)
        or value.get("version") != 2
    ):
        raise Malformed(f"{folder / INDEX}: not version 2 of an MDS index, a list of shards")
    return shards


def _entry(path: Path) -> dict[str, Any]:
    for entry in _entries(path.parent):
        if path.name in (_basename(entry.get("raw_data"), path.parent), _basename(entry.get("zip_data"), path.parent)):
            if entry.get("format") != "mds" or entry.get("version") != 2:
                raise Malformed(f"{path.parent / INDEX}: {path.name} is not in version 2 of the format mds")
            if path.name.endswith(".zstd") != (path.name == _basename(entry.get("zip_data"), path.parent)):
                raise Malformed(f"{path.parent / INDEX}: {path.name} is compressed otherwise than its name says")
            return entry
    raise UsageError(f"{path}: is not listed in {path.parent / INDEX}")


def _basename(info: Any, folder: Path) -> str | None:
    if info is None:
        return None
    name = info.get("basename") if isinstance(info, dict) else None
    if not isinstance(name, str) or not name.isprintable() or "/" in name or "\\" in name:
        raise Malformed(f"{folder / INDEX}: {str(name)[:64]!r} is no name of a file in this folder")
    if not name.endswith((".mds", ".mds.zstd")):
        raise UsageError(f"{folder / INDEX}: shard {name[:64]!r}; raw shards (.mds) and zstd (.mds.zstd) are read")
    return name


def _columns(entry: dict[str, Any], path: Path) -> list[_Column]:
    lists = [entry.get(key) for key in ("column_names", "column_encodings", "column_sizes")]
    names, encodings, sizes = (part if isinstance(part, list) else [] for part in lists)
    if not 0 < len(names) == len(encodings) == len(sizes) <= MAX_COLUMNS or len({str(name) for name in names}) != len(
        names
    ):
        raise Malformed(f"{path}: its columns need names of their own, and an encoding and a size each")
    columns: list[_Column] = []
    for name, encoding, size in zip(names, encodings, sizes, strict=True):
        if not isinstance(name, str) or not isinstance(encoding, str):
            raise Malformed(f"{path}: names and encodings of columns are strings")
        expected = fixed_size(encoding, f"{path}: column {name[:64]!r}")
        if size != expected or isinstance(size, bool):
            raise Malformed(
                f"{path}: column {name[:64]!r} of encoding {encoding[:32]!r} cannot have size {str(size)[:32]}"
            )
        columns.append((name, encoding, expected))
    return columns


def _offsets(stream: BinaryIO, size: int, entry: dict[str, Any], columns: list[_Column], path: Path) -> Any:
    """Offsets of the samples, ascending and within the shard, whose own description agrees with the index's."""
    import numpy as np

    count = int.from_bytes(take(stream, 4, str(path)), "little")
    first = 4 + 4 * (count + 1)
    if size < first or count != entry.get("samples"):
        told = str(entry.get("samples"))[:20]
        raise Malformed(f"{path}: holds {count} samples, {INDEX} says {told}, or the shard is cut short")
    offsets = np.frombuffer(take(stream, first - 4, str(path)), "<u4").astype(np.int64)
    if offsets[0] < first or offsets[-1] != size or bool(np.any(offsets[1:] < offsets[:-1])):
        raise Malformed(
            f"{path}: the samples' offsets do not ascend to the shard's end at byte {size}; it is cut short"
        )
    where = f"{path} byte {first}"
    if offsets[0] - first > MAX_CONFIG:
        raise LimitExceeded(f"{where}: a description of columns of more than {MAX_CONFIG} bytes")
    own = parse(take(stream, int(offsets[0]) - first, where), what=where)
    if not isinstance(own, dict) or _columns(own, path) != columns:
        raise Malformed(f"{where}: the shard describes other columns than {INDEX}")
    return offsets


def _cut(sample: bytes, columns: list[_Column], where: str) -> list[tuple[str, str, bytes]]:
    """(column, encoding, bytes) of one sample: u32 sizes of the columns that have none, then all columns' bytes."""
    at = 4 * sum(size is None for _, _, size in columns)
    head, parts = 0, []
    for name, encoding, size in columns:
        if size is None:
            size = int.from_bytes(sample[head : head + 4], "little")
            head += 4
        parts.append((name, encoding, sample[at : at + size]))
        at += size
    if head > len(sample) or at != len(sample):
        raise Malformed(f"{where}: its columns take {at} bytes, it has {len(sample)}")
    return parts
