"""What one proof of family auto takes: CPU-seconds and memory, by rows and columns.

Fitted to 9 proofs of networks with one hidden layer under ezkl 23.0.5 (GELU, SiLU, tanh; 2^11 to 2^15 rows, 2 to 8
columns in one or two blocks), each with two lookup tables and three ranges. A proof takes about

    0.5 + 0.00037 2^k c CPU-seconds and 60 MB + 18 KB 2^k c

for k = log2 of the rows and c columns in all blocks together: what does not fit the rows of one block takes as many
columns again. The proofs lie within 12 % of the first and 19 % of the second. A step of family exact costs a tenth of
it, as it has one table and nothing to rescale.

Shows: an estimate. Does not show: wall time; ezkl uses all cores for parts of its work only.
"""

from __future__ import annotations

from typing import Final

from pot.zk.circuit import ROWS_RESERVE
from pot.zk.circuits.proof_cost import Cost

__all__ = ["auto_cost", "blocks"]

_FIXED_SECONDS: Final = 0.5
_CELL_SECONDS: Final = 3.7e-4
_FIXED_BYTES: Final = 60_000_000
_CELL_BYTES: Final = 18_000
STEP_SECONDS: Final = 0.8  # points, the witness and the check of the proof: processes that load keys


def blocks(logrows: int, rows: int) -> int:
    """How many blocks of columns a circuit of so many rows fills."""
    return max(1, -(-rows // ((1 << logrows) - ROWS_RESERVE)))


def auto_cost(logrows: int, columns: int, rows: int) -> Cost:
    """The cost of one step, whose circuit takes `rows` rows by ezkl's own count (`num_rows` of its settings)."""
    cells = (1 << logrows) * columns * blocks(logrows, rows)
    return Cost(_FIXED_SECONDS + STEP_SECONDS + cells * _CELL_SECONDS, _FIXED_BYTES + cells * _CELL_BYTES)
