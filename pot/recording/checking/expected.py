"""What the steps of a run have to say about their batches: by seed and order, or by counting what a stream yielded.

Spec: `specs/transcript.md`, "Verification" 4. Under `feistel/1` whole runs of steps are computed by arrays, in blocks
that double from one step on: a wrong step, and a resumption that jumps back, cost no more than twice what they use.

Shows: under `feistel/1`, which records each step must have taken, and no other. Under `stream/1` only that the counting
is right: which records a stream yielded, no seed says.
Does not show: that training used them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blake3 import blake3

from pot.commitments.order import MAX_TABLE_HALF_BITS, epoch_permutation, steps_per_epoch
from pot.errors import LimitExceeded
from pot.recording.precommit import Precommit, total_records
from pot.recording.transcript import BATCH_CONTEXT, StepEvent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_POSITIONS", "MAX_WIDE_POSITIONS", "FixedOrder", "StreamOrder", "expected_order"]

MAX_POSITIONS: Final = 1 << 33
"""Positions that one check of a chain computes: 100,000 steps of 85,000 records, some minutes."""
MAX_WIDE_POSITIONS: Final = 1 << 28
"""The same among more than 2^34 records: no tables help there, and a position costs many times as much."""

_BLOCK_POSITIONS: Final = 1 << 16  # half a megabyte: it stays in the cache, and the arrays' own cost is spread enough


class FixedOrder:
    """`feistel/1`: epoch, position, count and digest of the batch of every step follow from the seed."""

    def __init__(self, seed: bytes, size: int, batch: int, planned: int, limit: int = MAX_POSITIONS) -> None:
        """`size`: records of the run; `planned`: its steps; `limit`: positions to compute. Raises `UsageError`."""
        if size > 1 << 2 * MAX_TABLE_HALF_BITS:
            limit = min(limit, MAX_WIDE_POSITIONS)
        self.computed = 0
        """Positions computed so far."""
        self._seed, self._size, self._batch, self._planned, self._limit = seed, size, batch, planned, limit
        self._records, self._width = str(batch), 8 * (batch + 1)
        self._per_epoch = steps_per_epoch(size, batch)
        self._hasher = blake3(derive_key_context=BATCH_CONTEXT)
        self._first = self._count = 0  # the block holds the steps first..first+count-1
        self._rows: list[bytes] = []

    def where(self, step: int) -> tuple[int, int]:
        """Epoch and position of the first record of the batch of `step`, from 1."""
        epoch, within = divmod(step - 1, self._per_epoch)
        return epoch, within * self._batch

    def differs(self, event: StepEvent, step: int, before: StepEvent | None) -> str | None:
        """The first field of the event that is not as it must be, with both values; None where all are.

        Raises `LimitExceeded` above `limit` positions.
        """
        epoch, position = self.where(step)
        if event.position == str(position) and event.epoch == str(epoch) and event.records == self._records:
            digest = self.digest(step)
            return (
                None if digest == event.batch_blake3 else f"batch_blake3 expected {digest}, found {event.batch_blake3}"
            )
        wanted = {"epoch": str(epoch), "position": str(position), "records": self._records}
        name = next(name for name, value in wanted.items() if getattr(event, name) != value)
        return f"{name} expected {wanted[name]}, found {getattr(event, name)}"

    def cursor(self, step: int, last: StepEvent | None) -> tuple[str, str]:
        """Epoch and position of the batch of `step` as the cursor's fields; "0" and "0" before the first."""
        epoch, position = self.where(step) if step else (0, 0)
        return str(epoch), str(position)

    def digest(self, step: int) -> str:
        """The digest of the batch of `step`, from 1. Raises `LimitExceeded` above `limit` positions."""
        at = step - self._first
        if not 0 <= at < self._count:
            self._compute(step)
            at = 0
        hasher = self._hasher.copy()
        hasher.update(self._rows[at])
        return hasher.hexdigest()

    def _compute(self, step: int) -> None:
        """The block of records that begins with `step`: a row each, behind the length that `derive` puts before it."""
        import numpy as np

        most = max(1, _BLOCK_POSITIONS // self._batch)
        count = min(2 * self._count, most) if self._count and step == self._first + self._count else 1
        epoch, position = self.where(step)
        count = min(count, self._per_epoch - position // self._batch, self._planned - step + 1)
        self.computed += count * self._batch
        if self.computed > self._limit:
            raise LimitExceeded(f"more than {self._limit} positions of the order would have to be computed")
        records = epoch_permutation(self._seed, self._size, epoch).records(position, position + count * self._batch)
        rows: NDArray[np.int64] = np.empty((count, self._batch + 1), dtype="<i8")
        rows[:, 0] = 8 * self._batch
        rows[:, 1:] = records.reshape(count, self._batch)
        data = rows.tobytes()
        self._rows = [data[at : at + self._width] for at in range(0, len(data), self._width)]
        self._first, self._count = step, count


class StreamOrder:
    """`stream/1`: the counting of a stream; the digests are the recorder's words."""

    def __init__(self, batch: int) -> None:
        self._batch = batch

    def differs(self, event: StepEvent, step: int, before: StepEvent | None) -> str | None:
        """The first field that does not follow from the step before (None: there is none); None where all do."""
        epoch, position = (int(before.epoch), int(before.position) + int(before.records)) if before else (0, 0)
        if (event.epoch, event.position) not in ((str(epoch), str(position)), (str(epoch + 1), "0")) or (
            before is None and event.epoch != "0"
        ):
            return f"position expected {position} of epoch {epoch}, found {event.position} of epoch {event.epoch}"
        if not 1 <= int(event.records) <= self._batch:
            return f"records expected 1 to {self._batch}, found {event.records}"
        return None

    def cursor(self, step: int, last: StepEvent | None) -> tuple[str, str]:
        """Epoch and position of the last step's batch as the cursor's fields; "0" and "0" before the first."""
        return (last.epoch, last.position) if step and last is not None else ("0", "0")


def expected_order(precommit: Precommit, seed: bytes, limit: int = MAX_POSITIONS) -> FixedOrder | StreamOrder:
    """What the steps of this run must say, for the run's seed."""
    batch = int(precommit.order.batch)
    if precommit.order.method == "stream/1":
        return StreamOrder(batch)
    return FixedOrder(seed, total_records(precommit), batch, int(precommit.steps), limit)
