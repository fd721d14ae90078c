"""The character tables of `text-norm/1`: Unicode 3.2.0, which every Python carries unchanged, and two fixed lists.

Spec: `specs/views/text-norm-1.md`, "Bytes". Python's `unicodedata.ucd_3_2_0` is frozen; `str.casefold` is stable for
characters that were assigned before Unicode 5.0 (Unicode's stability policy, "case folding"). A Python whose tables
differ all the same is refused: it would give other bytes for the same text.

Shows / does not show: nothing by itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Final
from unicodedata import ucd_3_2_0 as unicode32

import numpy as np
from numpy.typing import NDArray

from pot.errors import EnvironmentFailure

__all__ = ["COMPLEX", "MAPPED", "REMOVED", "SPACE", "Tables", "normalised", "tables"]

_CODES: Final = 0x110000
_SURROGATES: Final = range(0xD800, 0xE000)

_SPACES: Final = ((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
                  (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000))  # fmt: skip

# other controls; Cf of 3.2.0; what Unicode calls default ignorable, reserved code points included
_REMOVED: Final = ((0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x034F, 0x034F),
                   (0x061C, 0x061C), (0x06DD, 0x06DD), (0x070F, 0x070F), (0x115F, 0x1160), (0x17B4, 0x17B5),
                   (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
                   (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3),
                   (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF))  # fmt: skip

# assigned, and their own normalised form: ideographs, syllables, private use; left out where all others are looked at
_PLAIN: Final = ((0x3400, 0x4DB5), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0x20000, 0x2A6D6),
                 (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD))  # fmt: skip

SPACE: Final = 1
REMOVED: Final = 2
MAPPED: Final = 3
COMPLEX: Final = 4  # may compose with, or change places with, what stands before it

_MANY: Final = 64  # characters in a row that may change places; no language has ten

_DIGEST: Final = "cd4fa675ae94cd170c1f40f2cea87628098449e3a4ebacdddb5a332fdec7ce6a"


@dataclass(frozen=True, slots=True)
class Tables:
    """What every code point becomes.

    `classes`: uint8 of shape (0x110000,), 0 for a character that is its own normalised form wherever it stands, else
    SPACE, REMOVED, MAPPED or COMPLEX. `places`: int32 of the same shape, for MAPPED where `forms` has a byte with the
    length of the form and then the form in UTF-8. `first_step`: for `str.translate`. `assigned_runs`: matches runs of
    characters that Unicode 3.2.0 assigned. `many_marks`: matches where many characters in a row may change places.
    """

    classes: NDArray[np.uint8]
    places: NDArray[np.int32]
    forms: NDArray[np.uint8]
    first_step: dict[int, str | None]
    assigned_runs: re.Pattern[str]
    many_marks: re.Pattern[str]


def normalised(text: str) -> str:
    """The normalised form of a text, after the letter of the specification. `text` has no surrogates."""
    known = tables()
    visible = text.translate(known.first_step)
    if known.many_marks.search(visible):
        visible = known.assigned_runs.sub(lambda run: _in_order(run[0]), visible)
    form = _folded(visible, known.assigned_runs)
    return " ".join(part for part in form.split(" ") if part)


def _folded(text: str, assigned_runs: re.Pattern[str]) -> str:
    """NFKC, case folding, NFKC, of the characters assigned in 3.2.0; the others stand between them and stay."""
    form = assigned_runs.sub(lambda run: unicode32.normalize("NFKC", run[0]), text)
    form = assigned_runs.sub(lambda run: run[0].casefold(), form)
    return assigned_runs.sub(lambda run: unicode32.normalize("NFKC", run[0]), form)


def _in_order(run: str) -> str:
    """Decomposed and in canonical order: the same normalised form, for which Python needs quadratic time otherwise."""
    whole = "".join(unicode32.normalize("NFKD", character) for character in run)
    marks = groupby(whole, key=lambda character: unicode32.combining(character) > 0)
    return "".join("".join(sorted(some, key=unicode32.combining) if moving else some) for moving, some in marks)


@lru_cache(maxsize=1)
def tables() -> Tables:
    """The tables, made once in a process (0.3 s). Raises `EnvironmentFailure` for a Python that has others."""
    assigned = _assigned()
    runs = re.compile(f"[{''.join(_escaped(first, last) for first, last in _ranges(assigned))}]+")
    classes, places = np.zeros(_CODES, np.uint8), np.full(_CODES, -1, np.int32)
    forms = bytearray()
    second = _second_of_pairs(assigned)
    for code in _codes(_ranges(assigned), leave_out=_PLAIN):
        character = chr(code)
        once = unicode32.normalize("NFKC", character).casefold()
        form = _folded(character, runs)
        if _joins_backwards(character, second) or (assigned[ord(once[0])] and _joins_backwards(once, second)):
            classes[code] = COMPLEX
        elif form != character:
            data = form.encode()
            classes[code], places[code] = MAPPED, len(forms)
            forms += bytes([len(data)]) + data
    for number, ranges in ((SPACE, _SPACES), (REMOVED, _REMOVED)):
        for first, last in ranges:
            classes[first : last + 1] = number
    first_step: dict[int, str | None] = dict.fromkeys(_codes(_SPACES), " ")
    first_step.update(dict.fromkeys(_codes(_REMOVED)))
    marks = "".join(_escaped(first, last) for first, last in _ranges(classes == COMPLEX))
    many = re.compile(f"[{marks}]{{{_MANY}}}")
    made = Tables(classes, places, np.frombuffer(bytes(forms), np.uint8), first_step, runs, many)
    _check(made, assigned)
    return made


def _check(made: Tables, assigned: NDArray[np.bool_]) -> None:
    hasher = hashlib.sha256()
    for array in (assigned.astype(np.uint8), made.classes, made.places.astype("<i4"), made.forms):
        hasher.update(array.tobytes())
    if hasher.hexdigest() != _DIGEST:
        raise EnvironmentFailure(
            f"view text-norm/1: this Python's Unicode 3.2.0 and case-folding tables give {hasher.hexdigest()}, "
            f"not {_DIGEST}; use CPython 3.11 to 3.13"
        )


def _assigned() -> NDArray[np.bool_]:
    """By code point: whether Unicode 3.2.0 assigned it (General_Category is not Cn; surrogates left out)."""
    category = unicode32.category
    found = np.fromiter((category(chr(code)) != "Cn" for code in range(_CODES)), np.bool_, _CODES)
    found[_SURROGATES.start : _SURROGATES.stop] = False
    return found


def _ranges(marked: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def _codes(ranges: Iterable[tuple[int, int]], leave_out: Iterable[tuple[int, int]] = ()) -> Iterator[int]:
    skipped = dict(leave_out)
    for first, last in ranges:
        code = first
        while code <= last:
            if code in skipped:
                code = skipped[code]
            else:
                yield code
            code += 1


def _escaped(first: int, last: int) -> str:
    return f"\\U{first:08x}-\\U{last:08x}"


def _second_of_pairs(assigned: NDArray[np.bool_]) -> set[str]:
    """Characters that canonical composition may join to the one before: second of a pair, or vowel or final Jamo."""
    found = {chr(code) for first, last in ((0x1161, 0x1175), (0x11A8, 0x11C2)) for code in range(first, last + 1)}
    for code in _codes(_ranges(assigned), leave_out=_PLAIN):
        parts = unicode32.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(chr(int(parts[1], 16)))
    return found


def _joins_backwards(text: str, second: set[str]) -> bool:
    first = unicode32.normalize("NFKD", text[0])[0]
    return bool(unicode32.combining(first)) or first in second
