"""Options of an optimizer that a program moves by itself, such as a learning rate that its loop sets.

A checkpoint's options are only compared, never taken (A02), and a schedule alone can be stepped to its place. So a run
whose loop moves an option can be neither resumed nor replayed, which shows as soon as the option has moved.

Shows: nothing. Does not see: an option that is moved and moved back between two looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

if TYPE_CHECKING:
    from pot.recording.pytorch.state import TorchState

__all__ = ["RULE", "moved"]

RULE: Final = "only a scheduler given to record() as scheduler= may move an option, a LambdaLR for instance"


def moved(source: TorchState, first: list[JsonValue]) -> str | None:
    """How the options have left the `first` ones, where there is no scheduler; None where they have not.

    A scheduler may move what it likes; but the learning rates that it says it set last must be there.
    """
    if source.scheduler is not None:
        return _unlike_schedule(source)
    now = source.groups()
    if len(now) != len(first):
        return f"the optimizer has {len(now)} groups of parameters in place of {len(first)}"
    for one, other in zip(first, now, strict=True):
        ours: dict[str, Any] = one if isinstance(one, dict) else {}
        theirs: dict[str, Any] = other if isinstance(other, dict) else {}
        for key in sorted(ours.keys() | theirs.keys(), key=lambda name: (name != "lr", name)):
            if ours.get(key) != theirs.get(key):
                if key == "params":
                    return "a group of the optimizer holds other parameters than at the start"
                return f"the optimizer's {key} went from {_plain(ours.get(key))} to {_plain(theirs.get(key))}"
    return None


def _unlike_schedule(source: TorchState) -> str | None:
    if id(getattr(source.scheduler, "optimizer", None)) != id(source.optimizer) or source.optimizer is None:
        return None  # a wrapper, or a schedule of another make, whose rates are not known to be this optimizer's
    rates = [float(group["lr"]) for group in source.optimizer.param_groups]
    last: Any = getattr(source.scheduler, "get_last_lr", list)()
    if not isinstance(last, list) or len(last) != len(rates):
        return None
    pairs = ((rate, float(other)) for rate, other in zip(rates, last, strict=True) if rate != float(other))
    return next((f"the optimizer's lr is {rate!r}, its scheduler set {other!r}" for rate, other in pairs), None)


def _plain(value: Any) -> str:
    """A value of `tagged`, as a person writes it."""
    if isinstance(value, dict):
        return _plain(value.get("real", value.get("value", value.get("integer", "a mapping"))))
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) for item in value[:4]) + "]"
    return str(value)[:40]
