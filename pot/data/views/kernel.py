"""Whether a batch goes through the compiled loops of `pot.data.views.lanes`, or through their plain definitions.

Shows / does not show: nothing by itself.
"""

from __future__ import annotations

from typing import Any, Final

from pot.commitments.compiled import Compiled

__all__ = ["kernel", "load_kernel"]

_LANES: Final = Compiled(
    "pot.data.views.lanes",
    "minhash",
    patience=1 << 22,  # bytes
    few=1 << 8,
    purpose="normalising and selecting",
)


def kernel(size: int) -> Any:
    """The compiled module if it is to view `size` bytes, else None."""
    return _LANES.take(size)


def load_kernel() -> bool:
    """Load the kernel now (before many processes need it), and say whether it can be used."""
    return _LANES.load()
