"""Sorting many uniformly spread 64-bit keys: a radix sort on as many leading bits as tell most keys apart.

Keys of a set tree are digests, so log2(n) + 2 leading bits leave a fraction of them together; a pass of insertions,
which touches hardly any key then, finishes the order. Where keys are not spread (somebody ground prefixes, or they are
no digests) the insertions exceed their budget and the caller sorts in another way: never in quadratic time.

Importing this module compiles it (a second) or loads it from Numba's cache; `pot.commitments.setree_arrays` does so
where there is much to sort. Eight times as fast as `numpy.sort` on 10^7 keys, whose vector code is slow on some
processors with AVX-512.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

__all__ = ["deal", "radix_sort"]

_WIDTH: Final = 9  # bits of one pass: its 512 places fit the first-level cache and the address cache
_BUDGET: Final = 4  # moves per key; spread keys take 0.2

_KEYS: Final = types.Array(types.uint64, 1, "C")
_KEYS_READ: Final = types.Array(types.uint64, 1, "C", readonly=True)


def _compiled(function: Any, *signatures: Any) -> Any:
    """Compile now, or load from the cache; go without a cache where none can be written."""
    try:
        return njit(list(signatures), nogil=True, cache=True)(function)
    except (RuntimeError, OSError):
        return njit(list(signatures), nogil=True)(function)


def _deal(source, target, shift, places):
    """Copy `source` to `target`, ordered by the bits from `shift` on that number `places`, which become their ends."""
    mask, by = np.uint64(len(places) - 1), np.uint64(shift)
    places[:] = 0
    for key in source:
        places[np.int64((key >> by) & mask)] += 1
    total = 0
    for number in range(len(places)):
        total, places[number] = total + places[number], total
    for key in source:
        place = np.int64((key >> by) & mask)
        target[places[place]] = key
        places[place] += 1


def _insert(keys, budget):
    """Sort in place by insertion; False, and `keys` in some order, once more than `budget` moves were made."""
    for at in range(1, len(keys)):
        key, place = keys[at], at
        while place > 0 and keys[place - 1] > key:
            keys[place] = keys[place - 1]
            place -= 1
            budget -= 1
            if budget < 0:
                keys[place] = key
                return False
        keys[place] = key
    return True


_PLACES: Final = types.Array(types.int64, 1, "C")
_deal = _compiled(
    _deal,
    types.void(_KEYS, _KEYS, types.int64, _PLACES),
    types.void(_KEYS_READ, _KEYS, types.int64, _PLACES),
)
_insert = _compiled(_insert, types.boolean(_KEYS, types.int64))


def deal(keys: NDArray[np.uint64], first_bit: int, width: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A copy of `keys` ordered by `width` bits from `first_bit` (0: the lowest) on, and where each value's keys end."""
    out, ends = np.empty(len(keys), np.uint64), np.empty(1 << width, np.int64)
    _deal(np.ascontiguousarray(keys), out, first_bit, ends)
    return out, ends


def radix_sort(keys: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
    """A sorted copy of `keys` (one row, native order), or None where they are not spread. Memory: two copies."""
    if len(keys) < 2:
        return keys.copy()
    spread = (int(keys.min()) ^ int(keys.max())).bit_length()  # bits above are the same for all
    passes = -(-min(spread, len(keys).bit_length() + 2) // _WIDTH)
    source, spare = np.ascontiguousarray(keys), [np.empty_like(keys), np.empty_like(keys)]
    places = np.empty(1 << _WIDTH, np.int64)
    first = max(0, spread - passes * _WIDTH)
    for number in range(passes):
        target = spare[number & 1]
        _deal(source, target, first + number * _WIDTH, places)
        source = target
    if not passes:
        return keys.copy()
    return source if _insert(source, _BUDGET * len(keys)) else None
