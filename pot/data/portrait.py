"""Data portraits, making: a compact, canonical sketch of a dataset's keys at a chosen rate of false "maybe".

Spec: `specs/commitments.md`, "Portrait". Sorted gaps between the keys' top bits, Golomb-Rice coded: about
log2(1 / rate) + 2 bits per key, where a Bloom filter takes 1.44 log2(1 / rate).

Shows / does not show: see `pot.data.portrait_verify`, which holds the checks.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from pot.commitments.setree_arrays import Keys, check_keys, distinct
from pot.data.portrait_verify import Portrait, PortraitHeader, check_portrait, entries_of, rice_for
from pot.errors import Refused, UsageError

if TYPE_CHECKING:
    from pot.commitments.dataset import DatasetCommitment

__all__ = ["bits_for", "make_portrait"]

_ROWS: Final = 1 << 17  # rows of eight remainders packed at a time
_BLOCK: Final = 1 << 23  # bits of quotients packed at a time


def bits_for(count: int, rate: float) -> int:
    """ceil(log2(count / rate)), at most 64: bits of each of `count` keys that keep false answers at `rate` or below.

    Exact: the least b with 2^b · rate >= count. Raises `UsageError` unless 0 < rate < 1.
    """
    if not 0 < rate < 1:
        raise UsageError(f"portrait: the rate of false answers is {rate}; give one between 0 and 1")
    wanted = -(-Fraction(count) // Fraction(rate))
    return min(64, (int(wanted) - 1).bit_length())


def make_portrait(commitment: DatasetCommitment, keys: Keys, rate: float) -> Portrait:
    """The portrait of the committed set. `keys`: all its keys, uint64, any order. Memory: about 40 bytes per key.

    Raises `UsageError` for another rate than between 0 and 1, or keys that are not the commitment's set.
    """
    held = distinct(check_keys(keys, "portrait"))
    count = int(commitment.set.count)
    if len(held) != count:
        raise UsageError(f"portrait: {len(held)} distinct keys, the commitment's set has {count}")
    bits = bits_for(count, rate)
    entries = entries_of(held, bits)
    rice = rice_for(count, bits)
    header = PortraitHeader(
        version="pot/portrait/v1",
        commitment_sha256=commitment.sha256(),
        view=commitment.view,
        set_root_blake3=commitment.set.root_blake3,
        set_count=commitment.set.count,
        bits=str(bits),
        rice=str(rice),
        entries=str(len(entries)),
        hiding=commitment.hiding,
    )
    portrait = Portrait(header, entries, _encode(entries, rice))
    try:
        check_portrait(portrait, commitment, held)
    except Refused as error:
        raise UsageError(f"the keys do not belong to the commitment: {error}") from None
    return portrait


def _encode(entries: Keys, rice: int) -> bytes:
    """The bit stream: all remainders, then all quotients in unary, then zeros up to a whole byte."""
    gaps = np.diff(entries) - np.uint64(1)
    gaps = np.concatenate([entries[:1], gaps])
    head = _pack(gaps & np.uint64((1 << rice) - 1), rice)
    first_bit = len(entries) * rice
    ends = np.cumsum((gaps >> np.uint64(rice)).astype(np.int64) + 1) - 1
    tail = _unary(ends + (first_bit & 7))
    if first_bit & 7:
        tail[0] |= head[first_bit >> 3]
    return head[: first_bit >> 3].tobytes() + tail.tobytes()


def _unary(places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Bytes in which exactly the bits at the ascending `places` are set."""
    total = -(-(int(places[-1]) + 1) // 8) * 8
    blocks = []
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        bits = np.zeros(stop - start, np.bool_)
        first, last = np.searchsorted(places, [start, stop])
        bits[places[first:last] - start] = True
        blocks.append(np.packbits(bits))
    return np.concatenate(blocks)


def _pack(numbers: Keys, width: int) -> NDArray[np.uint8]:
    """Numbers of `width` bits, most significant bit first, in rows of eight numbers, the last row filled with 0."""
    rows = -(-len(numbers) // 8)
    out = np.zeros((rows, width), np.uint8)
    for start in range(0, rows, _ROWS):
        part = numbers[8 * start : 8 * (start + _ROWS)]
        block = np.zeros(-(-len(part) // 8) * 8, np.uint64)
        block[: len(part)] = part
        lanes = block.reshape(-1, 8).T.copy()
        target = out[start : start + len(block) // 8]
        for lane in range(8):
            end = (lane + 1) * width
            for byte in range(lane * width >> 3, -(-end // 8)):
                after = end - 8 * (byte + 1)  # bits of the number that follow this byte
                shifted = lanes[lane] >> np.uint64(after) if after >= 0 else lanes[lane] << np.uint64(-after)
                target[:, byte] |= shifted.astype(np.uint8)
    return out.reshape(-1)
