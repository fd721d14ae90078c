"""The terminal's two streams: results go to standard output, talk goes to standard error, cleaned."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from attest.plaintext import clean

__all__ = ["clean", "counted", "prepare", "progress_bar", "progress_lines", "say", "show"]


def say(text: str) -> None:
    """Talk to the user: one cleaned line on standard error; a closed or full standard error is no reason to fail."""
    try:
        print(clean(text), file=sys.stderr, flush=True)  # noqa: T201
    except (OSError, ValueError):
        return


def prepare() -> None:
    """Make both streams take any text: what the terminal's encoding cannot show is escaped, never an exception."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def show(as_json: bool, value: dict[str, Any], lines: Sequence[str]) -> None:
    """The result on standard output: one JSON object, or lines of text, cleaned."""
    print(json.dumps(value, sort_keys=True) if as_json else "\n".join(clean(line) for line in lines))  # noqa: T201


def counted(number: int, one: str, many: str = "") -> str:
    """`1 segment`, `2 segments`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def progress_lines(unit: str = "") -> Callable[[str, int, int], None]:
    """A function of (what is done, number done, number in all) that says so; in a file only every tenth part."""
    told: dict[str, int] = {}

    def report(what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if sys.stderr.isatty() or tenth > told.get(what, 0) or done == total:
            say(f"{what}: {done} of {total}{unit}")
        told[what] = tenth

    return report


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar with rate and time left on standard error, gone when done; nothing where that is not a terminal.

    Yields a function of (bytes done, bytes in all).
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
