"""Winnowing: of every 26 neighbouring grams one is selected, by what stands in them and nothing else.

Spec: `specs/views/winnow50-1.md` and `winnow50-tokens-1.md`, after Schleimer, Wilkerson, Aiken (SIGMOD 2003). Grams
have 25 elements, so a run of 50 elements in common is a window in common, and both sides select the same gram in it.
The hash only selects; keys are made from BLAKE3.

Shows: without a key in common, no run of 50 elements is in common. Does not show: shorter runs.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pot.commitments.spans import Spans
from pot.data.views.grams import GramKeys, Role, Stream, keys_at
from pot.data.views.kernel import kernel
from pot.errors import Malformed

__all__ = ["GRAM", "WINDOW", "gram_hashes", "selected", "selected_plainly", "token_stream", "winnowed"]

GRAM: Final = 25  # elements
WINDOW: Final = 26  # grams: 50 elements

_BASE: Final = np.uint64(0x9E3779B97F4A7C15)
_AT_ONCE: Final = 1 << 16  # windows of one step of the plain definition

Values = NDArray[np.uint8] | NDArray[np.uint32]
Selection = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def winnowed(spans: Spans, role: Role, key: bytes | None) -> GramKeys:
    """The keys of normalised texts, alike in both roles."""
    data = np.ascontiguousarray(spans.data)
    starts, _, counts = selected(data, np.ascontiguousarray(spans.offsets), short=True)
    return counts, keys_at(data, starts, GRAM, key)


def token_stream(role: Role, key: bytes | None) -> Stream:
    """Winnowing over a shard's token ids (4 bytes each) as one sequence, whatever the batches.

    A gram counts for the record in which the first window that selects it ends. Raises, when called, `Malformed` where
    a record is not whole tokens.
    """
    held = np.empty(0, np.uint8)  # the last 50 tokens, or all: the last window that was looked at

    def take(spans: Spans) -> GramKeys:
        nonlocal held
        if np.any(np.diff(spans.offsets) % 4):
            raise Malformed("a record of tokens is not a whole number of 4-byte token ids")
        data = np.concatenate([held, spans.data[spans.offsets[0] : spans.offsets[-1]]])
        tokens = data.view("<u4").astype(np.uint32, copy=False)
        starts, ends, _ = selected(tokens, np.array([0, len(tokens)]), short=False)
        known = len(held) // 4
        if known == GRAM + WINDOW - 1:  # the first window is the held one, and selected before
            starts, ends = starts[1:], ends[1:]
        bounds = (spans.offsets[1:] - spans.offsets[0]) // 4
        records = np.searchsorted(bounds, ends - known, side="right")
        held = data[-4 * (GRAM + WINDOW - 1) :].copy()
        return np.bincount(records, minlength=len(spans)).astype(np.int64), keys_at(data, 4 * starts, 4 * GRAM, key)

    return take


def selected(values: Values, offsets: NDArray[np.int64], *, short: bool) -> Selection:
    """The grams that winnowing selects in each record values[offsets[i]:offsets[i + 1]] (uint8 or uint32).

    Returns the first value of each gram, the last value of the first window that selects it, and by record how many
    they are, int64 each. A gram that equals the one selected before it is left out. `short`: in a record of fewer than
    26 grams, all of them are the one window; else it has none.
    """
    size = int(offsets[-1] - offsets[0])
    lanes: Any = kernel(size * values.itemsize)
    if lanes is None:
        return selected_plainly(values, offsets, short=short)
    counts = np.empty(len(offsets) - 1, np.int64)
    starts, ends = np.empty(size, np.int64), np.empty(size, np.int64)
    total = lanes.winnow(values, offsets, GRAM, WINDOW, short, starts, ends, counts)
    return starts[:total].copy(), ends[:total].copy(), counts


def selected_plainly(values: Values, offsets: NDArray[np.int64], *, short: bool) -> Selection:
    """The same without compiled code."""
    parts = [_selected_in(values[a:b], short) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    counts = np.array([len(starts) for starts, _ in parts], np.int64)
    shift = np.repeat(offsets[:-1], counts)
    nothing = np.empty(0, np.int64)
    return (
        np.concatenate([nothing, *(starts for starts, _ in parts)]) + shift,
        np.concatenate([nothing, *(ends for _, ends in parts)]) + shift,
        counts,
    )


def gram_hashes(values: Values, length: int) -> NDArray[np.uint64]:
    """The hash of each gram of `length` values: a polynomial modulo 2^64, then SplitMix64's finaliser (Steele 2014)."""
    count = max(0, len(values) - length + 1)
    found = np.zeros(count, np.uint64)
    for step in range(length):
        found = found * _BASE + values[step : step + count]
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


def _selected_in(values: Values, short: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first value of each gram, last value of the first window that selects it) in one record."""
    grams = len(values) - GRAM + 1
    window = min(WINDOW, grams) if short else WINDOW
    if grams < window or window < 1:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    places = np.concatenate([_least(values, at, window) for at in range(0, grams - window + 1, _AT_ONCE)])
    new = np.flatnonzero(np.diff(places, prepend=-1))
    starts = places[new]
    rows = values[starts[:, None] + np.arange(GRAM)]
    kept = np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])
    return starts[kept], (new + window - 1 + GRAM - 1)[kept]


def _least(values: Values, at: int, window: int) -> NDArray[np.int64]:
    """For windows from `at` on: the place of the rightmost least hash."""
    hashes = gram_hashes(values[at : at + _AT_ONCE + window + GRAM - 2], GRAM)
    windows = np.lib.stride_tricks.sliding_window_view(hashes, window)
    places: NDArray[np.int64] = at + np.arange(len(windows)) + window - 1 - windows[:, ::-1].argmin(axis=1)
    return places
