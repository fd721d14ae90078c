"""Arguments of a lowering, refused by name before anything is traced.

The ranges are those of the document that the lowering writes (`specs/step-proof.md`, sections "Program" and "Family
auto"), which would name a node or a member of the document in the place of the argument.

Shows: nothing; the documents check themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pot.errors import UsageError

if TYPE_CHECKING:
    from pot.canonical import Document
    from pot.zk.trace import Field

__all__ = ["check_numbers", "check_trainable", "check_widths"]


def check_numbers(document: type[Document], **given: Any) -> None:
    """Whether numbers lie where the members of that name of a document may. Raises `UsageError` with range and value.

    `given`: arguments by name; each is an integer member of the document with a least and a largest value.
    """
    for name, value in given.items():
        bounds = document.model_fields[name].metadata
        low, high = (next(getattr(one, end) for one in bounds if hasattr(one, end)) for end in ("ge", "le"))
        if type(value) is not int or not low <= value <= high:
            raise UsageError(f"{name} is {value!r:.40}: give a whole number from {low} to {high}")


def check_widths(fields: Mapping[str, Field], below: int, what: str) -> None:
    """Whether the integers of every field fit. Raises `UsageError` naming the field."""
    for name, item in fields.items():
        if item.kind != "marks" and item.width >= below:
            raise UsageError(
                f"field {name}: its width {item.width} must be below {what} {below}; put coarser integers into the"
                " records (fewer bits), and give that width"
            )


def check_trainable(names: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Whether something is trained, and all of it is the module's. Raises `UsageError`."""
    if not names:
        raise UsageError("no parameter is trained: none requires a gradient, or trainable is empty")
    if unknown := [name for name in names if name not in parameters]:
        held = ", ".join(parameters)
        raise UsageError(f"trainable: the module has no {', '.join(unknown)[:200]}; its parameters are {held[:200]}")
