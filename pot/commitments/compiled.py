"""Compiled code beside plain definitions: when a process loads it, and what happens where it cannot be had.

Compiled and plain code give the same bytes. Loading takes up to a second, compiling some more once per machine, so a
process loads it only where it has much to do. Where Numba is not installed nothing is said; where it is there and does
not work, that is said once, and the plain code goes on.

Shows / does not show: nothing by itself.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["Compiled"]


class Compiled:
    """A module of compiled code, loaded by need."""

    def __init__(self, module: str, last: str, *, patience: int, few: int, purpose: str) -> None:
        """`last`: the last name that the module defines, so that none is used which another thread still imports.

        `patience`: how much is done plainly before the module is loaded; `few`: calls with less are plain even then, in
        units of the caller's choice. `purpose`: what goes on slower without it.
        """
        self.module, self._last, self._purpose = module, last, purpose
        self.patience, self.few = patience, few
        self.done = 0
        self.unusable = "" if find_spec("numba") else "numba is not installed"

    @property
    def usable(self) -> bool:
        """Whether much work goes through the module."""
        return not self.unusable

    def take(self, amount: int) -> Any:
        """The module if it is to do `amount` of work, else None."""
        if self.unusable or amount < self.few:
            return None
        loaded = sys.modules.get(self.module)
        if loaded is not None and hasattr(loaded, self._last):
            return loaded
        self.done += amount
        if self.done <= self.patience:
            return None
        try:
            return import_module(self.module)
        except ImportError as error:
            self.unusable = str(error)
            warnings.warn(f"{self._purpose} goes on without Numba, slower: {error}", RuntimeWarning, stacklevel=3)
            return None

    def load(self) -> bool:
        """Load the module now (before many processes need it), and say whether it can be used."""
        return self.take(self.patience + self.few) is not None
