"""What a command reads and writes: a run's folder that is one, and no output over what is read or must not be lost.

Shows / does not show: nothing; mistakes are found before the work, not after it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_outputs", "check_run", "commitment_files", "for_this_run", "refuse_existing", "run_files"]


def run_files(run: Path) -> list[Path]:
    """The files of a run directory that a run cannot do without."""
    return [run / name for name in ("precommit.json", "transcript.jsonl", "nonce.json")]


def commitment_files(path: Path) -> list[Path]:
    """A dataset commitment and its listing, under either ending."""
    stem = path.name.removesuffix(".json")
    return [path, *(path.with_name(stem + ending) for ending in (".digests", ".keys"))] if path.name else [path]


def check_run(run: Path) -> None:
    """Raises `UsageError` where `run` is no run directory at all; what is wrong within one is said by its readers."""
    from pot.errors import UsageError
    from pot.recording.begin import PRECOMMIT_FILE

    if not os.path.lexists(run / PRECOMMIT_FILE):
        raise UsageError(
            f"{run}: is no run folder (it has no {PRECOMMIT_FILE}); give the folder that the recorder wrote"
        )


@contextmanager
def for_this_run(challenge: Path) -> Iterator[None]:
    """Where a challenge was drawn for another run, say what to do about it. Raises `Refused`."""
    from pot.errors import Refused

    try:
        yield
    except Refused as error:
        if not re.match("challenge: (precommit|transcript)_sha256 is ", str(error)):
            raise
        raise Refused(f"{challenge}: {error}; draw one for this run with pot challenge new") from None


def refuse_existing(targets: Sequence[Path], why: str) -> None:
    """Refuse targets that exist, where what stands there could not be made again. Raises `UsageError`."""
    from pot.errors import UsageError

    for target in targets:
        if os.path.lexists(target):
            raise UsageError(f"{target}: exists already; {why}, name another file")


def check_outputs(targets: Sequence[Path], *, reads: Sequence[Path] = (), folder: bool = False) -> None:
    """Refuse targets that cannot be written, or that are also read; leaves nothing behind.

    `reads`: files, and folders whose present files are all taken as read. `folder`: the targets are folders to put
    files into. Raises `UsageError`, `EnvironmentFailure`.
    """
    for target in targets:
        _check_kind(target, folder)
        _check_unread(target, reads)
        _try(target, target if folder else target.parent)


def _check_kind(target: Path, folder: bool) -> None:
    from pot.canonical import check_target
    from pot.errors import UsageError

    if not folder:
        check_target(target)
    elif target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target}: is not a folder; name one to write into")


def _check_unread(target: Path, reads: Sequence[Path]) -> None:
    from pot.errors import UsageError

    place = _real(target)
    for source in reads:
        taken = _real(source)
        if place == taken or (source.is_dir() and taken in place.parents and place.is_file()):
            raise UsageError(f"{target}: would be written over, but it is also read; choose another name")


def _real(path: Path) -> Path:
    """The path behind links; unlike `Path.resolve` it takes links that lead to themselves."""
    return Path(os.path.realpath(path))


def _try(target: Path, folder: Path) -> None:
    """Whether a file can be made in the folder, found by making one that has no name."""
    from pot.errors import EnvironmentFailure

    while not folder.exists() and folder != folder.parent:  # what is missing is made later
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise EnvironmentFailure(f"{target}: cannot be written: {error.strerror or error}") from None
