"""Where a program's description of itself is not the one that its run was begun with, and what brings it back.

The number of processes comes first: under another one nearly everything else differs too.

Shows: nothing by itself; `pot.recording.begin` refuses to go on.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pot.recording.config import first_difference

__all__ = ["Contradiction", "contradiction"]

_VARIABLE: Final = re.compile(r"environment\.bits\.variables\.([^:]+): ")
_OPTIONS: Final = {
    "checkpoint_every": "--checkpoint-every",
    "config.epochs": "--epochs",
    "order.batch": "--batch-size",
    "steps": "--steps",
}
"""Places in the pre-commitment, and the options of `pot run` that fix them."""


@dataclass(frozen=True)
class Contradiction:
    """The first difference, as "path: recorded value, now the present one", and how to go on all the same."""

    difference: str
    ways: tuple[str, ...] = ()


def contradiction(recorded: Mapping[str, Any], now: Mapping[str, Any], *, launched: bool) -> Contradiction | None:
    """The first difference of two pre-commitments' contents; None where they say the same.

    `launched`: the options are those of `pot run`.
    """
    before, present = _processes(recorded), _processes(now)
    if before != present:
        difference = f"layout.processes: {before!r}, now {present!r}"
        return Contradiction(difference, (f"start {before} process{'es' * (before != '1')} again to go on",))
    found = first_difference(dict(recorded), dict(now))
    if found is None:
        return None
    variable = _VARIABLE.match(found)
    if variable is not None:
        value = recorded["environment"]["bits"]["variables"].get(variable[1])
        back = f"unset {variable[1]}" if value is None else f"set {variable[1]}={shlex.quote(value)} again"
        return Contradiction(found, (f"{back} to go on",))
    place = found.partition(": ")[0]
    accumulated = "micro" in recorded["order"] or "micro" in now["order"]
    value = _at(recorded, place) if place in _OPTIONS else None
    if launched and value is not None and not (place == "order.batch" and accumulated):
        return Contradiction(found, (f"give {_OPTIONS[place]} {value} again to go on",))
    return Contradiction(found)


def _at(content: Any, place: str) -> Any:
    """The value at a place such as "order.batch"; None where there is none."""
    for name in place.split("."):
        content = content.get(name)
    return content


def _processes(content: Mapping[str, Any]) -> str:
    return str(content["layout"]["processes"]) if "layout" in content else "1"
