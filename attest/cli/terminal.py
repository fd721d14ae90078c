"""The terminal's two streams: results go to standard output, talk goes to standard error, cleaned."""

from __future__ import annotations

import sys

from attest.plaintext import clean

__all__ = ["clean", "prepare", "say"]


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
