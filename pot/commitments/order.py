"""The data order: a keyed pseudo-random permutation with random access, in both directions.

Spec: `specs/commitments.md`, "Order" (method "feistel/1"). A balanced Feistel network over 2h bits, restricted to
0..size-1 by cycle walking: which record stands at a position is answered without making the whole permutation.

Shows: recomputed from seed, size and step, the order is the one that the method gives, and no other.
Does not show: that training used it; that is what replaying segments and step proofs are for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from blake3 import blake3

from pot.commitments.seed import expand
from pot.errors import UsageError

__all__ = [
    "MAX_ORDER_SIZE",
    "METHOD",
    "ROUNDS",
    "Permutation",
    "batch_records",
    "epoch_permutation",
    "steps_per_epoch",
]

METHOD: Final = "feistel/1"
ROUNDS: Final = 10
MIN_HALF_BITS: Final = 4  # a wider network than a tiny size needs: few rounds over 2 bits are visibly uneven
TABLE_HALF_BITS: Final = 12  # up to 4,096 values per round are remembered: 40 k integers
MAX_ORDER_SIZE: Final = 2**48


class Permutation:
    """A permutation of 0..size-1 fixed by a 32-byte key. `at` and `find` are each other's inverse."""

    def __init__(self, key: bytes, size: int) -> None:
        """Raises `UsageError` for a key that is not 32 bytes or a size outside 1..`MAX_ORDER_SIZE`."""
        if len(key) != 32:
            raise UsageError(f"order: the key has {len(key)} bytes, expected 32")
        if not 1 <= size <= MAX_ORDER_SIZE:
            raise UsageError(f"order: size {size} is not between 1 and {MAX_ORDER_SIZE}")
        self.size = size
        self._key = key
        self._half = max(MIN_HALF_BITS, ((size - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half) - 1
        self._tables: list[dict[int, int]] = [{} for _ in range(ROUNDS)]

    def at(self, position: int) -> int:
        """The record that stands at `position`. Raises `UsageError` outside 0..size-1."""
        self._check(position)
        value = self._forward(position)
        while value >= self.size:
            value = self._forward(value)
        return value

    def find(self, record: int) -> int:
        """The position at which `record` stands. Raises `UsageError` outside 0..size-1."""
        self._check(record)
        value = self._backward(record)
        while value >= self.size:
            value = self._backward(value)
        return value

    def slice(self, start: int, stop: int) -> list[int]:
        """The records at positions start..stop-1. Raises `UsageError` outside 0..size."""
        if not 0 <= start <= stop <= self.size:
            raise UsageError(f"order: positions {start}..{stop} are not inside 0..{self.size}")
        return [self.at(position) for position in range(start, stop)]

    def _check(self, value: int) -> None:
        if not 0 <= value < self.size:
            raise UsageError(f"order: {value} is not inside 0..{self.size - 1}")

    def _round(self, number: int, half: int) -> int:
        table = self._tables[number]
        known = table.get(half)
        if known is None:
            block = bytes([number]) + half.to_bytes(8, "little")
            known = int.from_bytes(blake3(block, key=self._key).digest(length=8), "little") & self._mask
            if self._half <= TABLE_HALF_BITS:
                table[half] = known
        return known

    def _forward(self, value: int) -> int:
        left, right = value >> self._half, value & self._mask
        for number in range(ROUNDS):
            left, right = right, left ^ self._round(number, right)
        return left << self._half | right

    def _backward(self, value: int) -> int:
        left, right = value >> self._half, value & self._mask
        for number in reversed(range(ROUNDS)):
            left, right = right ^ self._round(number, left), left
        return left << self._half | right


@lru_cache(maxsize=16)
def epoch_permutation(seed: bytes, size: int, epoch: int) -> Permutation:
    """The order of `size` records in epoch `epoch` (from 0) of the run with this seed. Raises `UsageError`."""
    if epoch < 0:
        raise UsageError(f"order: epoch {epoch} is negative")
    return Permutation(expand(seed, f"order/epoch/{epoch}"), size)


def steps_per_epoch(size: int, batch_size: int, drop_last: bool = True) -> int:
    """Optimizer steps in one epoch. Raises `UsageError` where there would be none."""
    if batch_size < 1 or size < 1:
        raise UsageError(f"order: {size} records in batches of {batch_size} give no step")
    steps = size // batch_size if drop_last else -(-size // batch_size)
    if steps < 1:
        raise UsageError(f"order: a batch of {batch_size} is larger than the {size} records; lower the batch size")
    return steps


def batch_records(
    seed: bytes, size: int, batch_size: int, step: int, drop_last: bool = True
) -> tuple[int, int, list[int]]:
    """The batch of step `step` (from 1): its epoch (from 0), the position of its first record (from 0), its records.

    Raises `UsageError`.
    """
    per_epoch = steps_per_epoch(size, batch_size, drop_last)
    if step < 1:
        raise UsageError(f"order: step {step} is below 1")
    epoch, within = divmod(step - 1, per_epoch)
    first = within * batch_size
    records = epoch_permutation(seed, size, epoch).slice(first, min(first + batch_size, size))
    return epoch, first, records
