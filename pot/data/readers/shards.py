"""From paths to shards: which container a path holds, which files are its shards, and who reads them.

Spec: `specs/containers.md`, "Shards". A folder stands for its files in name order, or in the order of the index
that its container has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pot.commitments.dataset import CONTAINER_SUFFIXES, usual_container
from pot.commitments.model import check_name, safe_files
from pot.data.readers.reader import ShardReader
from pot.data.readers.record import Record
from pot.errors import LimitExceeded, Malformed, UsageError

__all__ = [
    "COLUMNAR",
    "CONTAINERS",
    "MAX_SHARDS",
    "Container",
    "check_schemas",
    "container_for",
    "guess_container",
    "open_shard",
    "plain_for",
    "read_one",
    "read_records",
    "shard_files",
]

Container = Literal[
    "jsonl", "jsonl.zst", "parquet", "arrow", "hf", "webdataset", "mds", "megatron", "file", "text", "images"
]
CONTAINERS: Final[tuple[str, ...]] = get_args(Container)
COLUMNAR: Final = frozenset({"parquet", "arrow", "hf"})
"""Containers with columns, of which only the wanted ones are read."""
MAX_SHARDS: Final = 50_000  # so that a commitment's document stays below its own cap

# in the order in which a name is looked at; those without a suffix take any file
SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    **CONTAINER_SUFFIXES,
    "hf": (".arrow",),
    "mds": (".mds", ".mds.zstd"),
    "megatron": (".bin",),
}
_READERS: Final = {
    "jsonl": ("jsonl", "JsonlReader"),
    "jsonl.zst": ("jsonl", "JsonlReader"),
    "parquet": ("parquet", "ParquetReader"),
    "arrow": ("arrow", "ArrowReader"),
    "hf": ("hf", "HfReader"),
    "webdataset": ("webdataset", "WebdatasetReader"),
    "mds": ("mds", "MdsReader"),
    "megatron": ("megatron", "MegatronReader"),
    "file": ("file", "FileReader"),
    "text": ("file", "FileReader"),
    "images": ("images", "ImageReader"),
}


def open_shard(
    path: Path,
    container: str,
    fields: Mapping[str, str] | None = None,
    on_error: str = "stop",
    needs: str = "object",
) -> ShardReader:
    """The reader of one shard. `fields`: record field -> the container's column, key or suffix.

    `on_error`: "stop" at what cannot be read, or "skip" and count it. `needs`: what the view needs of a record. Opens
    nothing yet. Raises `UsageError`.
    """
    _check_container(container)
    module, name = _READERS[container]
    # only the libraries of the container that is read are loaded
    reader: type[ShardReader] = getattr(import_module(f"pot.data.readers.{module}"), name)
    return reader(path, container, fields, on_error, needs)


def guess_container(path: Path) -> str:
    """The container that a file's suffix or a folder's content speaks of; "file" if none. Raises `UsageError`."""
    from pot.data.readers.hf import is_hf
    from pot.data.readers.mds import is_mds

    if not path.is_dir():
        names = [path.name]
        if path.suffix == ".bin" and path.with_suffix(".idx").is_file():
            return "megatron"
    else:
        if is_hf(path):
            return "hf"
        if is_mds(path):
            return "mds"
        names = safe_files(path)
        if names and all(name.endswith((".bin", ".idx")) for name in names) and any(n.endswith(".idx") for n in names):
            return "megatron"
    return usual_container(names)


def container_for(paths: Sequence[Path], needs: str) -> str:
    """The one container of all paths, for a view with these needs. Raises `UsageError` where they differ.

    Views of bytes take lines and images as plain files, views of text take plain files as text; for the others files of
    no known name are lines of JSON, so that `shard_files` says what is wrong with their names.
    """
    if not paths:
        raise UsageError("no file to read records from was given")
    found = [guess_container(path) for path in paths]
    for path, container in zip(paths, found, strict=True):
        if container != found[0]:
            raise UsageError(
                f"{paths[0]} looks like {found[0]}, {path} like {container}; commit to one container at a time"
            )
    if found[0] == "file" and needs == "text":
        _refuse_mixture(paths)
    return plain_for(found[0], needs)


def _refuse_mixture(paths: Sequence[Path]) -> None:
    """Refuse a folder of records with a stray file, of which every file would be taken for one text."""
    for path in paths:
        for name in safe_files(path) if path.is_dir() else ():
            kind = usual_container([name])
            if kind not in ("file", "images"):
                raise UsageError(
                    f"{path}: holds {name} of the container {kind} beside files of others; move these away, or say with"
                    " --container how all are to be read (--container text: each file one text)"
                )


def plain_for(container: str, needs: str) -> str:
    """The container as a view with these needs reads it: bytes and text take plain files as they are."""
    if needs == "bytes" and container in ("jsonl", "jsonl.zst", "images"):
        return "file"
    if container == "file" and needs in ("object", "tokens", "image"):
        return "jsonl"
    return "text" if needs == "text" and container in ("file", "images") else container


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file or folder, by its container.

    Raises `Malformed`, `UsageError`, `LimitExceeded`, `EnvironmentFailure`, `MissingExtra`.
    """
    container = guess_container(path)
    for _, file in shard_files([path], container):
        yield from open_shard(file, container).records()


