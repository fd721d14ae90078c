"""`minhash/1`: MinHash over 9-byte shingles of normalised text, 112 permutations in 14 bands of 8 rows.

Spec: `specs/views/minhash-1.md`, after Broder (1997) and Indyk, Motwani (1998), with the probability that two texts
of a given Jaccard similarity share a band.

Shows: without a key in common, no two texts are a candidate pair of this locality-sensitive hash. Does not show: that
no two are similar; how likely a similar pair would be found is the specification's curve.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pot.canonical import derive
from pot.commitments.batch import hash_rows, keys_of
from pot.commitments.spans import Spans
from pot.data.views.grams import GramKeys, Role
from pot.data.views.kernel import kernel
from pot.data.views.winnow import gram_hashes

__all__ = ["BANDS", "ROWS", "SHINGLE", "band_keys", "least_values", "least_values_plainly"]

SHINGLE: Final = 9  # bytes
BANDS: Final = 14
ROWS: Final = 8

_GREATEST: Final = 0xFFFFFFFF
_AT_ONCE: Final = 1 << 14  # shingles of one step of the plain definition


def band_keys(spans: Spans, role: Role, key: bytes | None) -> GramKeys:
    """The keys of normalised texts: 14 each, none for those under 9 bytes; alike in both roles."""
    long = np.diff(spans.offsets) >= SHINGLE
    least = least_values(spans)[long]
    rows = np.empty((len(least), BANDS, 1 + 4 * ROWS), np.uint8)
    rows[:, :, 0] = np.arange(BANDS)
    rows[:, :, 1:] = least.astype("<u4").view(np.uint8).reshape(len(least), BANDS, 4 * ROWS)
    return np.where(long, BANDS, 0), keys_of(hash_rows(rows.reshape(-1, 1 + 4 * ROWS), key))


def least_values(spans: Spans) -> NDArray[np.uint32]:
    """By record the least value of each permutation, uint32 (n, 112); all bits set where there is no shingle."""
    lanes: Any = kernel(spans.size)
    if lanes is None:
        return least_values_plainly(spans)
    least = np.full((len(spans), BANDS * ROWS), _GREATEST, np.uint32)
    data, offsets = np.ascontiguousarray(spans.data), np.ascontiguousarray(spans.offsets)
    lanes.minhash(data, offsets, SHINGLE, *_permutations(), least)
    return least


def least_values_plainly(spans: Spans) -> NDArray[np.uint32]:
    """The same without compiled code."""
    least = np.full((len(spans), BANDS * ROWS), _GREATEST, np.uint32)
    factors, terms = _permutations()
    for number, row in enumerate(least):
        data = spans.data[spans.offsets[number] : spans.offsets[number + 1]]
        for at in range(0, max(0, len(data) - SHINGLE + 1), _AT_ONCE):
            hashes = gram_hashes(data[at : at + _AT_ONCE + SHINGLE - 1], SHINGLE)
            values = (hashes >> np.uint64(32)).astype(np.uint32)[:, None] * factors + terms
            np.minimum(row, values.min(axis=0), out=row)
    return least


@lru_cache(maxsize=1)
def _permutations() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Factor (odd) and term of each permutation x -> factor x + term of the numbers below 2^32."""
    seeds = [derive("pot/minhash/v1", number.to_bytes(4, "little")) for number in range(BANDS * ROWS)]
    words = np.array([np.frombuffer(seed, "<u4")[:2] for seed in seeds], np.uint32)
    return np.ascontiguousarray(words[:, 0] | np.uint32(1)), np.ascontiguousarray(words[:, 1])
