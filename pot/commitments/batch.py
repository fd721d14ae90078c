"""Batch hashing: BLAKE3 of many short strings, windows or rows at once.

Spec: `specs/commitments.md`, "Hashes". With the extra [fast] (Numba) strings share the lanes of vector registers
(`pot.commitments.blake3_lanes`); without it, and for few or long strings, `blake3` hashes one after the other. The
bytes are the same. The compiled code is loaded, or compiled once per machine, only where a process has much to hash.

Shows: nothing by itself; it is how digests are calculated.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pot.commitments.compiled import Compiled
from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.spans import Spans
from pot.errors import UsageError

__all__ = ["accelerated", "hash_pairs", "hash_rows", "hash_spans", "hash_windows", "keys_of", "load_kernel"]

KEY_BYTES: Final = 32
_KERNEL: Final = Compiled(
    "pot.commitments.blake3_lanes",
    "hash_halves",
    patience=1 << 17,  # strings: 0.1 s, where loading takes 0.5 s
    few=16,
    purpose="hashing",
)


def accelerated() -> bool:
    """Whether large batches go through the compiled kernel."""
    return _KERNEL.usable


def load_kernel() -> bool:
    """Load the kernel now (for benchmarks and long jobs), and say whether it can be used."""
    return _KERNEL.load()


def hash_spans(spans: Spans, key: bytes | None = None) -> NDArray[np.uint8]:
    """BLAKE3-256 of every string, keyed if `key` (32 bytes) is given: uint8 of shape (n, 32). Raises `UsageError`."""
    spans.check()
    return _hash_strings(spans.data, spans.offsets[:-1], spans.offsets[1:], key)


def hash_windows(
    data: NDArray[np.uint8], starts: NDArray[np.int64], length: int, key: bytes | None = None
) -> NDArray[np.uint8]:
    """BLAKE3-256 of data[s:s + length] for every s of `starts`: uint8 of shape (n, 32). Raises `UsageError`.

    `data`: one row of uint8. Windows may overlap and come in any order.
    """
    if data.ndim != 1 or data.dtype != np.uint8 or starts.ndim != 1 or starts.dtype != np.int64 or length < 0:
        raise UsageError("windows: data must be a row of uint8, starts a row of int64, the length not negative")
    if len(starts) and (starts.min() < 0 or starts.max() > len(data) - length):
        raise UsageError(f"windows: a window of {length} bytes is not within the {len(data)} bytes of data")
    return _hash_strings(data, starts, starts + length, key)


def hash_pairs(level: NDArray[np.uint8], key: bytes) -> NDArray[np.uint8]:
    """Keyed BLAKE3-256 of each pair of rows of a tree's level, (2m, 32): uint8 (m, 32). Raises `UsageError`."""
    if level.ndim != 2 or level.shape[1] != DIGEST_BYTES or len(level) & 1:
        raise UsageError(f"pairs: a level must be an even number of rows of {DIGEST_BYTES} bytes, not {level.shape}")
    return hash_rows(np.ascontiguousarray(level).reshape(-1, 2 * DIGEST_BYTES), key)


def hash_rows(rows: NDArray[np.uint8], key: bytes | None = None) -> NDArray[np.uint8]:
    """BLAKE3-256 of each row of (n, w), keyed if `key` (32 bytes) is given: uint8 (n, 32). Raises `UsageError`."""
    if rows.ndim != 2 or rows.dtype != np.uint8:
        raise UsageError("rows: must be a table of uint8")
    count, width = rows.shape
    rows = np.ascontiguousarray(rows)
    kernel = _KERNEL.take(count) if width in (DIGEST_BYTES, 2 * DIGEST_BYTES) else None
    if kernel is None:
        starts = np.arange(count, dtype=np.int64) * width
        return _hash_strings(rows.reshape(-1), starts, starts + width, key)
    out = np.empty((count, DIGEST_BYTES), np.uint8)
    hashed = kernel.hash_halves if width == DIGEST_BYTES else kernel.hash_pairs
    hashed(rows, *_key_words(kernel, key), out)
    return out


def keys_of(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The set key of each digest, (n, 32): its first 8 bytes, big endian, as native uint64 of shape (n,)."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def _hash_strings(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], key: bytes | None
) -> NDArray[np.uint8]:
    """The digests of data[starts[i]:ends[i]], whose bounds were checked."""
    kernel = _KERNEL.take(len(starts))
    if kernel is None:
        return _hash_plainly(data, starts, ends, key)
    out = np.empty((len(starts), DIGEST_BYTES), np.uint8)
    arrays = [np.ascontiguousarray(array) for array in (data, starts, ends)]
    kernel.hash_strings(*arrays, *_key_words(kernel, key), out)
    long = np.flatnonzero(ends - starts > kernel.MAX_LENGTH)  # the kernel leaves them out
    if len(long):
        out[long] = _hash_plainly(data, starts[long], ends[long], key)
    return out


def _hash_plainly(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], key: bytes | None
) -> NDArray[np.uint8]:
    _check_key(key)
    hasher = blake3() if key is None else blake3(key=key)
    view = memoryview(np.ascontiguousarray(data).data)
    digests = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        hasher.reset()
        hasher.update(view[start:end])
        digests.append(hasher.digest())
    return np.frombuffer(bytearray(b"".join(digests)), np.uint8).reshape(-1, DIGEST_BYTES)


def _key_words(kernel: Any, key: bytes | None) -> tuple[NDArray[np.uint32], int]:
    """The key as the kernel takes it: eight words, and the flag for keyed hashing."""
    _check_key(key)
    if key is None:
        return np.array(kernel.IV, np.uint32), 0
    return np.frombuffer(key, "<u4").astype(np.uint32), kernel.KEYED


def _check_key(key: bytes | None) -> None:
    if key is not None and len(key) != KEY_BYTES:
        raise UsageError(f"batch hashing: the key has {len(key)} bytes, expected {KEY_BYTES}")
