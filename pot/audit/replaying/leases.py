"""Leases: each auditor's folder of stagings, and which of those that lie about belong to nobody any more.

An auditor that is killed cannot remove its copies of data and states. Whoever makes a folder holds a lock on a file in
it for as long as it lives; the kernel takes the lock away with the process. The next audit removes what nobody holds.
Folders are made and looked for under one lock of their place, so that none is found between its making and its lock.

Shows / does not show: nothing; folders without such a file, and those of another user, are left alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final

from pot.errors import EnvironmentFailure

__all__ = ["leased_folder", "remove_abandoned"]

_PREFIX: Final = "audit-"
_LOCK: Final = "lock"


def leased_folder(place: Path, owner: object) -> Path:
    """A new folder in `place`, held until `owner` or this process is gone; it is removed with `owner`.

    Raises `EnvironmentFailure`.
    """
    try:
        everything = _locked(place / _LOCK, wait=True)
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place)).resolve()
            lease = _locked(folder / _LOCK)
        finally:
            os.close(everything)
    except OSError as error:
        raise EnvironmentFailure(
            f"{place}: cannot hold a replay: {error.strerror or error}; set TMPDIR elsewhere"
        ) from None
    weakref.finalize(owner, _end, folder, lease)
    return folder


def remove_abandoned(place: Path) -> list[Path]:
    """Remove the folders in `place` whose makers are gone; which they were. Raises `EnvironmentFailure`."""
    found: list[tuple[Path, int]] = []
    try:
        everything = _locked(place / _LOCK, wait=True)
        try:
            for folder in sorted(place.glob(_PREFIX + "*")):
                lease = _abandoned(folder)
                if lease is not None:
                    found.append((folder, lease))
        finally:
            os.close(everything)
    except OSError as error:
        raise EnvironmentFailure(f"{place}: cannot be looked through: {error.strerror or error}") from None
    for folder, lease in found:  # while it is removed, the lease keeps others from removing it too
        _end(folder, lease)
    return [folder for folder, _ in found]


def _abandoned(folder: Path) -> int | None:
    """The lease of a folder that nobody held; None where somebody does, or nobody can tell."""
    if folder.is_symlink():
        return None
    try:
        return _locked(folder / _LOCK, made=False)
    except OSError:  # held, without a lease, or no folder
        return None


def _locked(path: Path, *, wait: bool = False, made: bool = True) -> int:
    """An open file with a lock on it, or `OSError`. Programs that are started do not inherit it."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if made else 0), 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        raise
    return handle


def _end(folder: Path, lease: int) -> None:
    """Remove what lies there, and the lock only when nothing else is left: the next audit finds the rest again."""
    with suppress(FileNotFoundError):
        for item in [*folder.iterdir()]:
            if item.name != _LOCK and item.is_dir() and not item.is_symlink():
                shutil.rmtree(item, ignore_errors=True)
            elif item.name != _LOCK:
                item.unlink(missing_ok=True)
        if [item.name for item in folder.iterdir()] == [_LOCK]:
            shutil.rmtree(folder, ignore_errors=True)
    os.close(lease)
