"""The white list: for every operation of a traced graph that can be lowered, the function that lowers it.

Implements `specs/step-proof.md`, section "Lowering". A rule takes the arithmetic, the operation's arguments and the
shape of its result; what has no rule here or in the modules beside this one is refused by name.

Shows: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pot.errors import UsageError
from pot.zk.lowering.values import Arithmetic, Fixed, LogSoftmax, Marks, Value

__all__ = ["RULES", "Call", "as_value", "axes_of", "rule", "uniform"]


@dataclass(frozen=True)
class Call:
    """One operation of the graph: arguments in their lowered form, and the shape of its (first) result."""

    op: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    shape: list[int]

    def arg(self, position: int, default: Any = None) -> Any:
        """A positional argument, or the default that the operation's schema gives it."""
        return self.args[position] if len(self.args) > position else default


Rule = Callable[[Arithmetic, Call], Any]
RULES: Final[dict[str, Rule]] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function for operations such as `add.Tensor`."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def as_value(a: Arithmetic, item: Any) -> Value:
    """An argument as a tensor of numbers."""
    if isinstance(item, Value):
        return item
    if isinstance(item, Fixed):
        return a.constant(item.tensor)
    if isinstance(item, Marks):
        raise UsageError("token ids or labels cannot be computed with: use an embedding, one_hot or cross_entropy")
    if isinstance(item, LogSoftmax):
        raise UsageError("only the gradient of log_softmax can be lowered: leave its value to cross_entropy")
    raise UsageError(f"an argument of type {type(item).__name__} has no place here")


def axes_of(a: Arithmetic, value: Value | Marks, dims: Sequence[int] | int | None) -> list[int]:
    """Axes counted from the front; all where none are named."""
    rank = len(a.shape(value))
    if dims is None or (not isinstance(dims, int) and not list(dims)):
        return list(range(rank))
    return sorted(dim % rank if rank else 0 for dim in ([dims] if isinstance(dims, int) else dims))


def uniform(item: Any) -> float | None:
    """The number that all elements of a constant have."""
    if isinstance(item, (int, float)):
        return float(item)
    if isinstance(item, Fixed) and item.tensor.numel():
        first = item.tensor.reshape(-1)[0]
        return float(first) if bool((item.tensor == first).all()) else None
    return None
