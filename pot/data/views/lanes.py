"""Compiled loops of the text views: normalising, winnowing, MinHash, each over a whole batch of records.

Spec: `specs/views/`; plain definitions of the same: `pot.data.views.normalise`, `pot.data.views.winnow`,
`pot.data.views.minhash`. All in one file, because Numba's cache notices changes of the file that holds the compiled
functions, and of no other. Importing this module compiles it (some seconds) or loads it from Numba's cache;
`pot.data.views.kernel` does so when there is enough to do.

Shows / does not show: nothing by itself.
"""

# Compiled functions have their types from the signatures at the end.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
# mypy: disable-error-code="attr-defined, assignment"

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import config, njit, types

if config.DISABLE_JIT:
    raise ImportError("Numba's compiler is switched off")

__all__ = ["BAD", "DONE", "FULL", "minhash", "normalise", "winnow"]

DONE: Final = 0
FULL: Final = 1  # the output is too short
BAD: Final = 2  # a record is not UTF-8

_RING: Final = 64  # the hashes that a window can reach back to; a power of two above it
_BASE: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_LAST: Final = np.uint64(0xFFFFFFFFFFFFFFFF)


def _compiled(function: Any, *signatures: Any) -> Any:
    """Compile now, or load from the cache; go without a cache where none can be written."""
    try:
        return njit(list(signatures), nogil=True, cache=True)(function)
    except (RuntimeError, OSError):
        return njit(list(signatures), nogil=True)(function)


@njit(inline="always")
def _code_at(data, at, end):
    """(code point, its bytes) of the character at a byte that is not ASCII; 0 bytes where it is not UTF-8."""
    first = np.int64(data[at])
    if first < 0xC2 or first > 0xF4:
        return 0, 0
    length = 2 + (first >= 0xE0) + (first >= 0xF0)
    if at + length > end:
        return 0, 0
    code = first & (0x7F >> length)
    for place in range(at + 1, at + length):
        byte = np.int64(data[place])
        if byte & 0xC0 != 0x80:
            return 0, 0
        code = code << 6 | byte & 0x3F
    if length == 3 and (code < 0x800 or code >> 11 == 0x1B):  # overlong, surrogate
        return 0, 0
    if length == 4 and (code < 0x10000 or code > 0x10FFFF):
        return 0, 0
    return code, length


@njit(inline="always")
def _append(out, at, space, source, start, end):
    """Copy bytes whose only white space is U+0020 and collapse it: (next place, whether a space stands last)."""
    for place in range(start, end):
        byte = source[place]
        is_space = byte == 32
        out[at] = byte
        at += not (is_space and space)
        space = is_space
    return at, space


def _normalise(data, offsets, small, classes, places, forms, ends, fill_at, fill, out, out_offsets, found):
    """Normalise every record. `small`: what ASCII bytes become, 0: nothing. `out`: 64 bytes longer than the data.

    Words with a COMPLEX character are written as (start, end) to `found` if `fill_at` is empty, and their number is
    returned; then what was put out is of no use. Otherwise the k-th is replaced by `fill[fill_at[k]:fill_at[k + 1]]`
    (by which `out` must be longer) and ends at `ends[k]`. Returns (DONE, words), (FULL, record) or (BAD, record).
    """
    filling = len(fill_at) > 0
    words = 0
    at = np.int64(0)
    slack = len(out) - (offsets[-1] - offsets[0]) - 64
    if filling:
        slack -= len(fill)
    out_offsets[0] = 0
    for record in range(len(offsets) - 1):
        i, end = offsets[record], offsets[record + 1]
        space = True
        word, before_word = i, at
        while i < end:
            byte = data[i]
            if byte < 128:
                form = small[byte]
                is_space = form == 32
                out[at] = form
                at += (form != 0) & ~(is_space & space)
                space = is_space | (space & (form == 0))
                i += 1
                word = i if is_space else word
                before_word = at if is_space else before_word
                continue
            code, length = _code_at(data, i, end)
            if length == 0:
                return BAD, np.int64(record)
            kind = classes[code]
            if kind == 0:
                for _ in range(length):
                    out[at] = data[i]
                    at += 1
                    i += 1
                space = False
            elif kind == 1:
                out[at] = 32
                at += not space
                space = True
                i += length
                word, before_word = i, at
            elif kind == 2:
                i += length
            elif kind == 3:
                place = places[code]
                size = np.int64(forms[place])
                slack -= max(size - length, 0)
                if slack < 0:
                    return FULL, np.int64(record)
                at, space = _append(out, at, space, forms, place + 1, place + 1 + size)
                i += length
            elif filling:
                at, space = _append(out, before_word, True, fill, fill_at[words], fill_at[words + 1])
                i = ends[words]
                words += 1
            else:
                while i < end:
                    if data[i] < 128:
                        if small[data[i]] == 32:
                            break
                        i += 1
                        continue
                    code, length = _code_at(data, i, end)
                    if length == 0:
                        return BAD, np.int64(record)
                    if classes[code] == 1:
                        break
                    i += length
                found[words, 0] = word
                found[words, 1] = i
                words += 1
        if at > out_offsets[record] and out[at - 1] == 32:
            at -= 1
        out_offsets[record + 1] = at
    return DONE, np.int64(words)


