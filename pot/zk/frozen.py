"""Frozen tensors: what a released model holds beside the weights that a program trains.

Spec: `specs/step-proof.md`, "Frozen tensors". They are part of the component `model`, because that is what is released,
and stand there in whatever dtype the parent's release has them, in every checkpoint alike. No step computes with them
unless the program holds them as constants, or a record's fields were computed from them.

Shows: that tensors are the same, byte for byte, in two files. Does not show: that a step used them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from blake3 import blake3

from pot.commitments.state import TensorEntry
from pot.errors import Malformed, Refused, UsageError
from pot.zk.semantics.program import is_remembered

__all__ = ["FrozenModule", "check_frozen", "first_change"]

_PIECE: Final = 1 << 18  # fits a core's cache


def check_frozen(states: Collection[str], frozen: Sequence[TensorEntry]) -> None:
    """Refuse names that belong to a program's state, whose tensors are `states`, or that no model may hold.

    Raises `UsageError`, `Malformed`.
    """
    seen: set[str] = set()
    for entry in frozen:
        if entry.name in states or entry.name in seen:
            raise UsageError(f"frozen tensor {entry.name[:64]}: the program trains it, or it is there twice")
        if is_remembered(entry.name, states):  # the next run would take it for what an optimizer remembered
            raise Malformed(f"frozen tensor {entry.name[:64]}: is named as an optimizer's; no model may hold it")
        seen.add(entry.name)


def first_change(one: Sequence[TensorEntry], other: Sequence[TensorEntry]) -> str | None:
    """The first tensor that is not the same in both: there, with its dtype, shape and bytes. NaN and -0.0 are bytes."""
    here, there = ({entry.name: entry for entry in entries} for entries in (one, other))
    for name in sorted(here.keys() | there.keys()):
        before, after = here.get(name), there.get(name)
        if before is None or after is None:
            return name
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            return name
        if not _same_bytes(memoryview(before.data).cast("B"), memoryview(after.data).cast("B")):
            return name
    return None


def _same_bytes(one: memoryview, other: memoryview) -> bool:
    """Views are compared one element after the other, 3 ns a byte; bytes ten times as fast."""
    return len(one) == len(other) and all(
        bytes(one[at : at + _PIECE]) == bytes(other[at : at + _PIECE]) for at in range(0, len(one), _PIECE)
    )


class FrozenModule:
    """The tensors of a PyTorch module that no step trains, as they were when training began."""

    def __init__(self, module: Any, trained: Collection[str]) -> None:
        """`trained`: names of parameters."""
        self._module, self._trained = module, frozenset(trained)
        self._begun = self._digests()

    def check(self) -> None:
        """Raises `Refused` where one has changed: the run's ends could not be opened together."""
        now = self._digests()
        changed = next(
            (name for name in sorted(now.keys() | self._begun.keys()) if now.get(name) != self._begun.get(name)), None
        )
        if changed is not None:
            raise Refused(
                f"{changed}: has changed, but no step trains it; call eval() on the frozen part, or train it too"
            )

    def _digests(self) -> Mapping[str, tuple[str, bytes]]:
        from pot.recording.pytorch.tensors import entry

        found = {}
        for name, value in self._module.state_dict().items():
            if name not in self._trained:
                item = entry(name, value)
                found[name] = (item.dtype, blake3(item.data).digest())
        return found
