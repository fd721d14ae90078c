"""Hugging Face `datasets` folders, as `save_to_disk` writes them.

Spec: `specs/containers.md`, "hf". `state.json` lists the data files in order; each is an Arrow stream and a shard.
The folder's fingerprint is a cache key and no commitment: it is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pot.canonical import parse, read_file
from pot.data.readers.arrow import ArrowReader
from pot.errors import Malformed, UsageError

__all__ = ["HfReader", "hf_files", "is_hf"]

STATE: Final = "state.json"
SPLITS: Final = "dataset_dict.json"
_LIMIT: Final = 16 << 20


class HfReader(ArrowReader):
    """Reads one data file of the folder."""

    suffixes = (".arrow",)


def is_hf(folder: Path) -> bool:
    """Whether the folder looks like one that `save_to_disk` wrote."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def hf_files(folder: Path) -> list[tuple[str, Path]]:
    """(name, file) of the data files in order. Raises `UsageError` for a folder of splits, `Malformed`."""
    if (folder / SPLITS).is_file():
        value = parse(read_file(folder / SPLITS, limit=_LIMIT), what=str(folder / SPLITS))
        splits = value.get("splits") if isinstance(value, dict) else None
        names = ", ".join(repr(str(split)[:64]) for split in splits[:20]) if isinstance(splits, list) else "unknown"
        raise UsageError(f"{folder}: holds several splits ({names}); give the folder of one of them")
    if not (folder / STATE).is_file():
        raise UsageError(f"{folder}: not a folder that `save_to_disk` wrote: it has no {STATE}")
    value = parse(read_file(folder / STATE, limit=_LIMIT), what=str(folder / STATE))
    files = value.get("_data_files") if isinstance(value, dict) else None
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise Malformed(f"{folder / STATE}: has no list '_data_files'")
    if value.get("_indices_data_files"):
        raise UsageError(f"{folder}: its rows are reordered by an index file; save it again with a current `datasets`")
    return [(name, folder / name) for name in (_plain_name(file.get("filename"), folder) for file in files)]


def _plain_name(name: object, folder: Path) -> str:
    if not isinstance(name, str) or not name.isprintable() or "/" in name or "\\" in name or name in ("", ".", ".."):
        raise Malformed(f"{folder / STATE}: {str(name)[:64]!r} is no name of a file in this folder")
    return name
