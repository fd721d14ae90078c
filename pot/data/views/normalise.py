"""Normalising the texts of a batch, for `text-norm/1` and the views of runs of text.

Spec: `specs/views/text-norm-1.md`. A text without characters that reach backwards is normalised byte by byte from
tables; in others, the words with such characters are normalised by themselves and put into their places. That is the
same, because nothing in NFKC passes U+0020: no character decomposes to one that composes with it, in either order, and
its combining class is 0, so that no reordering crosses it. The same holds between two characters of which the second
does not reach backwards (`COMPLEX` in `pot.data.views.unicode32`).

Shows / does not show: two texts with the same normalised form differ in case, white space, Unicode form or invisible
characters at most. Other letters of the same shape (homoglyphs) stay other letters.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pot.commitments.spans import Spans
from pot.data.views.kernel import kernel
from pot.data.views.unicode32 import Tables, normalised, tables
from pot.errors import Malformed

__all__ = ["normalise", "normalise_plainly"]

_WHITE: Final = bytes([*range(0x09, 0x0E), *range(0x1C, 0x21)])
_GONE: Final = bytes([*range(0x09), *range(0x0E, 0x1C), 0x7F])
_SMALL: Final = bytes(32 if byte in _WHITE else byte + 32 if 0x41 <= byte <= 0x5A else byte for byte in range(256))
_CACHED: Final = 128  # bytes of the longest word that is worth remembering
_NO_TABLES: Final = np.zeros(1, np.uint8)
_NO_PLACES: Final = np.empty(0, np.int64)


def normalise(spans: Spans) -> Spans:
    """The normalised form of every string, UTF-8. Raises `Malformed` where one is not UTF-8."""
    lanes = kernel(spans.size)
    return normalise_plainly(spans) if lanes is None else _normalise(spans.check(), lanes)


def normalise_plainly(spans: Spans) -> Spans:
    """The same without compiled code."""
    return Spans.of(_normalise_one(data, number) for number, data in enumerate(spans.check()))


def _normalise_one(data: bytes, number: int) -> bytes:
    if data.isascii():
        return b" ".join(data.translate(_SMALL, _GONE).split())
    try:
        return normalised(data.decode()).encode()
    except UnicodeDecodeError:
        raise _not_utf8(number) from None


def _not_utf8(number: int) -> Malformed:
    return Malformed(f"text {number} of a batch is not UTF-8; text views need strings in UTF-8")


def _normalise(spans: Spans, lanes: Any) -> Spans:
    data, offsets = np.ascontiguousarray(spans.data), np.ascontiguousarray(spans.offsets)
    known = _tables_for(data[offsets[0] : offsets[-1]])
    found = np.empty((spans.size // 2 + 1, 2), np.int64)  # a word that is found has two bytes at least
    # ends of words with complex characters, places of their forms, the forms: none, until they were found
    words: tuple[NDArray[Any], ...] = (_NO_PLACES, _NO_PLACES, _NO_TABLES)
    room = spans.size + 64
    out_offsets = np.empty(len(offsets), np.int64)
    while True:
        out = np.empty(room + len(words[2]), np.uint8)
        status, number = lanes.normalise(data, offsets, _small(), *known, *words, out, out_offsets, found)
        if status == lanes.BAD:
            raise _not_utf8(int(number))
        if status == lanes.FULL:
            room = 2 * room + (1 << 12)  # at most four times: the longest form has 11 times the bytes of its character
        elif number and not len(words[0]):
            words = _forms_of(data, found[:number])
        else:
            return Spans(out[: out_offsets[-1]], out_offsets)


def _tables_for(data: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
    """Classes, places, forms; where all is ASCII nothing, because nothing is looked up."""
    if not len(data) or int(data.max()) < 0x80:
        return _NO_TABLES, np.zeros(1, np.int32), _NO_TABLES
    known: Tables = tables()
    return known.classes, known.places, known.forms


@lru_cache(maxsize=1)
def _small() -> NDArray[np.uint8]:
    return np.array([0 if byte in _GONE else _SMALL[byte] for byte in range(128)], np.uint8)


def _forms_of(data: NDArray[np.uint8], words: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    view = memoryview(data.data)
    forms = Spans.of(
        _form(bytes(view[start:end])) if end - start <= _CACHED else _form.__wrapped__(bytes(view[start:end]))
        for start, end in words.tolist()
    )
    return np.ascontiguousarray(words[:, 1]), forms.offsets, forms.data


@lru_cache(maxsize=1 << 16)
def _form(word: bytes) -> bytes:
    return normalised(word.decode()).encode()
