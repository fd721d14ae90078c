"""A released model's files and the two digests that name it.

Spec: OpenSSF Model Signing v1.0 (root digest); `specs/commitments.md`, "Model". The model-signing root digest is
SHA-256 over the concatenated SHA-256 digests of the files in name order. It does not bind the names, so a second
digest does.

Shows: these files, byte for byte, under these names.
Does not show: anything about files that are ignored (`IGNORED`, at the top of the folder only).
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from pot.canonical import Count, Document, Hex32, derive
from pot.errors import EnvironmentFailure, LimitExceeded, UsageError

__all__ = [
    "IGNORED",
    "MAX_FILES",
    "MAX_PATH_BYTES",
    "ModelFile",
    "check_name",
    "model_digest",
    "model_files",
    "names_digest",
    "safe_files",
]

IGNORED: Final = frozenset({"claims.jsonl", ".pot", "model.sig"})
MAX_FILES: Final = 100_000
MAX_PATH_BYTES: Final = 512
MAX_FOLDER_DEPTH: Final = 32
NAMES_CONTEXT: Final = "pot/model-names/v1"
_CHUNK: Final = 1 << 20


class ModelFile(BaseModel):
    """One file of a model: its path below the model's folder with "/" between parts, its length, its SHA-256."""

    model_config = Document.model_config  # not a Document: its field `sha256` would hide the method

    path: str
    bytes: Count
    sha256: Hex32


def model_files(folder: Path, ignore: Collection[str] = IGNORED) -> list[ModelFile]:
    """Every file below `folder` in name order, hashed; entries of `ignore` at the top are left out.

    Symbolic links, special files and names that are not clean text are refused, never skipped. Raises `UsageError`,
    `LimitExceeded`, `EnvironmentFailure`.
    """
    paths = safe_files(folder, ignore)
    try:
        files = [_hash(folder, path) for path in paths]
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be read: {error.strerror or error}") from None
    if not files:
        raise UsageError(f"{folder}: holds no model file")
    return files


def safe_files(folder: Path, ignore: Collection[str] = ()) -> list[str]:
    """Paths of every file below `folder` in name order; entries of `ignore` at the top are left out.

    Refuses what `model_files` refuses, with the same errors; hashes nothing.
    """
    if folder.is_symlink():
        raise UsageError(f"{folder}: is a symbolic link; give the folder itself")
    if not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    paths: list[str] = []
    try:
        _walk(folder, "", frozenset(ignore), paths, 0)
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be read: {error.strerror or error}") from None
    return sorted(paths, key=_parts)


def model_digest(files: Sequence[ModelFile]) -> str:
    """The model-signing root digest (hex). Names are not bound; see `names_digest`."""
    digests = (bytes.fromhex(file.sha256) for file in sorted(files, key=lambda file: _parts(file.path)))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def names_digest(files: Sequence[ModelFile]) -> str:
    """Digest (hex) that binds each file's path, length and content."""
    parts: list[bytes] = []
    for file in sorted(files, key=lambda file: _parts(file.path)):
        parts += [file.path.encode(), int(file.bytes).to_bytes(8, "little"), bytes.fromhex(file.sha256)]
    return derive(NAMES_CONTEXT, *parts).hex()


def _parts(path: str) -> tuple[str, ...]:
    """Name order compares part by part ("a/b" before "a-b"), as model signing does."""
    return tuple(path.split("/"))


def _walk(folder: Path, prefix: str, ignore: frozenset[str], found: list[str], depth: int) -> None:
    if depth > MAX_FOLDER_DEPTH:
        raise LimitExceeded(f"{folder}: folders nested deeper than {MAX_FOLDER_DEPTH}")
    with os.scandir(folder) as entries:
        for entry in entries:
            if not prefix and entry.name in ignore:
                continue
            path = prefix + entry.name
            check_name(path)
            if entry.is_symlink():
                raise UsageError(
                    f"{folder / entry.name}: is a symbolic link; the folder must hold the files themselves"
                )
            if entry.is_dir(follow_symlinks=False):
                _walk(folder / entry.name, path + "/", ignore, found, depth + 1)
            elif entry.is_file(follow_symlinks=False):
                found.append(path)
                if len(found) > MAX_FILES:
                    raise LimitExceeded(f"{folder}: more than {MAX_FILES} files")
            else:
                raise UsageError(f"{folder / entry.name}: neither a file nor a folder")


def check_name(path: str) -> None:
    """Refuse a name that is not UTF-8, too long, or holds what cannot be seen. Raises `UsageError`, `LimitExceeded`."""
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{path!r}: file name is not UTF-8") from None
    if len(encoded) > MAX_PATH_BYTES:
        raise LimitExceeded(f"{path[:64]!r}...: path longer than {MAX_PATH_BYTES} bytes")
    if "\\" in path or any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in path):
        raise UsageError(f"{path!r}: file name holds a backslash, control or invisible character")


def _hash(folder: Path, path: str) -> ModelFile:
    # O_NOFOLLOW: between the walk and here the file may have become a link
    handle = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UsageError(f"{folder / path}: not a regular file")
        sha256, size = hashlib.sha256(), 0
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
    return ModelFile(path=path, bytes=str(size), sha256=sha256.hexdigest())
