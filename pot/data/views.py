"""Views: versioned projections of a record to the bytes that are committed.

Spec: `specs/commitments.md`, "Views". What a claim like "X is not in the training data" means depends on the view: two
records are the same exactly if their view bytes are. A view never sees the container, so the same record gives the
same digest wherever it was stored.

Shows / does not show: a view compares exact bytes. A changed pixel, a space, another encoding make another record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from pot.canonical import canonical_bytes
from pot.data.readers import Container, Record
from pot.errors import Malformed, UsageError

__all__ = ["VIEWS", "View", "ViewName", "view_named"]

ViewName = Literal["pixels/1", "json/1", "file/1"]
MAX_EXTENT: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class View:
    """A view's name, the container it reads records from, and its projection of one record to bytes."""

    name: ViewName
    container: Container
    project: Callable[[Record], bytes]


def _pixels(record: Record) -> bytes:
    """Height, width, channels as three u32 little endian, then the values row-major, one byte each."""
    rows = _object(record).get("image")
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], list) or not rows[0]:
        raise Malformed(f"{record.where}: view pixels/1 needs a field 'image', a list of rows of values 0 to 255")
    deep = isinstance(rows[0][0], list)
    height, width = len(rows), len(rows[0])
    channels = len(rows[0][0]) if deep else 1
    body = bytearray()
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise Malformed(f"{record.where}: row {number} of 'image' is not a list of {width}, as row 0 is")
        for pixel in row if deep else [row]:
            _append(body, pixel, channels if deep else width, f"{record.where}: row {number} of 'image'")
    if channels < 1 or max(height, width, channels) > MAX_EXTENT:
        raise Malformed(f"{record.where}: 'image' has no channel, or an extent over {MAX_EXTENT}")
    return b"".join(extent.to_bytes(4, "little") for extent in (height, width, channels)) + bytes(body)


def _append(body: bytearray, values: Any, length: int, where: str) -> None:
    # bytes() takes True for 1, which JSON keeps apart: hence the type test
    if not isinstance(values, list) or len(values) != length or not all(type(value) is int for value in values):
        raise Malformed(f"{where} does not hold {length} integers")
    try:
        body += bytes(values)
    except ValueError:
        raise Malformed(f"{where} holds a value outside 0 to 255") from None


def _json(record: Record) -> bytes:
    """The whole object in RFC 8785 form."""
    return canonical_bytes(_object(record))


def _file(record: Record) -> bytes:
    """The file's bytes, unchanged."""
    return record.data


def _object(record: Record) -> dict[str, Any]:
    if record.value is None:
        raise UsageError(f"{record.where}: is a plain file; this view needs JSON records (.jsonl)")
    return record.value


VIEWS: Final[dict[str, View]] = {
    "pixels/1": View("pixels/1", "jsonl", _pixels),
    "json/1": View("json/1", "jsonl", _json),
    "file/1": View("file/1", "file", _file),
}


def view_named(name: str) -> View:
    """The view of that name. Raises `UsageError` naming the ones there are."""
    view = VIEWS.get(name)
    if view is None:
        raise UsageError(f"view {name[:64]!r} is not known; known views are {', '.join(sorted(VIEWS))}")
    return view
