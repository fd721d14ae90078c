"""Text from outside, before a person sees it: without the characters that can lie to its reader.

Escape sequences move the cursor over what was printed before, bidirectional marks reorder a line, zero-width characters
make two names look alike. `clean` removes all of them; line breaks become spaces, so that one sentence stays one line.

Does not define: escaping for HTML (the pages do that for themselves).
"""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["clean"]

_SPACES: Final = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
_REFUSED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # Unicode general categories
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters and marks that draw nothing


def clean(text: str) -> str:
    """`text` without control, bidirectional, zero-width and unassigned characters; line breaks and tabs are spaces."""
    if text.isascii() and text.isprintable():
        return text
    spaced = (" " if character in _SPACES else character for character in text)
    return "".join(character for character in spaced if _visible(character))


def _visible(character: str) -> bool:
    return not (
        unicodedata.category(character) in _REFUSED
        or character in _INVISIBLE
        or "\ufe00" <= character <= "\ufe0f"  # variation selectors
        or "\U000e0100" <= character <= "\U000e01ef"
    )
