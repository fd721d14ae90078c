"""The data order: a keyed pseudo-random permutation with random access, in both directions.

Spec: `specs/commitments.md`, "Order" (method "feistel/1"). A balanced Feistel network over 2h bits, restricted to
0..size-1 by cycle walking: which record stands at a position is answered without making the whole permutation.

Shows: recomputed from seed, size and step, the order is the one that the method gives, and no other.
Does not show: that training used it; that is what replaying segments and step proofs are for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from pot.commitments.seed import expand
from pot.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
TABLE_HALF_BITS: Final = 15  # up to 32,768 values per round are remembered as they come: 25 MB where all are used
MAX_TABLE_HALF_BITS: Final = 17  # up to 131,072 by arrays: 10 MB
MANY: Final = 128  # positions from which on whole arrays are faster than one after the other
BLOCK: Final = 1 << 13  # positions at once: their arrays stay in the processor's cache
MAX_ORDER_SIZE: Final = 2**48


class _Round(dict[int, int]):
    """One round's function, half -> half; what was asked for is remembered where the network is narrow enough."""

    def __init__(self, key: bytes, number: int, half_bits: int) -> None:
        super().__init__()
        self._key = key
        self._number = bytes([number])
        self._mask = (1 << half_bits) - 1
        self._remember = half_bits <= TABLE_HALF_BITS

    def __missing__(self, half: int) -> int:
        digest = blake3(self._number + half.to_bytes(8, "little"), key=self._key).digest(length=8)
        value = int.from_bytes(digest, "little") & self._mask
        if self._remember:
            self[half] = value
        return value


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
        self._rounds = [_Round(key, number, self._half) for number in range(ROUNDS)]
        self._served = 0
        self._tables: Any = None

    def at(self, position: int) -> int:
        """The record that stands at `position`. Raises `UsageError` outside 0..size-1."""
        self._check(position)
        return self._forward([position])[0]

    def find(self, record: int) -> int:
        """The position at which `record` stands. Raises `UsageError` outside 0..size-1."""
        self._check(record)
        value = self._backward(record)
        while value >= self.size:
            value = self._backward(value)
        return value

    def slice(self, start: int, stop: int) -> list[int]:
        """The records at positions start..stop-1. Raises `UsageError` outside 0..size."""
        self._check_range(start, stop)
        self._served += stop - start
        # NumPy only where the program has it: loading it adds its generator to a run's recorded state
        if stop - start >= MANY and "numpy" in sys.modules and self._half <= TABLE_HALF_BITS and self._worth_tables():
            records: list[int] = self._forward_all(start, stop).tolist()
            return records
        return self._forward(range(start, stop))

    def records(self, start: int, stop: int) -> NDArray[np.int64]:
        """The records at positions start..stop-1 as int64 of shape (stop - start,), by arrays where that is faster.

        Loads NumPy; a recorder uses `slice`. Raises `UsageError` outside 0..size.
        """
        import numpy as np

        self._check_range(start, stop)
        self._served += stop - start
        if self._worth_tables() or (stop - start >= MANY and self._half > TABLE_HALF_BITS):
            return self._forward_all(start, stop)
        return np.array(self._forward(range(start, stop)), dtype=np.int64)

    def _worth_tables(self) -> bool:
        """Whether as much was asked for as the tables cost to make."""
        return self._tables is not None or (self._half <= MAX_TABLE_HALF_BITS and 1 << self._half < self._served)

    def _forward_all(self, start: int, stop: int) -> NDArray[np.int64]:
        """`_forward` for many positions at once, a block that fits the processor's cache after the other."""
        import numpy as np

        if self._tables is None and self._worth_tables():
            self._tables = [self._table(number) for number in range(ROUNDS)]
        found = np.arange(start, stop, dtype=np.int64)
        for first in range(0, len(found), BLOCK):
            self._walk(found[first : first + BLOCK])
        return found

    def _walk(self, found: NDArray[np.int64]) -> None:
        """Replace positions by their records: through the network, and again those that are not below the size."""
        values = self._network(found)
        found[:] = values
        walking = (values >= self.size).nonzero()[0]
        while len(walking):
            values = self._network(values[values >= self.size])
            found[walking] = values
            walking = walking[values >= self.size]

    def _network(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        left, right = values >> self._half, values & self._mask
        for number in range(ROUNDS):
            turned = self._many(number, right) if self._tables is None else self._tables[number].take(right)
            turned ^= left
            left, right = right, turned
        return left << self._half | right

    def _table(self, number: int) -> NDArray[np.int64]:
        """One round's function of every half."""
        import numpy as np

        if self._half > TABLE_HALF_BITS:
            return self._many(number, np.arange(1 << self._half))
        # as fast as loading compiled code would be, which a reader of small data is to do without
        hasher, first, digests = blake3(key=self._key), bytes([number]), []
        for half in _halves(self._half):
            hasher.reset()
            hasher.update(first + half)
            digests.append(hasher.digest(length=8))
        return np.frombuffer(b"".join(digests), "<u8").astype(np.int64) & self._mask

    def _many(self, number: int, halves: NDArray[np.int64]) -> NDArray[np.int64]:
        """One round's function of many halves, by batch hashing."""
        import numpy as np

        from pot.commitments.batch import hash_rows

        rows = np.empty((len(halves), 9), np.uint8)
        rows[:, 0] = number
        rows[:, 1:] = halves.astype("<u8").view(np.uint8).reshape(-1, 8)
        values = hash_rows(rows, self._key)[:, :8].copy().view("<u8").reshape(-1)
        return values.astype(np.int64) & self._mask

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.size:
            raise UsageError(f"order: positions {start}..{stop} are not inside 0..{self.size}")

    def _check(self, value: int) -> None:
        if not 0 <= value < self.size:
            raise UsageError(f"order: {value} is not inside 0..{self.size - 1}")

    def _forward(self, positions: Iterable[int]) -> list[int]:
        """The records at positions; every reader of a transcript comes here for every record, so it is one loop."""
        rounds, half, mask, size = self._rounds, self._half, self._mask, self.size
        found = []
        for position in positions:
            value = position
            while True:
                left, right = value >> half, value & mask
                for function in rounds:
                    left, right = right, left ^ function[right]
                value = left << half | right
                if value < size:
                    break
            found.append(value)
        return found

    def _backward(self, value: int) -> int:
        left, right = value >> self._half, value & self._mask
        for function in reversed(self._rounds):
            left, right = right ^ function[left], left
        return left << self._half | right


@lru_cache(maxsize=1)
def _halves(bits: int) -> list[bytes]:
    """Every half as it is hashed; small data has many epochs."""
    return [half.to_bytes(8, "little") for half in range(1 << bits)]


@lru_cache(maxsize=4)
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