@njit(inline="always")
def _mixed(x):
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


@njit(inline="always")
def _same(values, one, other, length):
    for step in range(length):  # noqa: SIM110 - compiled
        if values[one + step] != values[other + step]:
            return False
    return True


@njit(inline="always")
def _power(exponent):
    found = np.uint64(1)
    for _ in range(exponent):
        found *= _BASE
    return found


def _winnow(values, offsets, length, window, short, starts, ends, counts):
    """Select grams of `length` values, as `pot.data.views.winnow.selected`; returns how many.

    `starts`, `ends`: first value of each gram, last value of the first window that selects it. `counts`: by record.
    """
    ring = np.empty(_RING, np.uint64)
    gone = _power(length)
    total = np.int64(0)
    for record in range(len(offsets) - 1):
        begin = offsets[record]
        grams = offsets[record + 1] - begin - length + 1
        first = total
        if grams >= window or (short and grams >= 1):
            rolling = np.uint64(0)
            for step in range(length - 1):
                rolling = rolling * _BASE + np.uint64(values[begin + step])
            left = np.uint64(0)
            best, best_value = np.int64(0), _LAST
            last, last_value = np.int64(-1), np.uint64(0)
            ready = min(window, grams) - 1
            for gram in range(grams):
                rolling = rolling * _BASE + (np.uint64(values[begin + gram + length - 1]) - left)
                left = np.uint64(values[begin + gram]) * gone
                value = _mixed(rolling)
                ring[gram & (_RING - 1)] = value
                if value <= best_value:
                    best, best_value = gram, value
                elif best + window <= gram:
                    best, best_value = gram, value
                    for other in range(gram - 1, gram - window, -1):
                        earlier = ring[other & (_RING - 1)]
                        if earlier < best_value:
                            best, best_value = other, earlier
                if gram >= ready and best != last:
                    again = last >= 0 and last_value == best_value and _same(values, begin + last, begin + best, length)
                    if not again:
                        starts[total] = begin + best
                        ends[total] = begin + gram + length - 1
                        total += 1
                    last, last_value = best, best_value
        counts[record] = total - first
    return total


def _minhash(data, offsets, length, factors, terms, least):
    """The least value of each permutation over a record's grams, into `least`, which holds the greatest value."""
    gone = _power(length)
    for record in range(len(offsets) - 1):
        begin = offsets[record]
        grams = offsets[record + 1] - begin - length + 1
        row = least[record]
        rolling = np.uint64(0)
        for step in range(min(length - 1, grams + length - 1)):
            rolling = rolling * _BASE + np.uint64(data[begin + step])
        left = np.uint64(0)
        for gram in range(grams):
            rolling = rolling * _BASE + (np.uint64(data[begin + gram + length - 1]) - left)
            left = np.uint64(data[begin + gram]) * gone
            short = np.uint32(_mixed(rolling) >> np.uint64(32))
            for number in range(len(factors)):
                row[number] = min(row[number], np.uint32(short * factors[number] + terms[number]))


def _read(kind: Any, dimensions: int = 1) -> Any:
    return types.Array(kind, dimensions, "C", readonly=True)


def _write(kind: Any, dimensions: int = 1) -> Any:
    return types.Array(kind, dimensions, "C")


_BYTES, _PLACES = _read(types.uint8), _read(types.int64)

normalise: Final = _compiled(
    _normalise,
    types.UniTuple(types.int64, 2)(
        *(_BYTES, _PLACES, _BYTES, _BYTES, _read(types.int32), _BYTES, _PLACES, _PLACES, _BYTES),
        *(_write(types.uint8), _write(types.int64), _write(types.int64, 2)),
    ),
)
winnow: Final = _compiled(
    _winnow,
    *(
        types.int64(
            *(_read(kind), _PLACES, types.int64, types.int64, types.boolean),
            *(_write(types.int64), _write(types.int64), _write(types.int64)),
        )
        for kind in (types.uint8, types.uint32)
    ),
)
minhash: Final = _compiled(
    _minhash,
    types.void(_BYTES, _PLACES, types.int64, _read(types.uint32), _read(types.uint32), _write(types.uint32, 2)),
)
