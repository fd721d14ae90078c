"""What one proof takes: CPU-seconds and memory, by rows, columns and input vectors.

Fitted to 30 proofs with ezkl 23.0.5 (2^9 to 2^15 rows, 1 to 12 inner columns, 6 to 8 input vectors), on two cores with
load 2 to 8. A proof takes

    0.3 + 2^k (c + i) (15 + 4.4 e) / 10^6 CPU-seconds and 30 MB + 2^k (c + i) (310 + 270 e) bytes

for k = log2 of the rows, c inner columns and i input vectors; e is 4 up to 3 inner columns, 8 up to 7, 16 up to 15: the
proving key doubles at 4 and at 8, as it would if a constraint's degree grew with the columns. So 3 and 7 columns are
cheap. The proofs lie within 13 % of the first and 7 % of the second, and one at 2^16 that the fit had not seen within
1 % and 5 %. A full circuit took 7 to 15 % more CPU time than a nearly empty one of its shape; keys and a first proof
together took 1.6 to 2.2 times as much as a proof.

Shows: an estimate. Does not show: wall time; ezkl uses all cores for parts of its work only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Cost", "extension", "part_cost", "total_cost"]

_FIXED_SECONDS: Final = 0.3
_COLUMN_SECONDS: Final = 15e-6  # of each row: commitments
_EXTENDED_SECONDS: Final = 4.4e-6  # of each row of the extended columns: transforms, and the constraints' values
_FIXED_BYTES: Final = 30_000_000
_COLUMN_BYTES: Final = 310
_EXTENDED_BYTES: Final = 270
STEP_SECONDS: Final = 0.4  # points, and the check of the proof: three processes that load keys


@dataclass(frozen=True)
class Cost:
    """CPU time, and the largest memory of one process."""

    seconds: float
    bytes: int


def extension(columns: int) -> int:
    """The factor e of the model above."""
    return max(4, 2 << (columns.bit_length() - 1))


def part_cost(logrows: int, columns: int, inputs: int) -> Cost:
    """The cost of one proof."""
    cells = (1 << logrows) * (columns + inputs)
    factor = extension(columns)
    return Cost(
        _FIXED_SECONDS + STEP_SECONDS + cells * (_COLUMN_SECONDS + _EXTENDED_SECONDS * factor),
        _FIXED_BYTES + cells * (_COLUMN_BYTES + _EXTENDED_BYTES * factor),
    )


def total_cost(logrows: int, columns: int, inputs: Sequence[int]) -> Cost:
    """The cost of a step whose parts read so many vectors each: all CPU time, and the memory of the largest part."""
    parts = [part_cost(logrows, columns, count) for count in inputs]
    return Cost(sum(part.seconds for part in parts), max(part.bytes for part in parts))
