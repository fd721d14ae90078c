"""A kit's folder while it is made: it gets its name when it is whole, so that no half kit passes for one.

Shows / does not show: nothing; a kit is believed only when its digests are checked (`pot.zk.kit`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["finished_as", "refuse_kit"]


def refuse_kit(out: Path) -> None:
    """Refuse a name that is taken, and say what stands there. Raises `UsageError`."""
    from pot.errors import UsageError
    from pot.zk.kit import is_half

    if is_half(out):
        raise UsageError(f"{out}: holds no finished circuit (its setup was stopped?); delete it, or name a new folder")
    if os.path.lexists(out):
        raise UsageError(f"{out}: exists already; name a new folder")


@contextmanager
def finished_as(out: Path) -> Iterator[Path]:
    """A folder beside `out` to build in, which is renamed to `out` at the end, or removed where that is not reached.

    ezkl works in it too. What a killed setup left there is removed first. Raises `UsageError`, `Refused` (another setup
    is at work there), `EnvironmentFailure`.
    """
    import fcntl
    import shutil

    from pot.errors import EnvironmentFailure, Refused

    part = out.with_name(f".{out.name}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise EnvironmentFailure(f"{part}: cannot be made: {error.strerror or error}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(handle), os.stat(part)):  # renamed by its owner since it was opened
                raise BlockingIOError
        except OSError:
            raise Refused(f"{out}: another pot zk setup is making it; wait for it, or name another folder") from None
        try:
            for old in part.iterdir():
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            with _scratch(part.absolute() / "work"):
                yield part
            refuse_kit(out)
            os.rename(part, out)
        except OSError as error:
            raise EnvironmentFailure(f"{out}: cannot be made: {error.strerror or error}") from None
        finally:
            if part.exists() and os.path.samestat(os.fstat(handle), os.stat(part)):
                shutil.rmtree(part, ignore_errors=True)  # half a kit is none
    finally:
        os.close(handle)


@contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    """This process's temporary files go into a new folder, which is removed at the end."""
    import shutil
    import tempfile

    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder)
