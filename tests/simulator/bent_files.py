"""Ways to spoil a file: each takes the path of a good one and leaves something else in its place."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["BENT", "DOCUMENT", "Bend", "snapshot", "world"]

Bend = Callable[[Path], None]

_GIANT: Final = 1 << 42  # bytes, of which none is on the disk


def _replaced(path: Path, data: bytes) -> None:
    path.unlink()  # the file may be a hard link: what is under that name elsewhere must stay as it is
    path.write_bytes(data)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    away = path.with_name(path.name + ".away")
    path.rename(away)
    path.symlink_to(away.name)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _giant(path: Path) -> None:
    path.unlink()
    with path.open("wb") as stream:
        stream.truncate(_GIANT)


def _duplicate(path: Path) -> None:
    data = path.read_bytes()
    end = data.index(b":")
    key = data[data.index(b'"') : end] if data.startswith(b"{") else data[:end]
    if data.startswith(b"{"):
        _replaced(path, b"{" + key + b":1," + data[1:])
    else:
        _replaced(path, key + b": 1\n" + data)


BENT: Final[dict[str, Bend]] = {
    "missing": Path.unlink,
    "folder": _folder,
    "empty": lambda path: _replaced(path, b""),
    "truncated": lambda path: _replaced(path, path.read_bytes()[: -(path.stat().st_size // 3) - 1]),
    "giant": _giant,
    "binary": lambda path: _replaced(path, b"\x80\x04\x95\x00\xff\x1b[31m" * 50),
    "link": _link,
    "loop": _loop,
    "pipe": _pipe,
}
"""For any file."""

DOCUMENT: Final[dict[str, Bend]] = {
    "version": lambda path: _replaced(path, re.sub(rb"/v[0-9]", b"/v9", path.read_bytes())),
    "duplicate key": _duplicate,
    "NaN": lambda path: _replaced(path, b'{"version":NaN}\n'),
    "deep": lambda path: _replaced(path, b"[" * 100_000),
    "quotes": lambda path: _replaced(path, b'\\"' * 500_000),
    "long name": lambda path: _replaced(path, b'{"' + b"x" * 500_000 + b'":1}'),
    "another": lambda path: _replaced(path, b'{"hello":"\xe2\x80\xae\\u001b[31m"}'),
    "list": lambda path: _replaced(path, b"[1,2,3]"),
}
"""For a file that holds one document, JSON or YAML."""


def world(demo: Path, to: Path) -> Path:
    """The demo's folder again, without what is large and never read; hard links where the disk allows it."""
    shutil.copytree(
        demo, to, copy_function=_linked, ignore=lambda _, names: {"pk", "forged", "run-parent"} & set(names)
    )
    (to / "out").mkdir()
    with (demo / "data" / "x1.jsonl").open("rb") as records:
        (to / "one.jsonl").write_bytes(records.readline())
    return to


def _linked(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Kind, node, size and time of everything below a folder: what a command must not have changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = os.lstat(path)
        size, time = (0, 0) if path.is_dir() and not path.is_symlink() else (status.st_size, status.st_mtime_ns)
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_ino, size, time)
    return found
