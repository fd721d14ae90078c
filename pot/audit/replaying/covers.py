"""Covers: which places of the auditor's machine a replayed program finds empty.

The program is the prover's, and so is whatever lies in the folders of code and data that the auditor was handed: the
answer may lie beside the committed files. Other replays hold the next segment's start, and a daemon's socket may lie in
a folder for running or temporary things. What this Python needs stays: a folder that holds it is covered around it.

Shows / does not show: nothing; what lies elsewhere stays readable (see `pot.audit.replaying.sandbox`).
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pot.errors import EnvironmentFailure

__all__ = [
    "around", "needed_places", "outermost", "running_folders", "say_uncovered", "stagings_folder",
    "temporary_folders",
]  # fmt: skip

_MOST_BESIDE: Final = 256
"""Entries that are covered one by one in a folder that cannot be covered whole; each starts a program."""

_SYSTEM: Final = ("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
_RUNNING: Final = ("/run", "/var/run")
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108


def stagings_folder() -> Path:
    """The folder of all of this user's replays, made where it is absent; covered as a whole.

    Raises `EnvironmentFailure` where somebody else could write to it.
    """
    place = Path(tempfile.gettempdir()).resolve() / f"pot-replays-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(place)
    except OSError as error:
        raise EnvironmentFailure(f"{place}: cannot be made: {error.strerror or error}; set TMPDIR elsewhere") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EnvironmentFailure(f"{place}: is not a folder of yours alone; remove it, or set TMPDIR elsewhere")
    return place


def temporary_folders() -> list[Path]:
    """Where programs put what they need for a while: sockets, sessions, other audits' stagings."""
    return _there([tempfile.gettempdir(), *_TEMPORARY])


def running_folders() -> list[Path]:
    """Where daemons put their sockets."""
    return _there(_RUNNING)


def _there(places: Iterable[str]) -> list[Path]:
    found = dict.fromkeys(Path(place).resolve() for place in places)
    return [path for path in found if path.is_dir()]


def needed_places() -> list[Path]:
    """What a replayed program cannot do without: the system's folders, this Python and its packages, and pot."""
    import pot

    named = sysconfig.get_paths()
    places = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *_SYSTEM]
    places += [named[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places += [str(Path(sys.executable).parent), str(Path(sys.executable).resolve().parent)]
    found = dict.fromkeys(path for place in places for path in (Path(place), Path(place).resolve()))
    return [*found, Path(pot.__file__).resolve().parent]


def around(folders: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """What to cover so that these look empty, and the folders of which something stays in sight.

    A folder that holds what the program needs is covered entry by entry around that; the names of its entries stay.
    """
    needed = needed_places()
    covered: list[Path] = []
    partly: list[Path] = []
    for folder in dict.fromkeys(path.resolve() for path in folders):
        found = _around(folder, needed, _MOST_BESIDE)
        covered += found or []
        if found != [folder]:
            partly.append(folder)
    return covered, partly


def _around(folder: Path, needed: Sequence[Path], most: int) -> list[Path] | None:
    """The entries to cover; None where they are more than `most`, or cannot be listed."""
    if folder in needed:
        return []
    if not any(place.is_relative_to(folder) for place in needed):
        return [folder]
    found: list[Path] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return None
    for entry in entries:
        if entry.is_symlink():  # what it leads to is covered where it lies, or lies elsewhere
            continue
        below = _around(entry, needed, most - len(found))
        if below is None or len(found) + len(below) > most:
            return None
        found += below
    return found


def say_uncovered(folders: Iterable[Path]) -> None:
    """Tell the auditor which folders the program sees more of than its committed files."""
    for folder in folders:
        sys.stderr.write(
            f"pot: {folder} holds what this Python needs, so that the replayed program may see more of it than the"
            " committed files; give a folder with code or data alone\n"
        )
        sys.stderr.flush()


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Those that lie in no other: what lies below a covered folder cannot be covered, and need not be."""
    found: list[Path] = []
    for path in sorted(set(paths), key=lambda item: len(item.parts)):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found