def read_one(path: Path, needs: str) -> Record:
    """The only record of a file, as a view with these needs sees it. Raises `UsageError` unless there is exactly one.

    A file of unknown suffix is one JSON line for views of objects, tokens and pixels, the record itself for the others.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, one record's file is expected")
    ((_, file),) = _expand(path, "file")
    records = list(islice(open_shard(file, container_for([path], needs), needs=needs).records(), 2))
    if len(records) != 1:
        raise UsageError(f"{path}: holds {'no record' if not records else 'more than one record'}, expected one")
    return records[0]


def shard_files(paths: list[Path], container: str) -> list[tuple[str, Path]]:
    """(name, file) of every shard below `paths`: paths in the given order, a folder's files in name or index order.

    Symbolic links are refused, as are two shards of one name and names of other containers. Raises `UsageError`,
    `LimitExceeded`.
    """
    _check_container(container)
    found: list[tuple[str, Path]] = []
    try:
        for path in paths:
            files = _expand(path, container)
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
    suffixes = SUFFIXES.get(container, ("",))
    for name, file in found:
        if name in seen:
            raise UsageError(f"{file}: a second file named {name!r}; shards need different names")
        if not name.lower().endswith(suffixes):
            raise UsageError(f"{file}: not a {' or '.join(suffixes)} file; for plain files use the view file/1")
        seen.add(name)
    return found


def check_schemas(
    shards: Sequence[tuple[str, Path]],
    container: str,
    needs: str,
    fields: Mapping[str, str] | None = None,
    on_error: str = "stop",
) -> None:
    """Refuse shards whose wanted columns are missing or of another kind than the first shard's, naming both files.

    A column of nulls goes with every kind. Containers without a schema pass, and under on_error "skip" shards whose
    schema cannot be read: they hold no record that could differ. Raises `UsageError`, `Malformed`.
    """
    first: dict[str, tuple[str, Path]] = {}
    for _, path in shards:
        try:
            schema = open_shard(path, container, fields, on_error, needs).schema()
        except Malformed:
            if on_error == "stop":
                raise
            continue
        if schema is None:
            return
        if first and schema.keys() != first.keys():
            name = min(schema.keys() ^ first.keys())
            known_path = next(iter(first.values()))[1]
            raise UsageError(f"{known_path} and {path}: only one of them has the column {name[:64]!r}")
        for name, kind in schema.items():
            known = first.setdefault(name, (kind, path))
            if known[0] == "null":
                first[name] = (kind, path)
            elif kind not in ("null", known[0]):
                raise UsageError(
                    f"{known[1]} and {path}: column {name[:64]!r} is {known[0]} in one, {kind} in the other"
                )


def _check_container(container: str) -> None:
    if container not in CONTAINERS:
        raise UsageError(f"container {container[:64]!r} is not known; known are {', '.join(CONTAINERS)}")


def _expand(path: Path, container: str) -> list[tuple[str, Path]]:
    if path.is_symlink():
        raise UsageError(f"{path}: is a symbolic link; give the file itself")
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if not path.is_dir():
        check_name(path.name)
        return [(path.name, path)]
    special = _special(path, container)
    if special is not None:
        for _, file in special:
            if file.is_symlink() or not file.is_file():
                raise UsageError(f"{file}: is listed as a shard, but is no file")
        return special
    names = [name for name in safe_files(path) if container != "megatron" or not name.endswith(".idx")]
    return [(name, path / name) for name in names]


def _special(path: Path, container: str) -> list[tuple[str, Path]] | None:
    """The shards of a folder that has an index of its own."""
    from pot.data.readers.hf import hf_files
    from pot.data.readers.mds import mds_files

    listing: Any = {"hf": hf_files, "mds": mds_files}.get(container)
    return None if listing is None else listing(path)
