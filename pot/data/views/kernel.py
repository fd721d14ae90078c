"""Whether a batch goes through the compiled loops of `pot.data.views.lanes`, or through their plain definitions.

The bytes are the same. The compiled code is loaded, or compiled once per machine, only where a process has much to do.

Shows / does not show: nothing by itself.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

__all__ = ["kernel", "load_kernel"]

_MODULE: Final = "pot.data.views.lanes"
_PATIENCE: Final = 1 << 22  # bytes that a process views plainly, before it loads the kernel, which takes a second
_FEW: Final = 1 << 8  # bytes of one call that are viewed plainly even then


class _Use:
    """Whether this process uses the kernel: bytes viewed without it so far, and why it never will."""

    viewed = 0
    unusable = "" if find_spec("numba") else "numba is not installed"


def kernel(size: int) -> Any:
    """The compiled module if it is to view `size` bytes, else None."""
    if _Use.unusable or size < _FEW:
        return None
    loaded = sys.modules.get(_MODULE)
    if loaded is not None and hasattr(loaded, "minhash"):  # its last name: no other thread is still importing it
        return loaded
    _Use.viewed += size
    if _Use.viewed <= _PATIENCE:
        return None
    try:
        return import_module(_MODULE)
    except ImportError as error:
        _Use.unusable = str(error)
        warnings.warn(f"views go on without Numba, slower: {error}", RuntimeWarning, stacklevel=3)
        return None


def load_kernel() -> bool:
    """Load the kernel now (before many processes need it), and say whether it can be used."""
    return kernel(_PATIENCE + 1) is not None
