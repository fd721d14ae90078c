"""Spans: many byte strings in one array, so that a batch of records is hashed without a Python object for each.

The shape is Arrow's variable-size binary layout: string i of n is `data[offsets[i]:offsets[i + 1]]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pot.errors import UsageError

__all__ = ["Spans"]


@dataclass(frozen=True, slots=True)
class Spans:
    """`data`: uint8, one dimension. `offsets`: int64 of shape (n + 1,), ascending, within `data`."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, strings: Iterable[bytes]) -> Spans:
        """Join byte strings."""
        parts = list(strings)
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8), offsets)

    def check(self) -> Spans:
        """These spans, after making sure that every string lies within `data`. Raises `UsageError`."""
        ends = self.offsets
        if self.data.ndim != 1 or self.data.dtype != np.uint8 or ends.ndim != 1 or ends.dtype != np.int64:
            raise UsageError("spans: data must be a row of uint8 and offsets a row of int64")
        if not len(ends) or ends[0] < 0 or ends[-1] > len(self.data) or bool(np.any(ends[1:] < ends[:-1])):
            raise UsageError("spans: the offsets do not ascend within the data")
        return self

    @property
    def size(self) -> int:
        """Bytes of all strings together."""
        return int(self.offsets[-1] - self.offsets[0])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))
