"""What may reach a terminal: text from outside loses the characters that can lie to its reader.

Escape sequences move the cursor over what was printed before, bidirectional marks reorder a line, zero-width characters
make two names look alike. `clean` removes all of them; line breaks become spaces, so that one sentence stays one line.

Does not define: escaping for HTML (the pages do that for themselves).
"""

from __future__ import annotations

import sys
import unicodedata
from typing import Final

__all__ = ["clean", "prepare", "say"]

_SPACES: Final = frozenset("\t\n\v\f\r\x85\u2028\u2029")
_REFUSED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode general categories
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters and marks that draw nothing


def clean(text: str) -> str:
    """`text` without control, bidirectional, zero-width and unassigned characters; line breaks and tabs are spaces."""
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for character in text:
        if character in _SPACES:
            kept.append(" ")
        elif not (
            unicodedata.category(character) in _REFUSED
            or character in _INVISIBLE
            or "\ufe00" <= character <= "\ufe0f"  # variation selectors
            or "\U000e0100" <= character <= "\U000e01ef"
        ):
            kept.append(character)
    return "".join(kept)


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
